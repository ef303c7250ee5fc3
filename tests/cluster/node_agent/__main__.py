"""``python -m tests.cluster.node_agent CONFIG.json``, in mount and pid namespaces of its own."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
from pathlib import Path

from tests.cluster.node_agent.config import AgentConfig
from tests.cluster.node_agent.node import NodeAgent


def prepare_mounts() -> None:
    """Mounts of pods propagate among this namespace's pods, as on a node, and not outside."""
    mounts = [
        ["mount", "--make-rshared", "/"],
        # crun insists on seeing control groups even when it is told to leave them alone.
        ["mount", "-t", "cgroup2", "none", "/sys/fs/cgroup"],
        # Named network namespaces live here; they end with this namespace.
        ["mount", "-t", "tmpfs", "tmpfs", "/run"],
    ]
    for command in mounts:
        subprocess.run(command, check=True)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    config = AgentConfig.read(Path(sys.argv[1]))
    for folder in (config.pods, config.logs, config.running, config.node_root, config.crun_state):
        folder.mkdir(parents=True, exist_ok=True)
    config.running.chmod(0o700)
    prepare_mounts()
    asyncio.run(NodeAgent(config).run())


if __name__ == "__main__":
    main()

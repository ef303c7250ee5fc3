"""What the cluster tests need from the machine, and whether it is there.

Standard library only: the tier runner asks before anything is set up.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent / "tools"))
from setup import debian_packages  # type: ignore[import-not-found]  # noqa: E402 - tools/setup.py

SYSTEM_PACKAGES = ["crun", "iproute2", "util-linux"]
"""Debian's names of every system tool the cluster needs, besides Go."""

_COMMANDS = ["crun", "ip", "unshare", "nsenter", "setpriv", "mount"]
_GO = (1, 26)


def why_not() -> str:
    """One line why this machine cannot run the cluster tests; empty when it can."""
    if sys.platform != "linux":
        return "needs Linux: pods run in its namespaces"
    if os.geteuid() != 0:
        return "needs root, to run pods in namespaces of their own"
    if reason := _go_is_missing():
        return reason
    missing = [command for command in _COMMANDS if not shutil.which(command)]
    if missing and not shutil.which("apt-get"):
        return f"needs {', '.join(missing)}"
    return _kernel_refuses()


def install_system_packages() -> None:
    """Install what is missing of `SYSTEM_PACKAGES`; nothing to do in most calls."""
    if not all(shutil.which(command) for command in _COMMANDS):
        debian_packages(SYSTEM_PACKAGES, why="the cluster tests run containers")


def _go_is_missing() -> str:
    wanted = ".".join(map(str, _GO))
    if not shutil.which("go"):
        return f"needs Go {wanted} or later, to build the control plane"
    # GOTOOLCHAIN=local: the version that is installed, not one that Go would fetch.
    env = {**os.environ, "GOTOOLCHAIN": "local"}
    said = subprocess.run(["go", "version"], capture_output=True, text=True, env=env).stdout
    found = re.search(r"go(\d+)\.(\d+)", said)
    if not found or (int(found[1]), int(found[2])) < _GO:
        return f"needs Go {wanted} or later to build the control plane, found: {said.strip()}"
    return ""


def _kernel_refuses() -> str:
    """Root in a confined container may still lack the right to make namespaces and mounts."""
    tried = subprocess.run(
        ["unshare", "--mount", "--pid", "--net", "--fork", "mount", "-t", "tmpfs", "none", "/mnt"],
        capture_output=True,
        text=True,
    )
    if tried.returncode:
        return f"needs the right to make namespaces and mounts: {tried.stderr.strip()[:120]}"
    return ""


if __name__ == "__main__":
    print(why_not() or "this machine can run the cluster tests")

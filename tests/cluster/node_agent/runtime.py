"""Containers by crun: create, start, signal, run a command inside, wait for the end.

The agent is the first process of its own pid namespace, so a container's process becomes its
child as soon as crun has left, and it can wait for it.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path

from tests.cluster.node_agent.oci import capability_names
from tests.cluster.node_agent.status import Json


class RuntimeFailure(RuntimeError):
    """crun would not create or start the container; the text is crun's."""


class RunningContainer:
    """One run of a container; `wait` may be called by several tasks.

    ``process`` is the OCI process of its configuration: what runs inside later has the same
    user, environment and capabilities (crun by itself would take root).
    """

    def __init__(self, crun: Crun, container_id: str, pid: int, bundle: Path, process: Json):
        self.crun, self.id, self.pid, self.process = crun, container_id, pid, process
        self._bundle = bundle
        self._ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._handle = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._handle, self._reap)

    async def wait(self) -> int:
        """The exit code, 128 + N for a process that signal N ended."""
        return await asyncio.shield(self._ended)

    async def signal(self, number: signal.Signals) -> None:
        if not self._ended.done():
            await self.crun.run("kill", self.id, str(int(number)), check=False)

    async def exec(self, command: list[str], seconds: float) -> tuple[int, str]:
        """Exit code and output of a command in the container; -1 when it took too long."""
        with tempfile.NamedTemporaryFile("w", dir=self._bundle, suffix=".json") as described:
            json.dump({**self.process, "args": command}, described)
            described.flush()
            return await self._exec(described.name, seconds)

    async def _exec(self, described: str, seconds: float) -> tuple[int, str]:
        process = await asyncio.create_subprocess_exec(
            *self.crun.command("exec", "--process", described, self.id),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), seconds)
        except TimeoutError:
            process.kill()
            await process.wait()
            return -1, f"command timed out after {seconds:g} s"
        return process.returncode or 0, output.decode(errors="replace")

    def _reap(self) -> None:
        asyncio.get_running_loop().remove_reader(self._handle)
        os.close(self._handle)
        ended = os.waitpid(self.pid, 0)[1]
        code = os.waitstatus_to_exitcode(ended)
        self._ended.set_result(128 - code if code < 0 else code)


class Crun:
    """All containers of the agent, their state below ``folder``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        status = Path("/proc/self/status").read_text()
        bounding = re.search(r"^CapBnd:\s*([0-9a-f]+)$", status, re.M)
        self.capabilities = capability_names(int(bounding[1], 16)) if bounding else set()

    def command(self, *arguments: str) -> list[str]:
        return ["crun", "--cgroup-manager=disabled", "--root", str(self._folder), *arguments]

    async def run(self, *arguments: str, check: bool = True, output: Path | None = None) -> None:
        """Run crun. ``output`` takes what it and, after ``create``, the container print."""

        def call() -> tuple[int, str]:
            # A container created here keeps the file; crun's own errors are at its end.
            with (output or Path(os.devnull)).open("ab") as out:
                began = out.tell()
                done = subprocess.run(
                    self.command(*arguments), stdin=subprocess.DEVNULL, stdout=out, stderr=out
                )
            said = output.read_bytes()[began:].decode(errors="replace") if output else ""
            return done.returncode, said

        code, said = await asyncio.to_thread(call)
        if code and check:
            raise RuntimeFailure(said.strip() or f"crun {arguments[0]} failed with {code}")

    async def start(
        self, bundle: Path, container_id: str, config: Json, output: Path
    ) -> RunningContainer:
        (bundle / "config.json").write_text(json.dumps(config))
        pid_file = bundle / "pid"
        await self.run(
            "create", "--bundle", str(bundle), "--pid-file", str(pid_file), container_id,
            output=output,
        )  # fmt: skip
        running = RunningContainer(
            self, container_id, int(pid_file.read_text()), bundle, config["process"]
        )
        try:
            await self.run("start", container_id, output=output)
        except RuntimeFailure:
            await self.run("delete", "--force", container_id, check=False)
            raise
        return running

    async def delete(self, container_id: str) -> None:
        await self.run("delete", "--force", container_id, check=False)

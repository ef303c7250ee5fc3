"""Start, watch and end processes; a log each, and no sleeping where a line can be awaited."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, check: Callable[[], T], timeout: float = 60.0, every: float = 0.1) -> T:
    """Poll ``check`` until it answers something true; fail with ``what`` after ``timeout`` s."""
    deadline = time.monotonic() + timeout
    while True:
        if found := check():
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout:.0f} s in vain for {what}")
        time.sleep(every)


def bare_environment() -> dict[str, str]:
    """What a process needs and nothing the developer's shell happened to hold."""
    kept = {"PATH", "HOME", "LANG", "TMPDIR", "USER", "LOGNAME"}
    return {k: v for k, v in os.environ.items() if k in kept} | {"PYTHONUNBUFFERED": "1"}


class Process:
    """One process in a group of its own, its output in a file."""

    def __init__(
        self, name: str, command: list[str], *, directory: Path, env: Mapping[str, str]
    ) -> None:
        self.name, self.command, self.directory, self.env = name, command, directory, dict(env)
        self.log = directory / f"{name}.log"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    @property
    def log_text(self) -> str:
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def start(self) -> None:
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                self.command,
                cwd=self.directory,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )

    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def exit_code(self, timeout: float = 60.0) -> int:
        assert self._process is not None
        return self._process.wait(timeout)

    def tail(self, lines: int = 60) -> str:
        return "\n".join(self.log_text.splitlines()[-lines:])

    def wait_until(self, what: str, check: Callable[[], T], timeout: float = 60.0) -> T:
        """Like `wait_for`, but a process that died fails at once, with its last lines."""

        def look() -> T | None:
            if not self.alive():
                raise AssertionError(f"{self.name} ended early:\n{self.tail()}")
            return check()

        try:
            return wait_for(what, look, timeout)  # type: ignore[return-value]
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.tail()}") from None

    def stop(self, how: signal.Signals = signal.SIGTERM, timeout: float = 45.0) -> None:
        """End it the way ``how`` says; the whole group is killed if it will not."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(10)

    def kill_group(self) -> None:
        """Whatever it left behind in its group goes too."""
        if self._process is not None:
            try:
                os.killpg(self._process.pid, signal.SIGKILL)
            except ProcessLookupError:
                return

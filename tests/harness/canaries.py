"""The canary check: no value the IAM issued may appear where it does not belong.

`Canaries` collects every secret a stage knows (what the IAM issued, the client's
secret, code verifiers) and looks for each one raw, URL-encoded and in base64 in

- log files and everything else a suite produced (text or binary, the hub's database included),
- environments and command lines of the processes, sampled while the suite runs,
- addresses a browser showed.

Exempt, by name: token directories (the files are the product), the hub's own
environment (the operator put the client's secret there), the IAM's own state.
"""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, quote_plus

#: Below this many characters a "secret" would be found by chance.
MIN_LENGTH = 16


def spellings(secret: str) -> set[bytes]:
    """How ``secret`` can be written: raw, URL-encoded, base64 at each of the three offsets."""
    raw = secret.encode()
    found = {raw, quote(secret, safe="").encode(), quote_plus(secret).encode()}
    for offset in range(3):
        padded = b"\0" * offset + raw
        # Only whole groups of three bytes are independent of what stands around them.
        inner = padded[: len(padded) - len(padded) % 3]
        skip = 4 if offset else 0
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(inner)[skip:]
            if len(text) >= MIN_LENGTH:
                found.add(text)
    return found


@dataclass
class Canaries:
    """Secrets with the name of their kind, and where they were found."""

    secrets: dict[str, str] = field(default_factory=dict)

    def add(self, kind: str, values: Iterable[str]) -> None:
        for value in values:
            if len(value) >= MIN_LENGTH:
                self.secrets[value] = kind

    def look_in(self, channel: str, content: bytes) -> list[str]:
        """One line for each secret found; the line names its kind, never the secret."""
        return [
            f"{kind} in {channel}"
            for secret, kind in self.secrets.items()
            if any(spelling in content for spelling in spellings(secret))
        ]

    def look_in_files(self, root: Path, *, exempt: Iterable[Path] = ()) -> list[str]:
        """Every regular file below ``root``, except below an ``exempt`` directory."""
        spared = tuple(exempt)
        found = []
        for path in sorted(root.rglob("*")):
            if path.is_symlink() or not path.is_file():
                continue
            if any(path.is_relative_to(one) for one in spared):
                continue
            found += self.look_in(str(path.relative_to(root)), path.read_bytes())
        return found


def processes_of(marker: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """(pid, environment, command line) of each process that mentions ``marker``, or works there."""
    for pid in [int(name) for name in os.listdir("/proc") if name.isdigit()]:
        try:
            environ = Path(f"/proc/{pid}/environ").read_bytes()
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
            cwd = os.readlink(f"/proc/{pid}/cwd").encode()
        except OSError:
            continue
        if marker in environ + command + cwd and pid != os.getpid():
            yield pid, environ, command


class ProcessSampler:
    """Remembers environments and command lines of all processes that mention ``marker``.

    ``spare_environment`` holds the ids of processes whose environment is exempt.
    """

    def __init__(self, marker: str, every: float = 0.25) -> None:
        self.marker, self.every = marker.encode(), every
        self.spare_environment: set[int] = set()
        self.seen: dict[str, bytes] = {}
        self._environments: dict[str, tuple[int, bytes, bytes]] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._stop.wait(self.every):
            self.sample()

    def sample(self) -> None:
        for pid, environ, command in processes_of(self.marker):
            name = command.split(b"\0")[0].decode(errors="replace").rpartition("/")[2]
            self.seen[f"command line of {name} {pid}: {hash(command)}"] = command
            channel = f"environment of {name} {pid}: {hash(environ)}"
            self.seen[channel] = environ
            self._environments[channel] = (pid, command, environ)

    def found(self, canaries: Canaries) -> list[str]:
        spared = self._spared()
        return [
            line
            for channel, content in self.seen.items()
            if channel not in spared
            for line in canaries.look_in(channel.partition(":")[0], content)
        ]

    def _spared(self) -> set[str]:
        """Channels of exempt processes, and of their children between fork and exec.

        Such a child still is its parent: the same command line, the same environment.
        Judged here and not when sampled: that may be before whoever started a process
        names its id.
        """
        exempt = {
            (command, environ)
            for pid, command, environ in self._environments.values()
            if pid in self.spare_environment
        }
        return {
            channel
            for channel, (_pid, command, environ) in self._environments.items()
            if (command, environ) in exempt
        }

"""What a process in the running session sees of its files."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from tests.harness.person import Person

#: Run in the user's kernel.
LOOK = """
import json, os
def look(path):
    s = os.lstat(path)
    return dict(path=path, text=open(path).read(), mode=oct(s.st_mode & 0o7777), uid=s.st_uid,
                inode=s.st_ino, mtime=s.st_mtime_ns)
d = os.path.dirname(os.environ["RUCIO_CONFIG"])
kinds = (".token", ".cfg", ".json")
names = ("OAUTH2", "RUCIO", "BEARER", "ESCAPE", "JUPYTERHUB_API_TOKEN")
print(json.dumps(dict(
    env={k: v for k, v in os.environ.items() if k.startswith(names)},
    uid=os.getuid(),
    directory=dict(path=d, mode=oct(os.lstat(d).st_mode & 0o7777), names=sorted(os.listdir(d))),
    files={n: look(os.path.join(d, n)) for n in os.listdir(d) if n.endswith(kinds)},
)))
"""


@dataclass
class SessionView:
    """The environment and the files of one session at one moment."""

    env: dict[str, str]
    uid: int
    directory: dict[str, Any]
    files: dict[str, dict[str, Any]]

    @property
    def eos_token(self) -> str:
        """The JWT inside the EOS token file."""
        kind, token, _endpoint = self.files["eos.token"]["text"].split(":")
        assert kind == "oauth2"
        return str(token)

    @property
    def rucio_token(self) -> str:
        return str(self.files["rucio.token"]["text"])

    @property
    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.files["status.json"]["text"])
        return found


def look(person: Person, kernel: str) -> SessionView:
    return SessionView(**json.loads(person.run(kernel, LOOK)))

"""Two system users on one machine: alice's files are refused to bob's processes."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness import Person
from tests.harness.session_view import look
from tests.harness.stage import Stage

pytestmark = pytest.mark.root

EXTRA = """
c.JupyterHub.spawner_class = "escape-local"
c.Spawner.args = []
"""

#: In a mount namespace of its own the hub sees the developer's home through an overlay that other
#: users may enter, so that their sessions can run this environment. Nothing outside changes.
ENTER = """
set -e
layers=$(mktemp -d)
mount -t tmpfs tmpfs "$layers"
mkdir "$layers/upper" "$layers/work"
mount -t overlay overlay -o "lowerdir=$HOME,upperdir=$layers/upper,workdir=$layers/work" "$HOME"
chmod 711 "$HOME"
exec "$@"
"""

READS = """
import json, os
def attempt(what, *args):
    try:
        what(*args)
        return "allowed"
    except PermissionError:
        return "refused"
    except OSError as error:
        return type(error).__name__
directory, pid = {directory!r}, {pid}
found = dict(
    list=attempt(os.listdir, directory),
    eos=attempt(open, directory + "/eos.token"),
    rucio=attempt(open, directory + "/rucio.token"),
    environ=attempt(open, f"/proc/{{pid}}/environ"),
)
"""
WRITES = """
found["write"] = attempt(open, directory + "/rucio.token", "w")
found["rename"] = attempt(os.rename, directory + "/rucio.token", directory + "/x")
"""
SHOW = "print(json.dumps(found))"


@pytest.fixture(scope="module")
def system_users() -> Iterator[None]:
    for name in ("alice", "bob"):
        with pytest.raises(KeyError):
            pwd.getpwnam(name)
    try:
        for name in ("alice", "bob"):
            subprocess.run(["useradd", "--create-home", name], check=True)
        yield
    finally:
        for name in ("alice", "bob"):
            subprocess.run(["userdel", "--remove", name], capture_output=True)


@pytest.fixture(scope="module")
def stage(system_users: None) -> Iterator[Stage]:
    with tempfile.TemporaryDirectory(prefix="escape-two-users-") as place:
        os.chmod(place, 0o755)  # noqa: S103 - the two users go through it to their own files
        wrapper = ["unshare", "-m", "sh", "-c", ENTER, "sh"]
        options = {"extra": EXTRA, "wrapper": wrapper}
        with Stage(Path(place), options, {}) as running:
            os.chmod(running.hub.directory, 0o755)  # noqa: S103
            os.chmod(running.hub.token_root, 0o1777)  # noqa: S103 - as /dev/shm and /tmp are
            yield running
        assert running.leaks() == []


def test_bobs_processes_are_refused_alices_files_and_environment(stage: Stage) -> None:
    alice, bob = Person(stage.hub.url, "alice"), Person(stage.hub.url, "bob")
    for person in (alice, bob):
        person.login()
        person.spawn()
    kernel = alice.start_kernel()
    hers = look(alice, kernel)
    assert hers.uid == pwd.getpwnam("alice").pw_uid
    assert {file["uid"] for file in hers.files.values()} == {hers.uid}

    pid = int(alice.run(kernel, "import os; print(os.getpid())"))
    reads = READS.format(directory=hers.directory["path"], pid=pid)
    bobs = bob.start_kernel()
    assert int(bob.run(bobs, "import os; print(os.getuid())")) == pwd.getpwnam("bob").pw_uid
    refused = json.loads(bob.run(bobs, reads + WRITES + SHOW))
    assert set(refused.values()) == {"refused"}, refused
    allowed = json.loads(alice.run(kernel, reads + SHOW))
    assert set(allowed.values()) == {"allowed"}, "the attempts themselves must be able to succeed"
    for person in (alice, bob):
        person.stop_server()
        person.close()

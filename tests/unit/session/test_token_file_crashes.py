"""The writer when the machine is against it: killed, full, watched by an impatient reader."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from escape_hub.errors import CredentialFileError
from escape_hub.session.token_files import LOCK
from tests.unit.session.peers import opened

KILLED_BEFORE_RENAME = """
import os, signal, sys
from escape_hub.session.token_files import TokenDirectory
os.rename = lambda *a, **k: os.kill(os.getpid(), signal.SIGKILL)
directory = TokenDirectory.open(sys.argv[1])
assert directory.become_writer()
directory.write("eos.token", "new")
"""

TINY_FILES = """
import resource, sys
from escape_hub.errors import CredentialFileError
from escape_hub.session.token_files import TokenDirectory
directory = TokenDirectory.open(sys.argv[1])
assert directory.become_writer()
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
try:
    directory.write("eos.token", "x" * 101)
except CredentialFileError as error:
    print(error.code, error.message)
"""

READER = """
import os, stat, sys, threading
path, uid, stop = sys.argv[1], os.geteuid(), []
threading.Thread(target=lambda: stop.append(sys.stdin.read()), daemon=True).start()
print("reading", flush=True)
seen, count = set(), 0
while not stop:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    info, data = os.fstat(fd), os.read(fd, 1 << 20)
    os.close(fd)
    assert stat.S_IMODE(info.st_mode) == 0o600 and info.st_uid == uid, oct(info.st_mode)
    assert len(data) == 2000 and len(set(data)) == 1, (len(data), set(data))
    seen.add(data[0]); count += 1
print(len(seen), count)
"""


def run(script: str, *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_a_writer_killed_before_the_rename_leaves_the_old_file_and_the_next_clears_up(
    tmp_path: Path,
) -> None:
    path = tmp_path / "t"
    with opened(path) as directory:
        directory.write("eos.token", "old")
    assert run(KILLED_BEFORE_RENAME, str(path)).returncode == -signal.SIGKILL
    assert (path / "eos.token").read_text() == "old"
    assert len(list(path.iterdir())) == 3
    with opened(path) as directory:  # the lock died with its holder
        assert directory.clear_stale_temps() == 1
        directory.write("eos.token", "newer")
    assert {p.name for p in path.iterdir()} == {LOCK, "eos.token"}


def test_a_file_that_may_not_grow_keeps_the_old_one_and_leaves_no_half(tmp_path: Path) -> None:
    with opened(tmp_path / "t") as directory:
        directory.write("eos.token", "old")
    done = run(TINY_FILES, str(tmp_path / "t"))
    assert done.stdout.startswith("disk-full"), done.stderr
    assert (tmp_path / "t/eos.token").read_text() == "old"
    assert {p.name for p in (tmp_path / "t").iterdir()} == {LOCK, "eos.token"}


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 32 KiB; only root can mount one."""
    path = tmp_path / "tiny"
    path.mkdir()
    options = ["-t", "tmpfs", "-o", "size=32k,mode=0700", "tmpfs", str(path)]
    if os.geteuid() != 0 or subprocess.run(["mount", *options], capture_output=True).returncode:
        pytest.skip("may not mount a tmpfs here")
    yield path
    subprocess.run(["umount", str(path)], check=True)


def test_a_full_disk_keeps_the_old_file_and_heals_when_there_is_room(tiny_disk: Path) -> None:
    filler = tiny_disk / "filler"
    with opened(tiny_disk / "t") as directory:
        directory.write("eos.token", "old")
        with filler.open("wb", buffering=0) as file, pytest.raises(OSError, match="space"):
            while True:
                file.write(b"x" * 4096)
        with pytest.raises(CredentialFileError, match="No space left") as caught:
            directory.write("eos.token", "new" * 1000)
        assert caught.value.code == "disk-full"
        assert {p.name for p in (tiny_disk / "t").iterdir()} == {LOCK, "eos.token"}
        assert (tiny_disk / "t/eos.token").read_text() == "old"
        filler.unlink()
        directory.write("eos.token", "new" * 1000)
        assert (tiny_disk / "t/eos.token").read_text() == "new" * 1000


def test_a_tight_reader_never_sees_a_missing_a_partial_or_an_open_file(tmp_path: Path) -> None:
    with opened(tmp_path / "t") as directory:
        directory.write("eos.token", "a" * 2000)
        command = [sys.executable, "-c", READER, str(tmp_path / "t/eos.token")]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as reader:
            assert reader.stdout is not None and reader.stdout.readline() == b"reading\n"
            old = os.umask(0)
            try:
                for turn in range(500):
                    directory.write("eos.token", "abcdefghij"[turn % 10] * 2000)
            finally:
                os.umask(old)
            out, err = reader.communicate(b"", timeout=30)
    assert reader.returncode == 0, err.decode()
    assert int(out.split()[0]) > 1, "the reader never saw a change"

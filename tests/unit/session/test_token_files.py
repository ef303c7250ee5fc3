"""The directory of token files as strict readers see it."""

from __future__ import annotations

import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escape_hub.errors import CredentialFileError
from escape_hub.session.token_files import LOCK, TokenDirectory, read_private
from tests.unit.session.peers import opened


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


@contextmanager
def umask(value: int) -> Iterator[None]:
    old = os.umask(value)
    try:
        yield
    finally:
        os.umask(old)


@pytest.mark.parametrize("value", [0o000, 0o022, 0o077])
def test_directories_are_made_0700_whatever_the_umask(tmp_path: Path, value: int) -> None:
    with umask(value), opened(tmp_path / "a/b"):
        assert (mode(tmp_path / "a"), mode(tmp_path / "a/b")) == (0o700, 0o700)


@pytest.mark.parametrize("value", [0o000, 0o022, 0o777])
def test_files_are_made_0600_whatever_the_umask(tmp_path: Path, value: int) -> None:
    with opened(tmp_path / "t") as directory, umask(value):
        directory.write("eos.token", "text")
        assert mode(tmp_path / "t/eos.token") == 0o600


def test_our_own_directory_that_is_too_open_is_closed(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir(mode=0o755)
    (tmp_path / "t").chmod(0o2775)
    with opened(tmp_path / "t"):
        assert mode(tmp_path / "t") & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    os.chown(tmp_path / "t", 12345, -1)
    with pytest.raises(CredentialFileError, match="belongs to uid 12345"):
        TokenDirectory.open(str(tmp_path / "t"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_parent_of_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    os.chown(tmp_path / "p", 12345, -1)
    with pytest.raises(CredentialFileError, match="uid 12345"):
        TokenDirectory.open(str(tmp_path / "p/t"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_of_somebody_else_is_neither_read_nor_replaced(tmp_path: Path) -> None:
    with opened(tmp_path / "t") as directory:
        directory.write("eos.token", "theirs")
        os.chown(tmp_path / "t/eos.token", 12345, -1)
        with pytest.raises(CredentialFileError, match="uid 12345"):
            directory.read("eos.token")
        with pytest.raises(CredentialFileError, match="uid 12345"):
            directory.write("eos.token", "ours")
    assert (tmp_path / "t/eos.token").read_text() == "theirs"


@pytest.mark.parametrize("path", ["link", "link/t", "real/link/t"])
def test_a_symbolic_link_on_the_way_is_refused(tmp_path: Path, path: str) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to("elsewhere")
    (tmp_path / "real/link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CredentialFileError, match="symbolic link"):
        TokenDirectory.open(str(tmp_path / path))
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("path", ["relative", "/tmp/../tmp/x", "/tmp//x", "/tmp/x/", "/tmp/./x"])
def test_a_path_that_is_not_plain_is_refused(path: str) -> None:
    with pytest.raises(CredentialFileError, match="plain form"):
        TokenDirectory.open(path)


def test_a_file_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "t").write_text("")
    with pytest.raises(CredentialFileError, match="no directory"):
        TokenDirectory.open(str(tmp_path / "t"))


def test_without_create_a_missing_directory_is_an_error_and_stays_missing(tmp_path: Path) -> None:
    with pytest.raises(CredentialFileError, match="No such file"):
        TokenDirectory.open(str(tmp_path / "t"), create=False)
    assert not (tmp_path / "t").exists()


@pytest.mark.parametrize("kind", ["symlink", "dangling", "hard link", "directory", "fifo"])
def test_a_target_that_is_no_file_of_ours_alone_is_refused_and_kept(
    tmp_path: Path, kind: str
) -> None:
    other, target = tmp_path / "other", tmp_path / "t/eos.token"
    with opened(tmp_path / "t") as directory:
        other.write_text("theirs")
        if kind == "symlink":
            target.symlink_to(other)
        elif kind == "dangling":
            target.symlink_to(tmp_path / "nothing")
        elif kind == "hard link":
            os.link(other, target)
        elif kind == "directory":
            target.mkdir()
        else:
            os.mkfifo(target)
        with pytest.raises(CredentialFileError, match="eos.token"):
            directory.write("eos.token", "secret")
        assert other.read_text() == "theirs"
        assert not (tmp_path / "nothing").exists()
        assert sorted(p.name for p in (tmp_path / "t").iterdir()) == [LOCK, "eos.token"]


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "..", ".hidden", "x\n", "\0"])
def test_only_plain_names_are_written(tmp_path: Path, name: str) -> None:
    with opened(tmp_path / "t") as directory:
        with pytest.raises(CredentialFileError, match="plain file name"):
            directory.write(name, "text")


def test_a_file_that_others_may_read_is_read_and_said_to_be_so(tmp_path: Path) -> None:
    with opened(tmp_path / "t") as directory:
        directory.write("eos.token", "text")
        (tmp_path / "t/eos.token").chmod(0o640)
        found = directory.read("eos.token")
        assert found is not None and not found.private
        assert "text" not in repr(found)


def test_reading_refuses_a_link_and_a_giant_and_misses_what_is_missing(tmp_path: Path) -> None:
    assert read_private(str(tmp_path / "nothing")) is None
    (tmp_path / "big").write_bytes(b"x" * (64 * 1024 + 1))
    (tmp_path / "link").symlink_to("big")
    with pytest.raises(CredentialFileError, match="larger"):
        read_private(str(tmp_path / "big"))
    with pytest.raises(CredentialFileError, match="symbolic link"):
        read_private(str(tmp_path / "link"))


def test_one_writer_at_a_time_and_the_next_follows_when_it_closes(tmp_path: Path) -> None:
    with opened(tmp_path / "t") as first:
        with opened(tmp_path / "t", writer=False) as second:
            first.close()
            assert second.become_writer()


def test_a_lock_on_a_file_that_was_just_wiped_counts_for_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one before ends, and takes its lock file along, between our open and our lock."""
    with opened(tmp_path / "t") as first, opened(tmp_path / "t", writer=False) as second:
        (tmp_path / "t/other").write_text("keeps the directory")
        flock = fcntl.flock

        def end_first(fd: int, how: int) -> None:
            first.dissolve()
            flock(fd, how)

        with monkeypatch.context() as patch:
            patch.setattr(fcntl, "flock", end_first)
            assert not second.become_writer()
        assert second.become_writer()
        with opened(tmp_path / "t", writer=False):
            pass


def test_dissolve_removes_an_empty_directory_and_spares_files_of_others(tmp_path: Path) -> None:
    with opened(tmp_path / "t") as directory:
        directory.write("eos.token", "x")
        (tmp_path / "t/notes").write_text("theirs")
        assert directory.wipe(["eos.token", "missing"]) == []
        directory.dissolve()
    assert [p.name for p in (tmp_path / "t").iterdir()] == ["notes"]
    (tmp_path / "t/notes").unlink()
    with opened(tmp_path / "t") as directory:
        directory.dissolve()
    assert not (tmp_path / "t").exists()


def test_wipe_removes_a_link_itself_and_goes_on_after_a_failure(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("theirs")
    with opened(tmp_path / "t") as directory:
        (tmp_path / "t/a").mkdir()
        (tmp_path / "t/b").symlink_to(tmp_path / "precious")
        failures = directory.wipe(["a", "b"])
        assert [p.name for p in (tmp_path / "t").iterdir() if p.name != LOCK] == ["a"]
    assert len(failures) == 1
    assert (tmp_path / "precious").read_text() == "theirs"


texts = st.text(max_size=3000)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["eos.token", "rucio.token"]), texts), max_size=8))
def test_after_any_writes_each_file_holds_its_last_text_and_nothing_is_left_over(
    writes: list[tuple[str, str]],
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "t"
        with opened(path) as directory:
            for name, text in writes:
                directory.write(name, text)
                found = directory.read(name)
                assert found is not None and found.private and found.text == text
        wanted = dict(writes)
        assert {p.name for p in path.iterdir()} == {LOCK, *wanted}
        for name, text in wanted.items():
            assert (path / name).read_bytes() == text.encode()
            assert mode(path / name) == 0o600

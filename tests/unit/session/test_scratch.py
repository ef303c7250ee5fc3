"""The scratch directory is the user's alone, or a line says why it is not there."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from escape_hub.session import scratch


def test_it_is_made_closed_to_others_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        assert scratch.prepare(str(tmp_path / "alice")) == ""
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "alice").stat().st_mode) == 0o700


def test_one_that_is_open_to_others_is_closed_and_keeps_its_files(tmp_path: Path) -> None:
    mine = tmp_path / "alice"
    mine.mkdir(mode=0o755)
    (mine / "data").write_text("x")
    assert scratch.prepare(str(mine)) == ""
    assert stat.S_IMODE(mine.stat().st_mode) == 0o700
    assert (mine / "data").read_text() == "x"


def test_a_scratch_space_that_is_not_mounted_is_said(tmp_path: Path) -> None:
    why = scratch.prepare(str(tmp_path / "scratch/alice"))
    assert why == f"{tmp_path}/scratch/alice cannot be made: this session has no {tmp_path}/scratch"


def test_a_link_or_a_file_in_its_place_is_said(tmp_path: Path) -> None:
    (tmp_path / "alice").symlink_to("/etc")
    assert "it is no directory" in scratch.prepare(str(tmp_path / "alice"))
    (tmp_path / "bob").write_text("")
    assert "it is no directory" in scratch.prepare(str(tmp_path / "bob"))


def test_a_scratch_space_that_refuses_is_said() -> None:
    # Nobody, root included, makes directories there.
    assert scratch.prepare("/sys/alice").startswith("/sys/alice cannot be made: /sys refuses (")


def test_a_scratch_space_that_hangs_holds_up_nobody_for_long(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scratch, "PATIENCE", 0.05)
    released, told = threading.Event(), threading.Event()

    def told_late(_why: str) -> None:
        released.wait(10)
        told.set()

    scratch.prepare_beside(str(tmp_path / "alice"), told_late)
    assert not told.is_set()
    released.set()
    assert told.wait(10)

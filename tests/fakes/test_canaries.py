"""The canary check itself: one planted leak per channel and per spelling is found."""

from __future__ import annotations

import base64
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.harness.canaries import Canaries, ProcessSampler, spellings
from tests.harness.processes import wait_for

SECRET = "eyJhbGciOiJSUzI1NiJ9.c2VjcmV0LXNlY3JldA.a-b_c/d+e=f"


@pytest.fixture
def canaries() -> Canaries:
    found = Canaries()
    found.add("access token", [SECRET])
    return found


@given(st.binary(max_size=40), st.binary(max_size=40))
def test_a_secret_inside_base64_is_found_wherever_it_stands(before: bytes, after: bytes) -> None:
    text = base64.b64encode(before + SECRET.encode() + after)
    assert any(spelling in text for spelling in spellings(SECRET))


@pytest.mark.parametrize(
    "written",
    [SECRET, quote(SECRET, safe=""), base64.b64encode(SECRET.encode()).decode()],
    ids=["raw", "url", "base64"],
)
def test_a_leak_in_a_log_is_found_and_the_report_does_not_repeat_it(
    canaries: Canaries, tmp_path: Path, written: str
) -> None:
    (tmp_path / "hub.log").write_text(f"[D] something {written} happened\n")
    assert canaries.look_in_files(tmp_path) == ["access token in hub.log"]


def test_a_clean_log_gives_nothing(canaries: Canaries, tmp_path: Path) -> None:
    (tmp_path / "hub.log").write_text("renewal user=alice audience=rucio outcome=ok\n")
    assert canaries.look_in_files(tmp_path) == []


def test_a_leak_in_a_database_is_found(canaries: Canaries, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "hub.sqlite") as db:
        db.execute("create table t (x text)")
        db.execute("insert into t values (?)", (SECRET,))
    db.close()
    assert canaries.look_in_files(tmp_path) == ["access token in hub.sqlite"]


def test_an_exempt_directory_is_spared(canaries: Canaries, tmp_path: Path) -> None:
    (tmp_path / "tokens").mkdir()
    (tmp_path / "tokens/rucio.token").write_text(SECRET)
    assert canaries.look_in_files(tmp_path, exempt=[tmp_path / "tokens"]) == []
    assert canaries.look_in_files(tmp_path) != []


@pytest.mark.parametrize("channel", ["environment", "command line"])
def test_a_leak_in_a_process_is_found(canaries: Canaries, tmp_path: Path, channel: str) -> None:
    env = {"PATH": os.environ["PATH"]} | ({"LEAK": SECRET} if channel == "environment" else {})
    arguments = [SECRET] if channel == "command line" else []
    command = [sys.executable, "-c", "import sys; sys.stdin.read()", *arguments]
    sampler = ProcessSampler(str(tmp_path))
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdin=subprocess.PIPE) as process:
        sampler.start()
        wait_for("the process to be sampled", lambda: len(sampler.seen) > 1, 10)
        sampler.stop()
        process.communicate(b"")
    assert len(sampler.found(canaries)) == 1
    assert channel in sampler.found(canaries)[0]


@pytest.mark.parametrize("inherits", [False, True])
def test_a_child_that_inherits_a_spared_environment_is_found_once_it_is_itself(
    canaries: Canaries, tmp_path: Path, inherits: bool
) -> None:
    """A fork of the spared process is spared until it execs something else."""
    work = "import subprocess, sys; subprocess.run([sys.executable, '-c', 'input()'])"
    wait = "import os, sys; os.fork(); sys.stdin.read()"
    env = {"PATH": os.environ["PATH"], "LEAK": SECRET}
    command = [sys.executable, "-c", work if inherits else wait]
    sampler = ProcessSampler(str(tmp_path))
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdin=subprocess.PIPE) as process:
        sampler.spare_environment.add(process.pid)
        sampler.start()
        wait_for("both processes to be sampled", lambda: len(sampler.seen) > 3, 10)
        sampler.stop()
        process.communicate(b"\n")
    assert bool(sampler.found(canaries)) is inherits


def test_a_leak_in_the_address_bar_is_found(canaries: Canaries) -> None:
    address = f"http://127.0.0.1:8000/hub/home?code={quote(SECRET, safe='')}"
    assert canaries.look_in("the address bar", address.encode()) == [
        "access token in the address bar"
    ]

"""``python -m escape_hub.session`` as a pod runs it: a process of its own, ended by signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from escape_hub.core.session_plan import ENV
from tests.fakes.hub_api import Behaviour, FakeHub
from tests.unit.session.peers import make_plan

ROOT = str(Path(__file__).parents[3])


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    behaviour = Behaviour(audiences={"eos": "eos-eulake", "rucio": "rucio"}, next_poll=2)
    with FakeHub(behaviour, api_token="secret-hub-token") as running:
        yield running


def environment(hub: FakeHub, path: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": ROOT,
        ENV: make_plan(path).to_json(),
        "JUPYTERHUB_API_URL": hub.url,
        "JUPYTERHUB_API_TOKEN": hub.api_token,
    }


def command(*args: str) -> list[str]:
    return [sys.executable, "-m", "escape_hub.session", *args]


def run(env: dict[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*args), env=env, capture_output=True, text=True, timeout=30)


def await_true(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Files have no event to wait for: look again and again."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not come true in time"
        time.sleep(0.02)


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_run_keeps_the_files_until_it_is_told_to_end_and_takes_them_with_it(
    hub: FakeHub, tmp_path: Path, ending: signal.Signals
) -> None:
    path = tmp_path / "t"
    env = environment(hub, path)
    assert run(env, "check").returncode == 1
    with subprocess.Popen(command("run"), env=env, stderr=subprocess.PIPE) as sidecar:
        await_true(lambda: (path / "status.json").exists())
        assert run(env, "check").returncode == 0
        first = (path / "rucio.token").read_text()
        await_true(lambda: (path / "rucio.token").read_text() != first)
        refused = run(env, "wipe")
        assert refused.returncode == 1 and "another agent" in refused.stderr
        sidecar.send_signal(ending)
        _, log = sidecar.communicate(timeout=20)
    assert sidecar.returncode == 0
    assert not path.exists()
    assert not [s for s in [*hub.issued, hub.api_token] if s.encode() in log]


def test_after_kill_9_the_files_stay_and_the_next_agent_takes_over_or_wipes(
    hub: FakeHub, tmp_path: Path
) -> None:
    path = tmp_path / "t"
    env = environment(hub, path)
    with subprocess.Popen(command("run"), env=env, stderr=subprocess.DEVNULL) as sidecar:
        await_true(lambda: (path / "status.json").exists())
        sidecar.kill()
    assert (path / "rucio.token").exists()
    assert run(env, "once").returncode == 0
    assert run(env, "wipe").returncode == 0
    assert not path.exists()


def test_a_second_sidecar_waits_and_takes_over_from_a_killed_one(
    hub: FakeHub, tmp_path: Path
) -> None:
    path = tmp_path / "t"
    env = environment(hub, path)

    def writer() -> int:
        return int(json.loads((path / "status.json").read_text())["writer_pid"])

    with subprocess.Popen(command("run"), env=env, stderr=subprocess.DEVNULL) as first:
        await_true(lambda: (path / "status.json").exists())
        with subprocess.Popen(command("run"), env=env, stderr=subprocess.PIPE) as second:
            assert second.stderr is not None
            assert b"another agent" in second.stderr.readline()
            assert writer() == first.pid
            first.kill()
            await_true(lambda: writer() == second.pid)
            second.terminate()
            second.communicate(timeout=20)
    assert not path.exists()


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        ({}, 0),
        ({"mode": "garbage"}, 4),
        ({"mode": "refuse", "refusal": (409, {"reason": "needs_login", "message": "sign in"})}, 3),
        ({"mode": "refuse", "refusal": (403, {"reason": "forbidden", "message": "no"})}, 5),
    ],
)
def test_once_tells_by_its_exit_code_how_it_went_and_leaves_the_files(
    hub: FakeHub, tmp_path: Path, behaviour: dict[str, object], code: int
) -> None:
    for key, value in behaviour.items():
        setattr(hub.behaviour, key, value)
    done = run(environment(hub, tmp_path / "t"), "once", "--wait", "0.5")
    assert done.returncode == code, done.stderr
    assert (tmp_path / "t/status.json").exists()
    assert (tmp_path / "t/rucio.token").exists() is (code == 0)


@pytest.mark.parametrize("missing", [ENV, "JUPYTERHUB_API_TOKEN"])
def test_a_missing_variable_is_named(hub: FakeHub, tmp_path: Path, missing: str) -> None:
    env = environment(hub, tmp_path / "t")
    del env[missing]
    done = run(env, "run")
    assert done.returncode == 2 and missing in done.stderr

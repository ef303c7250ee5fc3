"""A session's start: its first files, or a start without them, in bounded time."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest

from escape_hub.core.session_plan import ENV
from escape_hub.core.status import State
from escape_hub.errors import SettingsError
from escape_hub.session.agent import Agent
from escape_hub.session.bootstrap import first_files, make_agent, plan_from_environment
from escape_hub.session.hub_reply import HubRefusalError, HubUnavailableError
from tests.fakes.hub_api import Behaviour, FakeHub
from tests.unit.session.peers import EOS, NOW, RUCIO, HandClock, ScriptedHub, make_plan, reply, told

AWAY = HubUnavailableError("away")


def good() -> Any:
    return reply({"eos": told(EOS, NOW + 60), "rucio": told(RUCIO, NOW + 60)})


def agent(path: Path, clock: HandClock, *script: Any) -> Agent:
    rng = random.Random(1)  # noqa: S311
    return Agent(make_plan(path), ScriptedHub(*script), clock=clock, rng=rng)  # type: ignore[arg-type]


def start(one: Agent, clock: HandClock) -> State:
    return first_files(one, timeout=10, clock=clock)  # type: ignore[arg-type]


def test_a_start_retries_until_the_hub_answers(tmp_path: Path) -> None:
    clock = HandClock()
    one = agent(tmp_path / "t", clock, AWAY, AWAY, good())
    assert start(one, clock) is State.FRESH
    assert clock.elapsed() == 1001.0


def test_a_start_without_the_hub_ends_in_time_and_says_late(tmp_path: Path) -> None:
    clock = HandClock()
    assert start(agent(tmp_path / "t", clock, AWAY), clock) is State.LATE
    assert clock.elapsed() <= 1010.0
    status = json.loads((tmp_path / "t/status.json").read_text())
    assert status["state"] == "late"
    assert (tmp_path / "t/rucio.cfg").stat().st_mode & 0o777 == 0o600


def test_a_definite_refusal_is_not_waited_out(tmp_path: Path) -> None:
    clock = HandClock()
    no = HubRefusalError("sign in again", reason="needs_login")
    assert start(agent(tmp_path / "t", clock, no), clock) is State.SIGN_IN
    assert clock.elapsed() == 1000.0


def test_beside_an_agent_that_is_done_a_start_waits_for_nothing(tmp_path: Path) -> None:
    clock = HandClock()
    agent(tmp_path / "t", clock, good()).step()
    other = agent(tmp_path / "t", clock, AssertionError("must not ask"))
    assert start(other, clock) is State.FRESH
    assert clock.elapsed() == 1000.0


def test_against_a_real_hub_that_hangs_the_start_is_over_in_time(tmp_path: Path) -> None:
    plan = make_plan(tmp_path / "t")
    with FakeHub(Behaviour(mode="hang")) as hub:
        env = {"JUPYTERHUB_API_URL": hub.url, "JUPYTERHUB_API_TOKEN": hub.api_token}
        one = make_agent(plan, env)
        begun = time.monotonic()
        assert first_files(one, timeout=0.5) is State.LATE
        assert time.monotonic() - begun < 5
        hub.behaviour.mode = "good"
        hub.behaviour.audiences = {"eos": "eos-eulake", "rucio": "rucio"}
        assert first_files(one, timeout=5) is State.FRESH
        one.stop()


def test_the_plan_comes_from_the_environment_and_only_from_there(tmp_path: Path) -> None:
    plan = make_plan(tmp_path)
    assert plan_from_environment({}) is None
    assert plan_from_environment({ENV: plan.to_json()}) == plan
    with pytest.raises(SettingsError, match=ENV):
        plan_from_environment({ENV: "{"})


def test_the_address_to_sign_in_is_on_the_hubs_host(tmp_path: Path) -> None:
    with FakeHub(Behaviour(audiences={"eos": "eos-eulake", "rucio": "rucio"})) as hub:
        env = {
            "JUPYTERHUB_API_URL": hub.url,
            "JUPYTERHUB_API_TOKEN": hub.api_token,
            "JUPYTERHUB_HOST": "https://hub.example.org",
        }
        one = make_agent(make_plan(tmp_path / "t"), env)
        first_files(one)
        assert one.status.sign_in_url == "https://hub.example.org/hub/oauth_login"
        one.stop()

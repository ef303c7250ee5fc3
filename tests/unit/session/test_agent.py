"""The loop of a session, turn by turn, with a clock moved by hand."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest

from escape_hub.core.status import State
from escape_hub.session.agent import Agent
from escape_hub.session.hub_reply import AudienceReply, HubRefusalError, HubUnavailableError
from tests.unit.session.peers import (
    EOS,
    NOW,
    RUCIO,
    HandClock,
    ScriptedHub,
    jwt,
    make_plan,
    reply,
    told,
)

HOUR = 3600.0
AWAY = HubUnavailableError("the hub does not answer (TimeoutError); trying again by itself")


class Stage:
    """An agent, its directory and its clock."""

    def __init__(self, path: Path, clock: HandClock | None = None) -> None:
        self.path = path
        self.clock = clock or HandClock()

    def agent(self, *script: Any) -> Agent:
        return Agent(
            make_plan(self.path),
            ScriptedHub(*script),
            clock=self.clock,  # type: ignore[arg-type]
            rng=random.Random(1),  # noqa: S311
        )

    def names(self) -> set[str]:
        return {p.name for p in self.path.iterdir()} if self.path.exists() else set()

    def tokens(self) -> set[str]:
        return {n for n in self.names() if n.endswith(".token")}

    def status(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.path / "status.json").read_text())
        return found


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path / "tokens")


def good(life: float = HOUR, *, now: float = NOW, **changes: Any) -> Any:
    return reply(
        {"eos": told(EOS, now + life, now=now), "rucio": told(RUCIO, now + life, now=now)},
        **changes,
    )


def refusal(reason: str = "needs_login", **changes: Any) -> HubRefusalError:
    return HubRefusalError("sign in again", reason=reason, reference="login-required", **changes)


# -- the good case ------------------------------------------------------------------


def test_one_turn_brings_every_file_and_says_so(stage: Stage) -> None:
    agent = stage.agent(good(next_poll=60))
    wait = agent.step()
    assert stage.names() == {"eos.token", "rucio.token", "rucio.cfg", "status.json", "agent.lock"}
    assert all((stage.path / n).stat().st_mode & 0o777 == 0o600 for n in stage.names())
    assert 54 <= wait <= 60
    status = stage.status()
    assert (status["state"], status["writer_pid"]) == ("fresh", os.getpid())
    assert status["next_poll_at"] == NOW + wait
    assert [a["expires_at"] for a in status["audiences"]] == [NOW + HOUR] * 2


def test_no_file_but_the_token_files_holds_a_token(stage: Stage) -> None:
    stage.agent(good()).step()
    for name in stage.names() - stage.tokens():
        assert "eyJ" not in (stage.path / name).read_text()


def test_an_older_token_never_replaces_a_newer_one_even_after_a_restart(stage: Stage) -> None:
    first = stage.agent(good(HOUR))
    first.step()
    first.stop(wipe=False)
    newer = (stage.path / "rucio.token").read_text()
    second = stage.agent(good(60))
    second.step()
    assert (stage.path / "rucio.token").read_text() == newer
    assert stage.status()["audiences"][1]["expires_at"] == NOW + HOUR


def test_a_file_that_somebody_removed_or_opened_comes_back_with_the_next_turn(
    stage: Stage,
) -> None:
    answer = good()
    agent = stage.agent(answer, answer)
    agent.step()
    (stage.path / "eos.token").unlink()
    (stage.path / "rucio.token").chmod(0o644)
    agent.step()
    assert stage.tokens() == {"eos.token", "rucio.token"}
    assert (stage.path / "rucio.token").stat().st_mode & 0o777 == 0o600


def test_a_directory_that_was_removed_is_made_anew(stage: Stage) -> None:
    agent = stage.agent(good())
    agent.step()
    shutil.rmtree(stage.path)
    agent.step()
    assert stage.tokens() == {"eos.token", "rucio.token"}


# -- one audience never holds up another ---------------------------------------------


@pytest.mark.parametrize("trouble", ["wrong audience", "expired", "malformed", "missing", "link"])
def test_one_audience_in_trouble_never_holds_up_the_other(
    stage: Stage, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    eos = told(EOS, NOW + HOUR)
    answers: dict[str, AudienceReply] = {"rucio": told(RUCIO, NOW + HOUR)}
    if trouble == "wrong audience":
        answers["eos"] = told(EOS, NOW + HOUR, aud="somebody-else")
    elif trouble == "expired":
        answers["eos"] = told(EOS, NOW - 3600)
    elif trouble == "malformed":
        answers["eos"] = told(EOS, NOW + HOUR)
        object.__setattr__(answers["eos"].token, "value", "a:b:secret")
    elif trouble == "link":
        answers["eos"] = eos
        stage.path.mkdir()
        (stage.path / "eos.token").symlink_to("/etc/hostname")
    agent = stage.agent(reply(answers))
    agent.step()
    assert (stage.path / "rucio.token").read_text() == answers["rucio"].token.value  # type: ignore[union-attr]
    status = stage.status()
    assert [a["state"] == "fresh" for a in status["audiences"]] == [False, True]
    assert status["state"] != "fresh" and status["message"].startswith("EOS storage: ")
    assert status["audiences"][0]["reference"]
    assert "secret" not in caplog.text and "eyJ" not in caplog.text


def test_a_state_of_the_hub_is_passed_on_and_the_file_stays(stage: Stage) -> None:
    late = AudienceReply(State.LATE, "EOS answered late", "eos-late")
    answers = {"eos": late, "rucio": told(RUCIO, NOW + HOUR)}
    agent = stage.agent(good(), reply(answers, state=State.LATE, message="late", reference="x"))
    agent.step()
    agent.step()
    assert stage.tokens() == {"eos.token", "rucio.token"}
    status = stage.status()
    assert (status["state"], status["message"], status["reference"]) == ("late", "late", "x")
    assert status["audiences"][0]["message"] == "EOS answered late"


# -- outages -------------------------------------------------------------------------


def test_an_unreachable_hub_leaves_the_files_and_comes_back_within_half_a_minute(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    agent = stage.agent(good(), AWAY, AWAY, AWAY, AWAY, AWAY, good(now=NOW + 100))
    agent.step()
    before = {n: (stage.path / n).read_text() for n in stage.tokens()}
    agent.step()
    assert stage.status()["state"] == "fresh", "one lost reply is no news while the files live"
    assert all(agent.step() <= 30 for _ in range(4))
    assert stage.status()["state"] == "late"
    assert {n: (stage.path / n).read_text() for n in stage.tokens()} == before
    agent.step()
    assert stage.status()["state"] == "fresh"
    assert sum("does not answer" in r.message for r in caplog.records) == 1
    assert sum("answers again" in r.message for r in caplog.records) == 1


def test_an_expired_file_stays_while_nobody_said_that_a_sign_in_is_needed(stage: Stage) -> None:
    agent = stage.agent(good(60), AWAY)
    agent.step()
    stage.clock.move(3600)
    agent.step()
    assert stage.tokens() == {"eos.token", "rucio.token"}
    assert stage.status()["state"] == "late"


def test_a_session_that_starts_without_the_hub_is_late_and_heals(stage: Stage) -> None:
    agent = stage.agent(AWAY, good())
    agent.step()
    assert stage.tokens() == set()
    assert stage.status()["state"] == "late"
    assert stage.status()["reference"] == "hub-unavailable"
    assert (stage.path / "rucio.cfg").exists()
    agent.step()
    assert stage.status()["state"] == "fresh"


def test_a_surprise_is_survived_and_never_quoted(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    agent = stage.agent(RuntimeError("secret-token"), good())
    agent.step()
    assert stage.status()["reference"] == "agent"
    assert "secret-token" not in caplog.text + (stage.path / "status.json").read_text()
    agent.step()
    assert stage.status()["state"] == "fresh"


def test_a_directory_that_cannot_be_trusted_is_said_and_tried_again(
    stage: Stage, caplog: pytest.LogCaptureFixture
) -> None:
    stage.path.symlink_to("/tmp")
    agent = stage.agent(good())
    agent.step()
    assert "symbolic link" in caplog.text
    assert agent.status.state is State.LATE and "symbolic link" in agent.status.message
    stage.path.unlink()
    agent.step()
    assert stage.status()["state"] == "fresh"


@pytest.mark.parametrize(
    ("reason", "state"),
    [("unavailable", "late"), ("rate_limited", "fresh"), ("forbidden", "refused")],
)
def test_a_refusal_keeps_the_files_and_is_shown_for_what_it_is(
    stage: Stage, reason: str, state: str
) -> None:
    agent = stage.agent(good(), refusal(reason, next_poll=20.0))
    agent.step()
    assert 18 <= agent.step() <= 20
    assert stage.status()["state"] == state
    assert stage.tokens() == {"eos.token", "rucio.token"}


# -- the end of a sign-in -------------------------------------------------------------


def test_needs_login_is_said_at_once_and_each_file_goes_at_its_own_expiry(stage: Stage) -> None:
    answers = {"eos": told(EOS, NOW + 100), "rucio": told(RUCIO, NOW + 200)}
    agent = stage.agent(reply(answers), refusal(next_poll=600.0))
    agent.step()
    wait = agent.step()
    assert stage.status()["state"] == "sign_in"
    assert stage.tokens() == {"eos.token", "rucio.token"}
    assert wait == pytest.approx(100)
    stage.clock.move(wait)
    agent.step()
    assert stage.tokens() == {"rucio.token"}
    stage.clock.move(100)
    agent.step()
    assert stage.tokens() == set()
    assert [a["expires_at"] for a in stage.status()["audiences"]] == [None, None]


def test_needs_login_is_remembered_by_the_next_agent_even_without_the_hub(stage: Stage) -> None:
    first = stage.agent(good(100), refusal())
    first.step()
    first.step()
    first.stop(wipe=False)
    stage.clock.move(101)
    second = stage.agent(AWAY)
    second.step()
    assert stage.status()["state"] == "sign_in"
    assert stage.tokens() == set()


def test_a_new_sign_in_brings_the_files_back(stage: Stage) -> None:
    agent = stage.agent(good(), refusal(wipe=True), good(now=NOW + 5))
    agent.step()
    agent.step()
    assert stage.tokens() == set()
    agent.step()
    assert stage.tokens() == {"eos.token", "rucio.token"}
    assert stage.status()["state"] == "fresh"


def test_wipe_removes_the_token_files_within_that_turn_and_nothing_else(stage: Stage) -> None:
    agent = stage.agent(good(), refusal("forbidden", wipe=True))
    agent.step()
    agent.step()
    assert stage.names() == {"rucio.cfg", "status.json", "agent.lock"}
    assert stage.status()["state"] == "sign_in"


# -- clocks ---------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [-86400.0, 86400.0])
def test_a_wrong_clock_of_the_machine_neither_refuses_nor_removes_a_file(
    stage: Stage, wrong: float
) -> None:
    stage.clock.set_wall(NOW + wrong)
    agent = stage.agent(good(100), refusal(hub_now=NOW + 10))
    agent.step()
    assert stage.status()["state"] == "fresh"
    agent.step()
    assert stage.tokens() == {"eos.token", "rucio.token"}
    stage.clock.move(91)
    agent.step()  # the same refusal says the same time again: nothing has expired by it
    assert stage.tokens() == {"eos.token", "rucio.token"}


def test_a_restarted_agent_with_a_wrong_clock_believes_the_hubs(stage: Stage) -> None:
    first = stage.agent(good(100))
    first.step()
    first.stop(wipe=False)
    stage.clock.set_wall(NOW + 86400)
    second = stage.agent(refusal(hub_now=NOW + 10), refusal(hub_now=NOW + 101))
    second.step()
    assert stage.tokens() == {"eos.token", "rucio.token"}
    second.step()
    assert stage.tokens() == set()


def test_a_jump_of_the_clock_has_the_agent_ask_at_once(stage: Stage) -> None:
    agent = stage.agent(good(next_poll=600))
    wait = agent.step()
    start = stage.clock.elapsed()
    stage.clock.on_wait = lambda: stage.clock.set_wall(stage.clock.wall() + 7200)
    assert agent.wait(wait)
    assert stage.clock.elapsed() - start <= 5


# -- two agents -----------------------------------------------------------------------


def test_a_second_agent_only_reads_and_takes_over_when_the_first_ends(stage: Stage) -> None:
    first, second = stage.agent(good()), stage.agent(good(now=NOW + 50))
    first.step()
    before = {n: (stage.path / n).stat().st_ino for n in stage.names()}
    assert second.step() == 5.0
    assert not second.is_writer
    assert second.status.state is State.FRESH
    assert {n: (stage.path / n).stat().st_ino for n in stage.names()} == before
    first.stop(wipe=False)
    second.step()
    assert second.is_writer
    assert stage.status()["audiences"][0]["expires_at"] == NOW + 50 + HOUR


@pytest.mark.parametrize("reason", ["unauthorized", "forbidden"])
def test_an_agent_that_outlived_its_session_makes_room_for_the_next(
    stage: Stage, reason: str
) -> None:
    orphan, successor = stage.agent(good(), refusal(reason)), stage.agent(good(now=NOW + 50))
    orphan.step()
    successor.step()
    assert not successor.is_writer
    orphan.step()
    successor.step()
    assert successor.is_writer
    assert orphan.step() == 5.0
    assert stage.status()["state"] == "fresh"


def test_a_reader_that_ends_wipes_nothing(stage: Stage) -> None:
    first, second = stage.agent(good()), stage.agent(good())
    first.step()
    second.step()
    second.stop()
    assert stage.tokens() == {"eos.token", "rucio.token"}


# -- the end --------------------------------------------------------------------------


def test_stopping_wipes_everything_even_what_a_request_under_way_would_bring(
    stage: Stage,
) -> None:
    agent = stage.agent(good(), good(now=NOW + 60))
    agent.step()
    hub: ScriptedHub = agent._hub  # type: ignore[assignment]

    def answer_after_the_stop() -> Any:
        agent.stop()
        return good(now=NOW + 60)

    hub.script = [answer_after_the_stop]
    agent.step()
    assert not stage.path.exists()
    hub.script = [good(now=NOW + 120)]
    agent.step()
    assert not stage.path.exists()
    agent.stop()


def test_a_poke_ends_the_wait_but_not_a_moment_after_a_turn(stage: Stage) -> None:
    agent = stage.agent(good())
    agent.step()
    start = stage.clock.elapsed()
    agent.poke()
    agent.wait(10)
    assert stage.clock.elapsed() - start == 10
    agent.poke()
    agent.wait(10)
    assert stage.clock.elapsed() - start == 10


def test_the_loop_runs_in_its_thread_until_it_is_stopped(stage: Stage) -> None:
    agent = stage.agent(good())
    stage.clock.on_wait = lambda: agent._waiter.wake() if agent._hub.asked > 3 else None  # type: ignore[attr-defined]
    agent.start(first=agent.step)
    assert agent._thread is not None
    while agent._hub.asked < 3:  # type: ignore[attr-defined]
        agent._thread.join(0.01)
    agent.stop()
    assert not agent.is_alive
    assert not stage.path.exists()


def test_the_token_of_the_file_is_the_token_that_came(stage: Stage) -> None:
    stage.agent(good()).step()
    text = (stage.path / "eos.token").read_text()
    assert text == f"oauth2:{jwt(EOS, NOW + HOUR)}:iam.example.org/userinfo"

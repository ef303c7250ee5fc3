"""Lies of the issuer after the sign-in: at a refresh and at an exchange."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.harness import Person
from tests.harness.iam import CLIENT_SECRET
from tests.hub.hostile import cases
from tests.hub.hostile.cases import Case
from tests.hub.hostile.play import HUB, NAIVE, Play, name_of


def revoke(play: Play, access_token: str) -> None:
    """The hub must refresh at the next renewal: its access token is dead, not its sign-in."""
    answer = httpx.post(
        f"{play.iam.issuer}revoke", data={"token": access_token}, auth=("escape-hub", CLIENT_SECRET)
    )
    assert answer.status_code == 200


def renew(person: Person) -> dict[str, Any]:
    """Press "renew now"; what the page says afterwards."""
    answer = person.api("POST", "escape/renew")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


@pytest.mark.parametrize("case", cases.REFRESHES, ids=lambda case: case.name)
def test_at_a_refresh(play: Play, case: Case) -> None:
    """A refused reply exchanges nothing, keeps the sign-in, and the operator hears of it."""
    play.iam.faults()
    with play.somebody() as person:
        revoke(play, play.sign_in(person))
        play.faults(case)
        start = len(play.hub.log_text)
        status = renew(person)
        grants = play.iam.counters()["grants"]
        good = status["reference"] == case.code and name_of(person) == person.name
        play.put(case, HUB, good, f"refused: {status['reference']}" if case.code else "renewed")
        assert status["reference"] == case.code
        assert name_of(person) == person.name
        assert grants["refresh_token"] == {"ok": 1}
        assert ("ok" in grants["token-exchange"]) == (not case.code)
        log = play.log_since(start)
        assert (f"For the operator (refresh {case.code})" in log) == bool(case.code)
        if not case.code:
            assert status["state"] == "fresh"
    play.judge_naive(case, naive_refreshes(play, case))


def naive_refreshes(play: Play, case: Case) -> str:
    play.iam.faults()
    with play.somebody(play.naive.url) as person:
        person.login()
        play.faults(case)
        (cookie,) = [c.value for c in person.client.cookies.jar if c.name == "naive"]
        before = play.naive.sessions[str(cookie)]["access_token"]
        play.naive.refresh(str(cookie))
        taken = play.naive.sessions[str(cookie)]["access_token"] != before
        return "takes the tokens" if taken else ""


@pytest.mark.parametrize("case", cases.EXCHANGED, ids=lambda case: case.name)
def test_at_an_exchange(play: Play, case: Case) -> None:
    """A token for somebody else reaches no session; the person is signed in all the same."""
    play.faults(case)
    start = len(play.hub.log_text)
    with play.somebody() as person:
        person.login()
        answer = person.api("GET", "escape/status").json()
        found = {audience["reference"] for audience in answer["audiences"]}
        good = found == {case.code} and bool(name_of(person))
        play.put(case, HUB, good, f"refused: {', '.join(sorted(found))}")
        assert found == {case.code}
        assert name_of(person) == person.name
        assert {audience["expires_at"] for audience in answer["audiences"]} == {None}
        # An alert once in a while for each audience; an audit line each time.
        assert f"outcome=operator reference={case.code}" in play.log_since(start)
    with play.somebody(play.naive.url) as person:
        person.login()
        (cookie,) = [c.value for c in person.client.cookies.jar if c.name == "naive"]
        token = play.naive.exchange(str(cookie), "rucio")
    play.judge_naive(case, "hands the token out" if token else "")


def test_a_refresh_token_is_spent_once_however_many_ask(play: Play) -> None:
    """With rotation on, where a replay ends the sign-in: one refresh at a time, none twice."""
    case = Case("refresh-race", "a rotated refresh token is presented once, however many ask")
    faults = {"refresh_rotation": True, "refresh_reuse": "kill_family", "delay": 0.3}
    play.iam.faults()
    with play.somebody() as person:
        revoke(play, play.sign_in(person))
        play.iam.faults(**faults)
        play.iam.reset_counters()
        with ThreadPoolExecutor(3) as pool:
            states = list(pool.map(lambda _: renew(person)["state"], range(3)))
        counters = play.iam.counters()
        good = counters["grants"]["refresh_token"] == {"ok": 1}
        good = good and counters["max_concurrent_refresh"] == 1 and set(states) == {"fresh"}
        play.put(case, HUB, good, "one refresh for three that asked")
        assert good, (counters, states)
        assert name_of(person) == person.name
    play.iam.faults(**faults)
    with play.somebody(play.naive.url) as person:
        person.login()
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda _: person.client.post(f"{person.hub}hub/api/renew"), range(3)))
        lost = not name_of(person)
        play.put(case, NAIVE, lost, "fails: spends it three times, the issuer ends the sign-in")
        assert lost

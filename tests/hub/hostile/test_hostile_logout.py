"""Logouts that the issuer, or somebody in its name, begins or brings back."""

from __future__ import annotations

import httpx
import pytest

from tests.harness.person import forms
from tests.harness.processes import wait_for
from tests.hub.hostile import cases
from tests.hub.hostile.cases import Case
from tests.hub.hostile.play import HUB, NAIVE, Play, name_of

ADDRESS = "hub/escape/backchannel_logout"


@pytest.mark.parametrize("case", cases.LOGOUT_TOKENS, ids=lambda case: case.name)
def test_a_logout_token(forgetful: Play, case: Case) -> None:
    """Refused with 400, the code in the log, and the person goes on; or 200, and they do not."""
    play = forgetful
    play.iam.faults()
    with play.somebody() as person:
        play.sign_in(person)
        start = len(play.hub.log_text)
        (told,) = play.iam.backchannel_logout(person.name, *case.faults["mutations"])
        log = play.log_since(start)
        if case.code:
            good = told["status"] == 400 and f"Back-channel logout refused [{case.code}]" in log
            good = good and name_of(person) == person.name
        else:
            good = told["status"] == 200
            wait_for("the person to be signed out", lambda: not name_of(person), 20)
        play.put(case, HUB, good, f"refused: {case.code}" if case.code else "signed out")
        assert good, (told, log)
    play.judge_naive(case, naive_believes(play))


def naive_believes(play: Play) -> str:
    """The naive client's answer to the token that the issuer sent last."""
    before = len(play.naive.logged_out)
    form = {"logout_token": play.iam.issued()["logout_tokens"][-1]}
    httpx.post(f"{play.naive.url}{ADDRESS}", data=form)
    return "signs out whom it names" if len(play.naive.logged_out) > before else ""


def test_a_logout_token_counts_once(forgetful: Play) -> None:
    case = Case("backchannel-replay", "a logout_token counts once", code="logout-token-replay")
    play = forgetful
    play.iam.faults()
    with play.somebody() as person:
        play.sign_in(person)
        start = len(play.hub.log_text)
        told = play.iam.backchannel_logout(person.name, times=2)
        good = [answer["status"] for answer in told] == [200, 400]
        good = good and f"Back-channel logout refused [{case.code}]" in play.log_since(start)
        play.put(case, HUB, good, f"refused: {case.code}")
        assert good, told
    naive_believes(play)
    play.judge_naive(case, naive_believes(play))


@pytest.mark.parametrize(
    ("name", "lie"),
    [("rp-init-logout", ""), ("rp-init-logout-no-state", "absent"),
     ("rp-init-logout-other-state", "other")],
)  # fmt: skip
def test_the_issuers_own_logout(forgetful: Play, name: str, lie: str) -> None:
    """Signed out here and there; a way back without our state says that it knows nothing."""
    rule = "a way back without our state proves nothing" if lie else "signed out here and there"
    case = Case(name, rule, {"hostile": {"end_session_state": lie} if lie else {}})
    play = forgetful
    play.iam.faults()
    with play.somebody() as person:
        play.sign_in(person)
        play.faults(case)
        start = len(play.hub.log_text)
        page = person.submit(person.client.get(f"{play.hub.url}hub/logout"))
        counters = play.iam.counters()["requests"]
        assert counters["end_session"] == 1 and counters["revoke"] == 1
        assert not name_of(person)
        if lie:
            good = page.status_code == 400 and "reference logout-state-" in play.log_since(start)
        else:
            good = page.status_code == 200 and str(page.url) == f"{play.hub.url}hub/login"
        at_issuer = forms(person.start_login())[0]["fields"]
        play.put(case, HUB, good and "password" in at_issuer, "told so" if lie else "signed out")
        play.put(case, NAIVE, True, "has no logout")
        assert good, page.text
        assert "password" in at_issuer, "still signed in at the issuer"

"""Which calls a renewal makes: as few as do, and the refresh token only when it must be spent."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escape_hub.core.auth_state import AuthState, Failure, NeedsLogin
from escape_hub.core.renewal import CHECK, LOST_REPLY, Need, RenewalPolicy, Work, may_refresh, plan
from escape_hub.core.tokens import AccessToken

POLICY = RenewalPolicy()
NAMES = ("eos", "rucio")
BOTH = Work(True, NAMES, True)
NOTHING = Work()
LOST = {"": Failure("transient", LOST_REPLY, "lost", 0.0)}


def token(life: float = 3600.0, at: float = 0.0) -> AccessToken:
    return AccessToken("secret", at + life, at)


def state(**more) -> AuthState:
    fields = {
        "issuer": "https://iam.example.org/",
        "subject": "alice",
        "refresh_token": "secret",
        "login_token": token(),
        "exchanged": {name: token() for name in NAMES},
    }
    return AuthState(**{**fields, **more})


def calls(one: AuthState, now: float, need: Need | None = None, barred=()) -> Work:
    return plan(POLICY, "alice", one, NAMES, need or Need(), now, barred)


def test_nothing_is_done_while_what_is_there_suffices():
    assert calls(state(), 100.0) == NOTHING


def test_who_waits_for_an_answer_renews_what_is_mandatory_and_the_service_what_is_due():
    assert calls(state(), 2800.0) == NOTHING
    assert calls(state(), 2800.0, Need(when_due=True)) == BOTH
    assert calls(state(), 3300.0) == BOTH


def test_one_stale_audience_costs_one_exchange_while_the_login_token_is_young():
    one = state(exchanged={"eos": token(), "rucio": token(600, at=-500.0)})
    assert calls(one, 100.0) == Work(False, ("rucio",), False)
    missing = state(exchanged={"eos": token()})
    assert calls(missing, 100.0) == Work(False, ("rucio",), False)


def test_a_refresh_takes_those_along_that_would_be_due_soon():
    one = state(exchanged={"eos": token(), "rucio": token(2400)})
    assert calls(one, 2200.0) == Work(True, ("eos", "rucio"), True)
    long = state(exchanged={"eos": token(43200), "rucio": token(2400)})
    assert calls(long, 2200.0) == Work(True, ("rucio",), True)


def test_more_life_can_be_asked_for_but_not_more_than_a_renewal_gives():
    assert calls(state(), 2000.0, Need(min_valid_period=1700.0)).exchange == NAMES
    assert calls(state(), 2000.0, Need(min_valid_period=1500.0)) == NOTHING
    assert calls(state(), 10.0, Need(min_valid_period=86400.0)) == NOTHING


def test_only_the_audiences_asked_for_count():
    one = state(exchanged={"eos": token()})
    assert calls(one, 100.0, Need(audiences=frozenset({"eos"}))) == NOTHING


def test_renew_now_exchanges_whatever_is_older_than_the_wish():
    assert calls(state(), 100.0, Need(newer_than=100.0)) == Work(False, NAMES, False)
    assert calls(state(), 100.0, Need(newer_than=0.0)) == NOTHING


def test_who_must_log_in_costs_no_call():
    assert calls(state(needs_login=NeedsLogin("x", "y", 0.0)), 9000.0) == NOTHING


def test_what_just_failed_is_left_alone():
    one = state(exchanged={"eos": token()})
    assert calls(one, 100.0, barred={"rucio"}) == NOTHING
    assert calls(state(), 3300.0, barred={"", "eos", "rucio"}) == NOTHING


def test_while_the_refresh_may_not_be_tried_the_living_login_token_is_exchanged():
    one = state(exchanged={"eos": token(), "rucio": token(2400)})
    assert calls(one, 2350.0, barred={""}) == Work(False, ("rucio",), False)


def test_a_dead_login_token_is_not_exchanged():
    assert calls(state(), 3599.0, barred={""}) == NOTHING
    assert calls(state(login_token=None), 3599.0, barred={""}) == NOTHING


def test_after_a_lost_reply_the_living_login_token_serves_until_one_is_mandatory():
    one = state(failures=LOST, exchanged={"eos": token(), "rucio": token(2400)})
    due = Need(when_due=True)
    assert calls(one, 1750.0, due).refresh is False
    assert calls(one, 1750.0, due).exchange == ("rucio",)
    renewed = state(failures=LOST, exchanged={n: token(3600, 2200.0) for n in NAMES})
    assert calls(renewed, 3200.0, due) == NOTHING
    assert calls(renewed, 3240.0, due).refresh is True


def test_after_a_lost_reply_nothing_is_presented_that_need_not_be():
    assert not may_refresh(POLICY, state(failures=LOST), NAMES, 3000.0)
    assert may_refresh(POLICY, state(failures=LOST), NAMES, 3240.0)
    assert may_refresh(POLICY, state(failures=LOST, login_token=None), NAMES, 0.0)
    assert not may_refresh(POLICY, state(refresh_token=None), NAMES, 3599.0)


def test_without_a_refresh_token_the_login_token_is_used_as_long_as_it_lives():
    one = state(refresh_token=None, login_token=token(43200))
    assert calls(one, 3300.0) == Work(False, NAMES, False)
    assert calls(state(refresh_token=None), 3600.0) == NOTHING


def test_the_claims_are_asked_for_after_twelve_hours_even_if_nothing_else_is_due():
    one = state(login_token=token(1e6), exchanged={n: token(1e6) for n in NAMES}, checked_at=0.0)
    assert calls(one, 12 * 3600.0 - 1) == NOTHING
    assert calls(one, 12 * 3600.0) == Work(False, (), True)
    assert calls(one, 12 * 3600.0, barred={CHECK}) == NOTHING


def test_a_login_token_that_nobody_needs_is_refreshed_now_and_then_all_the_same():
    one = state(login_token=token(300), exchanged={n: token(43200) for n in NAMES})
    due = Need(when_due=True)
    assert calls(one, 1100.0, due) == NOTHING
    assert calls(one, 1200.0, due) == Work(True, (), True)


LIVES = st.one_of(st.none(), st.floats(10, 1e5))


@pytest.mark.parametrize("when_due", [True, False])
@given(
    LIVES,
    LIVES,
    LIVES,
    st.floats(0, 2e5),
    st.booleans(),
    st.booleans(),
    st.sets(st.sampled_from(["", "eos", "rucio", CHECK])),
)
def test_no_plan_asks_for_what_cannot_be_done(
    when_due, login, eos, rucio, now, has_refresh, lost, barred
):
    exchanged = {n: token(life) for n, life in (("eos", eos), ("rucio", rucio)) if life}
    one = state(
        login_token=token(login) if login else None,
        exchanged=exchanged,
        refresh_token="secret" if has_refresh else None,
        failures=LOST if lost else {},
    )
    work = calls(one, now, Need(when_due=when_due), barred)
    assert not set(work.exchange) & barred
    assert not (work.refresh and ("" in barred or not has_refresh))
    if work.calls and not work.refresh:
        assert one.login_token is not None
        assert one.login_token.is_valid(now)

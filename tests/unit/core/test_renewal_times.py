"""When tokens are due, when mandatory, and when a session should ask."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escape_hub.core.auth_state import AuthState, Failure, NeedsLogin
from escape_hub.core.renewal import (
    CHECK,
    LOST_REPLY,
    RenewalPolicy,
    deadline,
    due_at,
    fraction,
    mandatory_at,
    may_go_on,
    next_poll,
)
from escape_hub.core.tokens import AccessToken
from escape_hub.errors import SettingsError

POLICY = RenewalPolicy()
NAMES = ("eos", "rucio")


def token(life: float, at: float = 0.0) -> AccessToken:
    return AccessToken("secret", at + life, at)


def signed_in(life: float, *, at: float = 0.0, **more) -> AuthState:
    fields = {
        "issuer": "https://iam.example.org/",
        "subject": "alice",
        "refresh_token": "secret",
        "login_token": token(life, at),
        "exchanged": {name: token(life, at) for name in NAMES},
        "login_at": at,
        "checked_at": at,
    }
    return AuthState(**{**fields, **more})


@pytest.mark.parametrize(
    ("life", "left"),
    [(3600, 360), (3000, 300), (1800, 300), (600, 300), (43200, 4320), (599, 149.75), (20, 5)],
)
def test_a_renewal_is_mandatory_when_too_little_is_left(life, left):
    assert mandatory_at(POLICY, token(life)) == pytest.approx(life - left)


@pytest.mark.parametrize(
    ("life", "seed", "due"),
    [
        (3600, 0.0, 2160),
        (3600, 0.5, 2430),
        (3600, 1.0, 2700),
        (600, 0.9, 300),  # never later than it is mandatory
        (599, 0.0, 299.5),
        (20, 0.7, 10),
    ],
)
def test_a_renewal_is_due_within_its_window(life, seed, due):
    assert due_at(POLICY, token(life, 1000), seed) == pytest.approx(1000 + due)


@given(st.floats(1, 1e6), st.floats(0, 1), st.floats(0, 2e9))
def test_due_comes_before_mandatory_and_mandatory_before_expiry(life, seed, at):
    one = token(life, at)
    assert at < due_at(POLICY, one, seed) <= mandatory_at(POLICY, one) < one.expires_at


def test_due_times_of_many_users_spread_over_the_window():
    times = [due_at(POLICY, token(3600), fraction(f"user{i}", 0.0)) for i in range(2000)]
    assert min(times) < 2170
    assert max(times) > 2690
    # No herd: each tenth of the window holds about a tenth of the users.
    for tenth in range(10):
        low = 2160 + 54 * tenth
        assert 140 < sum(low <= t < low + 54 for t in times) < 260


def test_the_seed_is_the_same_after_a_restart_and_another_after_a_renewal():
    assert fraction("alice", 12.5) == fraction("alice", 12.5)
    assert fraction("alice", 12.5) != fraction("alice", 13.5)
    assert fraction("alice", 12.5) != fraction("bob", 12.5)


def test_the_deadline_is_that_of_the_token_due_first():
    state = signed_in(3600)
    at = deadline(POLICY, "alice", state, NAMES)
    assert at == due_at(POLICY, state.login_token, fraction("alice", 0.0))
    short = signed_in(3600, exchanged={"eos": token(3600), "rucio": token(900)})
    assert deadline(POLICY, "alice", short, NAMES) < 600 + 1e-9


def test_an_audience_without_a_token_is_due_at_once_unless_it_just_failed():
    state = signed_in(3600, exchanged={"eos": token(3600)})
    assert deadline(POLICY, "alice", state, NAMES) == 0
    assert deadline(POLICY, "alice", state, NAMES, {"rucio": 77.0}) == 77
    assert deadline(POLICY, "alice", state, NAMES, {"rucio": 1e9}) > 2000


def test_a_due_audience_waits_for_the_refresh_only_where_it_needs_one():
    exchanged = {"eos": token(3600), "rucio": token(100)}
    living = signed_in(3600, exchanged=exchanged)
    assert deadline(POLICY, "alice", living, NAMES, {"": 3000.0}) == 50
    dead = signed_in(3600, exchanged=exchanged, login_token=token(40))
    assert deadline(POLICY, "alice", dead, NAMES, {"": 3000.0}) == 3000


def test_a_login_token_much_shorter_than_the_others_is_kept_alive_only_now_and_then():
    # 5 minutes beside 12 hours: renewing it every 150 s would serve nobody.
    exchanged = {name: token(43200) for name in NAMES}
    state = signed_in(300, exchanged=exchanged)
    assert deadline(POLICY, "alice", state, NAMES) == POLICY.keepalive


def test_without_a_refresh_token_the_login_token_sets_no_deadline():
    state = signed_in(43200, refresh_token=None, login_token=token(60))
    assert deadline(POLICY, "alice", state, NAMES) > 20000


def test_after_a_lost_reply_the_refresh_waits_until_it_is_mandatory():
    failure = Failure("transient", LOST_REPLY, "lost", 0.0)
    state = signed_in(3600, failures={"": failure}, exchanged={n: token(3600, 3000) for n in NAMES})
    assert deadline(POLICY, "alice", state, NAMES) == mandatory_at(POLICY, state.login_token)


def test_the_claims_are_confirmed_within_twelve_hours_whatever_the_tokens_say():
    state = signed_in(30 * 86400, refresh_token=None)
    assert deadline(POLICY, "alice", state, NAMES) == 12 * 3600
    assert deadline(POLICY, "alice", state, NAMES, {CHECK: 50000.0}) == 50000


def test_a_session_asks_soon_after_the_renewal_that_comes_next():
    state = signed_in(20)
    assert next_poll(POLICY, "alice", state, NAMES, 2.0) == pytest.approx(8.5)


def test_a_session_asks_often_enough_to_lose_its_files_within_two_minutes():
    assert next_poll(POLICY, "alice", signed_in(3600), NAMES, 0.0) == 120
    assert next_poll(POLICY, "alice", signed_in(60), NAMES, 0.0) <= 60
    assert next_poll(POLICY, "alice", signed_in(86400), NAMES, 0.0) == 300


def test_a_session_whose_renewal_is_overdue_asks_again_within_seconds():
    assert next_poll(POLICY, "alice", signed_in(3600), NAMES, 3000.0) == 3
    assert next_poll(POLICY, "alice", signed_in(20), NAMES, 12.0) == 1
    assert next_poll(POLICY, "alice", signed_in(20), NAMES, 25.0) == 3
    assert next_poll(POLICY, "alice", signed_in(3600, exchanged={}), NAMES, 0.0) == 3


@pytest.mark.parametrize("kind", ["operator", "user_action"])
@pytest.mark.parametrize("name", ["rucio", ""])
def test_a_session_does_not_press_for_what_was_refused(kind, name):
    refused = {name: Failure(kind, "exchange-denied", "no", 0.0)}
    state = signed_in(3600, exchanged={"eos": token(3600)}, failures=refused)
    assert next_poll(POLICY, "alice", state, NAMES, 0.0) == 60
    due = signed_in(3600, failures={n: refused[name] for n in NAMES})
    assert next_poll(POLICY, "alice", due, NAMES, 3000.0) == 60
    short = signed_in(24, exchanged={"eos": token(3600)}, failures=refused)
    assert next_poll(POLICY, "alice", short, NAMES, 0.0) == 3
    # Nor does the refusal slow down what another audience needs.
    away = signed_in(3600, exchanged={}, failures={"rucio": refused[name]})
    assert next_poll(POLICY, "alice", away, NAMES, 0.0) == 3


def test_a_session_that_waits_for_a_login_asks_every_quarter_of_a_minute():
    state = signed_in(3600, needs_login=NeedsLogin("x", "sign in", 0.0))
    assert next_poll(POLICY, "alice", state, NAMES, 0.0) == 15


def test_ten_thousand_sessions_do_not_press_the_hub_harder_than_it_bears():
    for now in (0.0, 3000.0, 4000.0):
        assert next_poll(POLICY, "alice", signed_in(3600), NAMES, now, sessions=10_000) >= 100


@given(st.floats(4, 1e5), st.floats(0, 2), st.integers(0, 3000))
def test_polling_as_told_leaves_the_file_time_to_be_replaced(life, share, sessions):
    """Whoever asks at ``due`` or later gets the new token, with time left before the expiry."""
    state = signed_in(life)
    now = share * life
    wait = next_poll(POLICY, "alice", state, NAMES, now)
    assert 1 <= wait <= 300
    due = due_at(POLICY, state.login_token, fraction("alice", 0.0))
    if now < due:
        assert now + wait < mandatory_at(POLICY, state.login_token) + 1.0 or wait <= 5.0


def test_an_outage_logs_nobody_out_while_a_token_lives_and_a_grace_period_longer():
    state = signed_in(3600)
    assert may_go_on(POLICY, state, 3600 + POLICY.outage_grace - 1)
    assert not may_go_on(POLICY, state, 3600 + POLICY.outage_grace + 1)
    over = signed_in(3600, needs_login=NeedsLogin("x", "sign in", 0.0))
    assert not may_go_on(POLICY, over, 1.0)


def test_a_client_that_is_refused_logs_nobody_out_however_long_it_takes_to_mend():
    refused = {"": Failure("operator", "client-refused", "check client_secret", 0.0)}
    state = signed_in(3600, failures=refused)
    assert may_go_on(POLICY, state, 3600 + POLICY.outage_grace + 1)
    assert may_go_on(POLICY, state, POLICY.max_session_age - 1)
    assert not may_go_on(POLICY, state, POLICY.max_session_age + 1)
    one = signed_in(3600, failures={"rucio": refused[""]})
    assert not may_go_on(POLICY, one, 3600 + POLICY.outage_grace + 1)


@pytest.mark.parametrize(
    "change",
    [
        {"rate": 0},
        {"failure_cache": -1},
        {"due_earliest": 0.8},
        {"due_latest": 0.95},
        {"short_due": 0.8},
        {"in_flight": 0},
    ],
)
def test_a_policy_that_cannot_work_is_refused(change):
    with pytest.raises(SettingsError, match=next(iter(change)).split("_")[0]):
        RenewalPolicy(**change)

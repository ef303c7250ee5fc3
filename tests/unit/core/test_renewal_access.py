"""What a person is told about the access to the lake."""

from __future__ import annotations

import pytest

from escape_hub.core.access import status
from escape_hub.core.auth_state import AuthState, Failure, NeedsLogin
from escape_hub.core.renewal import LOST_REPLY, RenewalPolicy
from escape_hub.core.status import WORDS, State
from escape_hub.core.tokens import AccessToken
from tests.fakes.rig import EOS, RUCIO

POLICY = RenewalPolicy()


def told(now: float, *, down: bool = False, audiences=(EOS, RUCIO), **more):
    token = AccessToken("secret", 3600.0, 0.0)
    fields = {
        "issuer": "https://iam.example.org/",
        "subject": "alice",
        "exchanged": {"eos": token, "rucio": token},
    }
    return status(AuthState(**{**fields, **more}), audiences, now, POLICY, issuer_down=down)


def failure(kind: str, code: str = "some-code", message: str = "words") -> Failure:
    return Failure(kind, code, message, 0.0)


@pytest.mark.parametrize(
    ("now", "more", "state", "reference"),
    [
        (0.0, {}, State.FRESH, ""),
        (2750.0, {}, State.FRESH, ""),  # due, not mandatory: nobody need hear of it
        (3300.0, {}, State.RENEWING, ""),
        (3700.0, {}, State.RENEWING, ""),
        (0.0, {"exchanged": {}}, State.RENEWING, ""),
        (100.0, {"down": True}, State.FRESH, ""),
        (2750.0, {"down": True}, State.LATE, "issuer-unavailable"),
        (100.0, {"failures": {"": failure("transient")}}, State.FRESH, ""),
        (2750.0, {"failures": {"": failure("transient", LOST_REPLY)}}, State.LATE, LOST_REPLY),
        (9999.0, {"failures": {"": failure("transient")}}, State.LATE, "some-code"),
        (0.0, {"failures": {"": failure("operator")}}, State.REFUSED, "some-code"),
        (0.0, {"failures": {"": failure("user_action")}}, State.SIGN_IN, "some-code"),
        (0.0, {"needs_login": NeedsLogin("dead", "w", 0.0)}, State.SIGN_IN, "dead"),
    ],
)
def test_the_state_is_what_stands_in_the_way(now, more, state, reference):
    down = more.pop("down", False)
    found = told(now, down=down, **more)
    assert (found.state, found.reference) == (state, reference)
    assert {a.state for a in found.audiences.values()} == {state}


def test_one_failing_audience_leaves_the_other_fresh_and_decides_the_whole():
    found = told(0.0, failures={"rucio": failure("operator", "exchange-denied")})
    assert found.audiences["eos"].state is State.FRESH
    assert found.audiences["rucio"].state is State.REFUSED
    assert (found.state, found.reference) == (State.REFUSED, "exchange-denied")


def test_what_the_issuer_said_to_the_operator_is_not_shown_to_people():
    found = told(0.0, failures={"": failure("operator", message="client hub-7 is unknown")})
    assert found.message == WORDS[State.REFUSED]


def test_the_policy_to_sign_is_shown_in_the_issuers_words():
    found = told(0.0, failures={"": failure("user_action", message="sign the AUP")})
    assert found.message == "sign the AUP"


def test_times_are_those_of_the_last_good_token_even_when_it_is_dead():
    one = told(9999.0).audiences["eos"]
    assert (one.expires_at, one.renewed_at, one.lifetime) == (3600.0, 0.0, 3600.0)
    assert one.label == "EOS storage"
    none = told(0.0, exchanged={}).audiences["eos"]
    assert (none.expires_at, none.renewed_at, none.lifetime) == (None, None, None)


def test_without_any_audience_there_is_still_something_to_say():
    assert told(0.0, audiences=()).state is State.LATE
    assert told(0.0, audiences=(), needs_login=NeedsLogin("x", "y", 0.0)).state is State.SIGN_IN


def test_no_status_holds_a_token():
    assert "secret" not in repr(told(0.0))

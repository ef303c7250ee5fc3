"""Reading the token endpoint's reply: strict, and silent about what it read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escape_hub.core.status import State
from escape_hub.session.hub_reply import (
    HubRefusalError,
    HubUnavailableError,
    TokensReply,
    read_reply,
)

SECRET = "canary-5e2f"
AUDIENCE = {
    "audience": "rucio",
    "label": "Rucio catalogue",
    "state": "fresh",
    "message": "",
    "reference": "",
    "renewed_at": 1000.0,
    "access_token": SECRET,
    "expires_in": 60,
    "expires_at": 2000.0,
}
GOOD: dict[str, Any] = {
    "version": 1,
    "generation": 7,
    "next_poll": 30,
    "state": "fresh",
    "message": "",
    "reference": "",
    "audiences": {"rucio": AUDIENCE},
}


def read(raw: object, status: int = 200, date: float | None = None) -> TokensReply:
    return read_reply(status, json.dumps(raw).encode(), date)


def test_a_good_reply_is_read_and_tells_the_hubs_clock() -> None:
    found = read(GOOD, date=1.0)
    assert (found.generation, found.next_poll, found.hub_now) == (7, 30.0, 1940.0)
    token = found.audiences["rucio"].token
    assert token is not None and (token.value, token.expires_at) == (SECRET, 2000.0)
    assert SECRET not in repr(found)


def test_without_a_token_the_clock_is_the_date() -> None:
    entry = {k: v for k, v in AUDIENCE.items() if not k.startswith(("access", "expires"))}
    found = read(GOOD | {"audiences": {"rucio": entry | {"renewed_at": None}}}, date=12.0)
    assert found.hub_now == 12.0
    assert found.audiences["rucio"].token is None


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"version": None},
        {"generation": "7"},
        {"generation": True},
        {"next_poll": 0},
        {"next_poll": -1},
        {"next_poll": "30"},
        {"next_poll": float("inf")},
        {"next_poll": float("nan")},
        {"next_poll": 10**400},
        {"next_poll": True},
        {"state": "wonderful"},
        {"state": 1},
        {"message": 1},
        {"message": "x" * 40000},
        {"audiences": []},
        {"audiences": None},
    ],
    ids=lambda change: str(change)[:40],
)
def test_a_reply_that_is_wrong_at_its_top_is_refused_without_quoting_it(
    change: dict[str, Any],
) -> None:
    with pytest.raises(HubUnavailableError) as caught:
        read(GOOD | change)
    assert caught.value.code == "hub-garbage"
    assert SECRET not in str(caught.value) and "wonderful" not in str(caught.value)


@pytest.mark.parametrize(
    "entry",
    [
        None,
        [],
        "text",
        AUDIENCE | {"access_token": 5},
        AUDIENCE | {"expires_in": 0},
        AUDIENCE | {"expires_in": -5},
        AUDIENCE | {"expires_at": "soon"},
        AUDIENCE | {"expires_at": float("nan")},
        AUDIENCE | {"expires_at": 10**400},
        AUDIENCE | {"state": "?"},
        AUDIENCE | {"renewed_at": "then"},
    ],
    ids=lambda entry: str(entry)[-40:],
)
def test_a_bad_audience_is_its_own_problem_alone(entry: object) -> None:
    found = read(GOOD | {"audiences": {"eos": entry, "rucio": AUDIENCE}})
    assert found.audiences["rucio"].token is not None
    assert found.audiences["eos"].token is None
    assert found.audiences["eos"].state is State.LATE
    assert found.audiences["eos"].reference == "hub-garbage"


@pytest.mark.parametrize("status", [401, 403, 409, 429, 503])
def test_a_refusal_carries_the_hubs_words(status: int) -> None:
    body = {
        "reason": "needs_login",
        "message": "sign in again",
        "reference": "login-required",
        "wipe": True,
        "next_poll": 5,
    }
    with pytest.raises(HubRefusalError) as caught:
        read(body, status, 99.0)
    error = caught.value
    assert (error.reason, error.message, error.code) == (
        "needs_login",
        "sign in again",
        "login-required",
    )
    assert (error.next_poll, error.hub_now) == (5.0, 99.0)
    # An overloaded or broken hub never costs anybody their files.
    assert error.wipe is (status in (401, 403, 409))


@pytest.mark.parametrize("wipe", ["true", 1, None, [True]])
def test_only_a_plain_true_wipes(wipe: object) -> None:
    with pytest.raises(HubUnavailableError):
        read({"reason": "forbidden", "wipe": wipe}, 403)


@pytest.mark.parametrize("status", [200, 204, 301, 302, 400, 404, 409, 500, 502])
@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b"null", b'"x"', b"[" * 100000])
def test_garbage_is_unavailable(status: int, body: bytes) -> None:
    with pytest.raises(HubUnavailableError, match=str(status)):
        read_reply(status, body)


def test_a_reply_without_end_is_garbage() -> None:
    with pytest.raises(HubUnavailableError, match="too long"):
        read_reply(200, b"x" * (1024 * 1024 + 1))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*GOOD, *AUDIENCE, "reason", "wipe"]), inner, max_size=6)
    ),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from([*GOOD, "reason", "wipe"]), json_values, max_size=8),
    st.sampled_from([200, 401, 403, 409, 429, 500, 503]),
)
def test_whatever_json_comes_only_the_two_errors_come_out(raw: dict[str, Any], status: int) -> None:
    try:
        found = read(GOOD | raw, status)
    except (HubUnavailableError, HubRefusalError):
        return
    assert isinstance(found, TokensReply)

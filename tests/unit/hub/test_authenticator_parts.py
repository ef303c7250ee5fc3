"""The small parts of a sign-in: names, targets of redirects, bounded memories, pages."""

from __future__ import annotations

from typing import Any
from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escape_hub.errors import (
    EscapeHubError,
    IdentityConflictError,
    IssuerMisconfiguredError,
    IssuerUnavailableError,
    LoginRequiredError,
    NotAllowedError,
    UserActionRequiredError,
)
from escape_hub.hub.authenticator import EscapeAuthenticator
from escape_hub.hub.identity import hub_username
from escape_hub.hub.login_flight import LoginFlight, SignInError, local_path
from escape_hub.hub.refusal_pages import ExpiringStore, refusal
from escape_hub.hub.runtime import RateLimit
from tests.fakes.clock import FakeClock
from tests.unit.hub.in_process import use_crypt_key


def named(claims: dict[str, Any], **settings: Any) -> str:
    settings.setdefault("username_claim", "preferred_username")
    return hub_username(EscapeAuthenticator(**settings), claims)


def test_the_name_is_the_claims_in_lower_case_and_by_the_operators_map() -> None:
    assert named({"preferred_username": "Alice"}) == "alice"
    assert named({"preferred_username": "Alice"}, username_map={"alice": "al"}) == "al"
    assert named({"a": {"b": "bob"}}, username_claim=lambda claims: claims["a"]["b"]) == "bob"


@pytest.mark.parametrize(
    "name",
    [".", "..", "%2e%2e", "%2E.", "a/b", "a\\b", "a\nb", "a\x00", "a\u202eb", "x" * 256, " a"],
)
def test_a_name_that_could_be_taken_for_a_path_is_refused(name: str) -> None:
    with pytest.raises(NotAllowedError) as caught:
        named({"preferred_username": name})
    assert caught.value.code == "username-invalid"


@pytest.mark.parametrize("claims", [{}, {"preferred_username": ""}, {"preferred_username": 7}])
def test_a_missing_name_is_the_operators_matter_and_shows_names_of_claims_only(
    claims: dict[str, Any],
) -> None:
    with pytest.raises(IssuerMisconfiguredError) as caught:
        named({**claims, "email": "alice@example.org"})
    assert "email" in caught.value.message
    assert "alice@example.org" not in caught.value.message


def test_a_callable_that_fails_is_the_operators_matter() -> None:
    with pytest.raises(IssuerMisconfiguredError, match="KeyError"):
        named({}, username_claim=lambda claims: claims["absent"])


@given(st.text(max_size=300))
def test_any_name_is_usable_or_refused(name: str) -> None:
    try:
        found = named({"preferred_username": name})
    except EscapeHubError:
        return
    assert "/" not in found
    assert set(found) - {"."}


@given(st.text(alphabet="/\\.:@%?#ahtps \t\n\r\x00é", max_size=30))
def test_a_redirect_never_leaves_the_host(next_url: str) -> None:
    target = local_path(next_url)
    assert urlsplit(urljoin("https://hub.example.org/hub/", target)).netloc == "hub.example.org"
    assert target == "" or (target == next_url and target[0] == "/" and target[1:2] != "/")


async def test_a_login_comes_back_out_of_its_cookie_and_only_with_its_key() -> None:
    use_crypt_key("11" * 32)
    flight = LoginFlight.start("/hub/home", 100.0)
    sealed = await flight.seal()
    assert flight.state not in sealed
    assert len(sealed) < 1000
    assert "=" not in sealed
    assert await LoginFlight.unseal(sealed) == flight
    for secret in (flight.state, flight.nonce, flight.verifier):
        assert secret not in repr(flight)
    for bad in ("", "x", sealed[:-2], sealed[:10] + "A" + sealed[11:]):
        with pytest.raises(SignInError):
            await LoginFlight.unseal(bad)
    use_crypt_key("22" * 32)
    with pytest.raises(SignInError):
        await LoginFlight.unseal(sealed)


@pytest.mark.parametrize(
    ("now", "fits"), [(99.0, False), (100.0, True), (700.0, True), (701.0, False)]
)
def test_a_login_lands_within_ten_minutes(now: float, fits: bool) -> None:
    flight = LoginFlight.start("", 100.0)
    if fits:
        flight.must_fit(flight.state, now)
    else:
        with pytest.raises(SignInError):
            flight.must_fit(flight.state, now)


async def test_a_memory_is_bounded_in_time_and_number() -> None:
    clock = FakeClock()
    store: ExpiringStore[int] = ExpiringStore(clock.now, lifetime=10, limit=3)
    for n in range(4):
        store.put(str(n), n)
    assert [store.get(str(n)) for n in range(4)] == [None, 1, 2, 3]
    await clock.advance(10)
    assert store.get("3") is None


async def test_each_key_has_a_rate_of_its_own_and_the_oldest_are_forgotten() -> None:
    clock = FakeClock()
    limit = RateLimit(clock, rate=1.0, burst=2.0, keys=2)
    assert [limit.wait("a") for _ in range(2)] == [0.0, 0.0]
    assert limit.wait("a") == pytest.approx(1.0)
    assert limit.wait("b") == 0.0
    await clock.advance(1.0)
    assert limit.wait("a") == 0.0
    limit.wait("c")
    assert len(limit._buckets) == 2


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (IssuerUnavailableError("timeout"), 503, "does not answer"),
        (UserActionRequiredError("sign the AUP"), 403, "sign the AUP"),
        (NotAllowedError("missing the group 'x'"), 403, "missing the group 'x'"),
        (NotAllowedError("blocked", code="blocked"), 403, "blocked"),
        (IdentityConflictError("belongs to"), 403, "somebody else"),
        (LoginRequiredError("code used"), 400, "code used"),
        (IssuerMisconfiguredError("invalid_client"), 503, "out of order"),
        (EscapeHubError("a bug"), 500, "went wrong"),
    ],
)
def test_every_error_has_a_page_with_a_reference(
    error: EscapeHubError, status: int, words: str
) -> None:
    found = refusal(error, service="ESCAPE IAM", retry_url="/hub/oauth_login")
    assert found.status == status
    assert words in f"{found.title} {found.message} {found.remedy}"
    assert found.reference.startswith(f"{error.code}-")
    assert refusal(error, service="ESCAPE IAM").reference != found.reference


def test_what_only_an_operator_can_use_is_not_on_the_page() -> None:
    found = refusal(IssuerMisconfiguredError("check client_secret"), service="X")
    assert "client_secret" not in f"{found.title} {found.message} {found.remedy}"

"""The cache behind discovery and keys: ages, outages, single flight, two budgets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from escape_hub.core.keys import Header, Key, parse_key_set
from escape_hub.errors import InvalidTokenError, IssuerUnavailableError
from escape_hub.hub.cached import Cached
from escape_hub.hub.jwks import COOLDOWN, HARD_TTL, PATIENCE, SOFT_TTL, KeySource
from tests.fakes.clock import FakeClock, settle
from tests.fakes.signing import jwk, rsa_key

OLD, NEW = Header("RS256", "k1"), Header("RS256", "k2")


class Issuer:
    """Publishes keys, can be down, and can be held at the door."""

    def __init__(self) -> None:
        self.kids = ["k1"]
        self.down = False
        self.fetches = 0
        self.door = asyncio.Event()
        self.door.set()

    def rotate(self) -> None:
        self.kids = ["k2"]

    async def fetch(self) -> tuple[Key, ...]:
        self.fetches += 1
        kids = list(self.kids)  # as they were when the request arrived
        await self.door.wait()
        if self.down:
            raise IssuerUnavailableError("down", code="jwks-failed")
        return parse_key_set({"keys": [jwk(rsa_key(kid), kid) for kid in kids]})


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
async def source(issuer: Issuer, clock: FakeClock) -> AsyncIterator[KeySource]:
    source = KeySource(issuer.fetch, clock)
    yield source
    await source.aclose()


async def test_fifty_cold_requests_are_one_fetch(source: KeySource, issuer: Issuer) -> None:
    found = await asyncio.gather(*(source.key(OLD, "token_endpoint") for _ in range(50)))
    assert {key.kid for key in found} == {"k1"}
    assert issuer.fetches == 1


async def test_young_keys_are_not_fetched_again(
    source: KeySource, issuer: Issuer, clock: FakeClock
) -> None:
    await source.key(OLD, "token_endpoint")
    await clock.advance(SOFT_TTL)
    await source.key(OLD, "token_endpoint")
    await settle()
    assert issuer.fetches == 1


async def test_old_keys_answer_at_once_and_are_fetched_behind(
    source: KeySource, issuer: Issuer, clock: FakeClock
) -> None:
    await source.key(OLD, "token_endpoint")
    await clock.advance(SOFT_TTL + 1)
    issuer.door.clear()
    assert (await source.key(OLD, "token_endpoint")).kid == "k1"
    await settle()
    assert issuer.fetches == 2
    issuer.door.set()
    await settle()
    await source.key(OLD, "token_endpoint")
    await settle()
    assert issuer.fetches == 2


async def test_keys_serve_through_an_outage_and_not_for_ever(
    source: KeySource, issuer: Issuer, clock: FakeClock
) -> None:
    await source.key(OLD, "token_endpoint")
    issuer.down = True
    await clock.advance(HARD_TTL)
    assert (await source.key(OLD, "token_endpoint")).kid == "k1"
    await settle()
    await clock.advance(PATIENCE + 1)
    with pytest.raises(IssuerUnavailableError):
        await source.key(OLD, "token_endpoint")
    issuer.down = False
    await clock.advance(PATIENCE + 1)
    assert (await source.key(OLD, "token_endpoint")).kid == "k1"


async def test_a_dead_issuer_is_asked_once_in_a_few_seconds(
    source: KeySource, issuer: Issuer, clock: FakeClock
) -> None:
    issuer.down = True
    errors = []
    for _ in range(20):
        with pytest.raises(IssuerUnavailableError) as caught:
            await source.key(OLD, "token_endpoint")
        errors.append(caught.value)
    assert issuer.fetches == 1
    assert len({id(error) for error in errors}) == 20
    assert {error.code for error in errors} == {"jwks-failed"}
    await clock.advance(PATIENCE + 1)
    issuer.down = False
    await source.key(OLD, "token_endpoint")
    assert issuer.fetches == 2


async def test_signing_key_rotation(source: KeySource, issuer: Issuer) -> None:
    await source.key(OLD, "token_endpoint")
    issuer.rotate()
    found = await asyncio.gather(*(source.key(NEW, "token_endpoint") for _ in range(50)))
    assert {key.kid for key in found} == {"k2"}
    assert issuer.fetches == 2


async def test_signing_key_rotation_just_before_signing(source: KeySource, issuer: Issuer) -> None:
    """A fetch that began before the rotation brings the old keys: it does not count."""
    issuer.door.clear()
    before = asyncio.create_task(source.key(OLD, "token_endpoint"))
    await settle()
    issuer.rotate()
    after = asyncio.create_task(source.key(NEW, "token_endpoint"))
    await settle()
    issuer.door.set()
    assert (await before).kid == "k1"
    assert (await after).kid == "k2"


async def test_a_refetch_for_another_token_may_have_begun_before_the_rotation(
    source: KeySource, issuer: Issuer
) -> None:
    await source.key(OLD, "token_endpoint")
    issuer.door.clear()
    forged = asyncio.create_task(source.key(Header("RS256", "x"), "token_endpoint"))
    await settle()
    issuer.rotate()
    good = asyncio.create_task(source.key(NEW, "token_endpoint"))
    await settle()
    issuer.door.set()
    assert (await good).kid == "k2"
    with pytest.raises(InvalidTokenError):
        await forged


async def test_an_unknown_kid_costs_one_fetch_and_is_refused(
    source: KeySource, issuer: Issuer
) -> None:
    await source.key(OLD, "token_endpoint")
    with pytest.raises(InvalidTokenError) as caught:
        await source.key(NEW, "token_endpoint")
    assert caught.value.code == "jwks-unknown-kid"
    assert issuer.fetches == 2


async def test_an_unknown_kid_while_the_issuer_is_down_is_an_outage(
    source: KeySource, issuer: Issuer
) -> None:
    await source.key(OLD, "token_endpoint")
    issuer.down = True
    with pytest.raises(IssuerUnavailableError):
        await source.key(NEW, "token_endpoint")


async def test_strangers_cannot_make_us_fetch_more_than_once_a_minute(
    source: KeySource, issuer: Issuer, clock: FakeClock
) -> None:
    await source.key(OLD, "back_channel")
    for n in range(500):
        with pytest.raises(InvalidTokenError):
            await source.key(Header("RS256", f"x{n}"), "back_channel")
    assert issuer.fetches == 2
    await clock.advance(COOLDOWN)
    for n in range(500):
        with pytest.raises(InvalidTokenError):
            await source.key(Header("RS256", f"y{n}"), "back_channel")
    assert issuer.fetches == 3


async def test_strangers_do_not_use_up_the_budget_of_logins(
    source: KeySource, issuer: Issuer
) -> None:
    await source.key(OLD, "back_channel")
    with pytest.raises(InvalidTokenError):
        await source.key(NEW, "back_channel")
    issuer.rotate()
    assert (await source.key(NEW, "token_endpoint")).kid == "k2"


async def test_one_who_gives_up_does_not_take_the_keys_from_the_others(
    source: KeySource, issuer: Issuer
) -> None:
    issuer.door.clear()
    first, second = (asyncio.create_task(source.key(OLD, "token_endpoint")) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    issuer.door.set()
    assert (await second).kid == "k1"
    assert first.cancelled()
    assert issuer.fetches == 1


async def test_closing_ends_a_fetch_under_way(clock: FakeClock, issuer: Issuer) -> None:
    source = KeySource(issuer.fetch, clock)
    issuer.door.clear()
    waiting = asyncio.create_task(source.key(OLD, "token_endpoint"))
    await settle()
    await source.aclose()
    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_bug_in_a_fetch_is_not_remembered_as_an_outage(clock: FakeClock) -> None:
    calls = 0

    async def fetch() -> int:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise ValueError("a bug")
        return calls

    cached = Cached("x", fetch, clock, soft=1, hard=2, patience=5)
    with pytest.raises(ValueError, match="a bug"):
        await cached.get()
    assert await cached.get() == 2


async def test_keys_that_were_ambiguous_are_looked_at_once_more(
    source: KeySource, issuer: Issuer
) -> None:
    issuer.kids = ["k1", "k2"]
    nameless = Header("RS256", None)
    with pytest.raises(InvalidTokenError) as caught:
        await source.key(nameless, "token_endpoint")
    assert caught.value.code == "jwks-ambiguous"
    issuer.rotate()
    assert (await source.key(nameless, "token_endpoint")).kid == "k2"


async def test_a_stranger_who_may_not_look_again_hears_of_the_ambiguity(
    source: KeySource, issuer: Issuer
) -> None:
    issuer.kids = ["k1", "k2"]
    for _ in range(2):
        with pytest.raises(InvalidTokenError) as caught:
            await source.key(Header("RS256", None), "back_channel")
        assert caught.value.code == "jwks-ambiguous"
    assert issuer.fetches == 2

"""The issuer in memory is as strict as it claims; every test of the renewal leans on it."""

from __future__ import annotations

import asyncio

import pytest

from escape_hub.errors import (
    IssuerMisconfiguredError,
    IssuerUnavailableError,
    LoginRequiredError,
)
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import LOST, FakeIssuer, unavailable
from tests.fakes.rig import RUCIO


@pytest.fixture
def issuer() -> FakeIssuer:
    return FakeIssuer(FakeClock())


async def test_a_refresh_token_is_good_once(issuer):
    first = issuer.sign_in("alice").refresh_token
    second = (await issuer.refresh(first)).refresh_token
    assert second != first
    assert issuer.is_current(second)
    assert not issuer.is_current(first)


async def test_a_spent_refresh_token_kills_the_whole_sign_in(issuer):
    reply = issuer.sign_in("alice")
    successor = await issuer.refresh(reply.refresh_token)
    with pytest.raises(LoginRequiredError):
        await issuer.refresh(reply.refresh_token)
    assert not issuer.is_current(successor.refresh_token)
    assert not issuer.is_good(successor.access_token.value)


async def test_another_sign_in_of_the_same_person_survives(issuer):
    one, other = issuer.sign_in("alice"), issuer.sign_in("alice")
    issuer.end_sign_in(one.refresh_token)
    assert issuer.is_current(other.refresh_token)


async def test_without_rotation_the_refresh_token_stays(issuer):
    issuer.rotation = False
    reply = issuer.sign_in("alice")
    assert (await issuer.refresh(reply.refresh_token)).refresh_token == reply.refresh_token
    await issuer.refresh(reply.refresh_token)


async def test_an_expired_subject_token_is_refused_by_how_fresh_it_was_said_to_be(issuer):
    reply = issuer.sign_in("alice")
    issuer.clock = FakeClock(issuer.clock.now() + 3600)
    with pytest.raises(IssuerUnavailableError):
        await issuer.exchange(reply.access_token.value, RUCIO, subject_fresh=False)
    with pytest.raises(IssuerMisconfiguredError):
        await issuer.exchange(reply.access_token.value, RUCIO)


async def test_an_exchanged_token_is_good_for_its_audience_alone(issuer):
    reply = issuer.sign_in("alice")
    token = await issuer.exchange(reply.access_token.value, RUCIO)
    assert issuer.is_good(token.value, "rucio")
    assert not issuer.is_good(token.value, "eos-eulake")
    assert not issuer.is_good(token.value)


async def test_a_lost_reply_spends_the_refresh_token(issuer):
    reply = issuer.sign_in("alice")
    issuer.fail("refresh", LOST)
    with pytest.raises(IssuerUnavailableError) as caught:
        await issuer.refresh(reply.refresh_token)
    assert caught.value.maybe_processed
    assert not issuer.is_current(reply.refresh_token)


async def test_an_error_that_was_put_in_line_is_raised_once_and_spends_nothing(issuer):
    reply = issuer.sign_in("alice")
    issuer.fail("refresh", unavailable())
    with pytest.raises(IssuerUnavailableError):
        await issuer.refresh(reply.refresh_token)
    await issuer.refresh(reply.refresh_token)


async def test_a_hanging_request_gives_up_after_the_timeout():
    clock = FakeClock()
    issuer = FakeIssuer(clock, hang=True)
    task = asyncio.ensure_future(issuer.userinfo("any"))
    await clock.advance(29)
    assert not task.done()
    await clock.advance(2)
    assert isinstance(task.exception(), IssuerUnavailableError)


async def test_presenting_one_refresh_token_twice_at_once_is_noticed():
    clock = FakeClock()
    issuer = FakeIssuer(clock, latency=0.1)
    token = issuer.sign_in("alice").refresh_token
    both = asyncio.gather(issuer.refresh(token), issuer.refresh(token), return_exceptions=True)
    await clock.advance(1)
    await both
    assert issuer.presented_at_once == 1


async def test_revoking_ends_the_sign_in(issuer):
    reply = issuer.sign_in("alice")
    await issuer.revoke(reply.refresh_token)
    assert issuer.revoked == [reply.refresh_token]
    assert not issuer.is_good(reply.access_token.value)

"""Refresh with rotation at services that others wrote: replays, races, lost messages."""

from __future__ import annotations

import asyncio

import pytest

from escape_hub.core.exchange import TokenReply
from escape_hub.errors import InvalidTokenError, IssuerUnavailableError, LoginRequiredError
from tests.providers.sign_in import Note, Stage


async def test_refresh_rotates(stage: Stage, record_property: Note) -> None:
    """Refresh: gives new tokens of the same person, and the refresh token is a new one."""
    capabilities = stage.provider.capabilities
    sign_in = await stage.sign_in()
    claims = await stage.claims(sign_in)
    reply = await stage.issuer.refresh(sign_in.refresh_token)
    assert reply.refresh_token not in (None, sign_in.refresh_token)
    assert reply.access_token.value != sign_in.access_token
    assert reply.id_token is not None
    again = await stage.issuer.verify_id_token(
        reply.id_token, nonce=None, same_as=(claims["iss"], claims["sub"])
    )
    assert ("nonce" in again) == (capabilities.refreshed_id_token == "with nonce")
    assert await stage.lives(reply.access_token.value)
    assert await stage.lives(sign_in.access_token) == capabilities.access_token_outlives_refresh
    if not capabilities.access_token_outlives_refresh:
        record_property("note", "the old access token ends with the refresh")


async def test_refresh_token_without_offline_access(stage: Stage, record_property: Note) -> None:
    """Refresh: whether a sign-in without offline_access has a refresh token is known."""
    sign_in = await stage.sign_in(scope="openid profile")
    if stage.provider.capabilities.offline_scope:
        assert sign_in.reply.refresh_token is None
        record_property("note", "needs offline_access")
    else:
        assert (await stage.issuer.refresh(sign_in.refresh_token)).refresh_token


async def test_refreshed_id_token_of_another_person_is_refused(stage: Stage) -> None:
    """Refresh: an id_token of somebody else is refused, good as it is."""
    alice, bob = await stage.sign_in("alice"), await stage.sign_in("bob")
    claims = await stage.claims(alice)
    reply = await stage.issuer.refresh(bob.refresh_token)
    assert reply.id_token is not None
    with pytest.raises(InvalidTokenError) as refusal:
        await stage.issuer.verify_id_token(
            reply.id_token, nonce=None, same_as=(claims["iss"], claims["sub"])
        )
    assert refusal.value.code == "id-token-identity"


async def test_spent_refresh_token_presented_again(stage: Stage, record_property: Note) -> None:
    """Refresh: a spent refresh token is refused; what that does to the successor is known."""
    sign_in = await stage.sign_in()
    winner = await stage.issuer.refresh(sign_in.refresh_token)
    await stage.assert_dead(sign_in.refresh_token)
    await assert_fate(stage, winner, record_property)


async def assert_fate(stage: Stage, winner: TokenReply, record_property: Note) -> None:
    """After a replay: the successor is dead or alive, as documented."""
    assert winner.refresh_token is not None
    alive = await stage.lives(winner.access_token.value)
    if stage.provider.capabilities.replay == "kills the session":
        await stage.assert_dead(winner.refresh_token)
        assert not alive
        record_property("note", "a replay ends the whole sign-in")
    else:
        await stage.issuer.refresh(winner.refresh_token)
        assert alive
        record_property("note", "the successor lives on")


async def test_two_refreshes_at_once(stage: Stage, record_property: Note) -> None:
    """Refresh race: the loser of two at once is told to log in; the winner's fate is known."""
    sign_in = await stage.sign_in()
    both = await asyncio.gather(
        *(stage.issuer.refresh(sign_in.refresh_token) for _ in range(2)), return_exceptions=True
    )
    winners = [one for one in both if isinstance(one, TokenReply)]
    losers = [one for one in both if isinstance(one, LoginRequiredError)]
    assert len(winners) + len(losers) == 2
    assert len(winners) in stage.provider.capabilities.race_winners
    for winner in winners:
        await assert_fate(stage, winner, record_property)
    if 2 in stage.provider.capabilities.race_winners:
        record_property("note", "both can win")


async def test_reply_to_a_refresh_is_lost(stage: Stage, record_property: Note) -> None:
    """Lost reply: it counts as maybe processed; the token was spent, presenting it is the end."""
    capabilities = stage.provider.capabilities
    sign_in = await stage.sign_in()
    stage.line.losing = "replies"
    with pytest.raises(IssuerUnavailableError) as lost:
        await stage.issuer.refresh(sign_in.refresh_token)
    stage.line.losing = "nothing"
    assert lost.value.maybe_processed and stage.line.lost == 1
    # What the broker does meanwhile: it goes on with the access token in hand.
    assert await stage.lives(sign_in.access_token) == capabilities.access_token_outlives_refresh
    if capabilities.exchange != "no" and capabilities.access_token_outlives_refresh:
        await stage.issuer.exchange(sign_in.access_token, stage.audience("rucio"))
    await stage.assert_dead(sign_in.refresh_token)
    assert not await stage.lives(sign_in.access_token)
    record_property("note", "the old refresh token is spent")


async def test_refresh_is_lost_on_its_way(stage: Stage) -> None:
    """Lost request: it counts as maybe processed as well, and the refresh token is still good."""
    sign_in = await stage.sign_in()
    stage.line.losing = "requests"
    with pytest.raises(IssuerUnavailableError) as lost:
        await stage.issuer.refresh(sign_in.refresh_token)
    stage.line.losing = "nothing"
    assert lost.value.maybe_processed and stage.line.lost == 1
    assert (await stage.issuer.refresh(sign_in.refresh_token)).refresh_token

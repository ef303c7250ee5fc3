"""The hub's renewals at services that others wrote: what a replay would end stays alive."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from prometheus_client import CollectorRegistry

from escape_hub.clock import SystemClock
from escape_hub.core.auth_state import AuthState
from escape_hub.core.tokens import AccessToken
from escape_hub.hub.broker import TokenBroker
from escape_hub.hub.metrics import metrics_of
from escape_hub.hub.store import MemoryStore
from tests.providers.sign_in import Note, SignIn, Stage

#: Seconds since the login that the broker believes in; tokens live for an hour.
EARLIER = 2400.0


def broker_over(stage: Stage, store: MemoryStore) -> TokenBroker:
    """The broker of a hub that has just started."""
    return TokenBroker(
        stage.issuer,
        store,
        [stage.audience(name) for name in stage.provider.capabilities.exchange_scopes],
        clock=SystemClock(),
        metrics=metrics_of(CollectorRegistry()),
    )


async def signed_in(stage: Stage, store: MemoryStore) -> tuple[TokenBroker, SignIn]:
    """A broker that has alice's sign-in stored, as some time after a login at the hub."""
    sign_in = await stage.sign_in()
    claims = await stage.claims(sign_in)
    broker = broker_over(stage, store)
    state = await broker.begin(
        "alice", sign_in.reply, issuer=claims["iss"], subject=claims["sub"], claims=claims
    )
    assert state.login_token is not None
    exchanged = {name: earlier(token) for name, token in state.exchanged.items()}
    store.states["alice"] = replace(
        state, login_token=earlier(state.login_token), exchanged=exchanged
    )
    return broker, sign_in


def earlier(token: AccessToken) -> AccessToken:
    """The token as if it had been given earlier: due for a renewal, and not mandatory."""
    return replace(
        token, obtained_at=token.obtained_at - EARLIER, expires_at=token.expires_at - EARLIER
    )


def assert_good(stage: Stage, state: AuthState, record_property: Note) -> None:
    """Nobody must sign in, and every audience has its token where there is exchange."""
    assert state.needs_login is None
    if stage.provider.capabilities.exchange == "no":
        assert state.exchanged == {}
        assert {f.code for f in state.failures.values()} == {"exchange-unsupported"}
        record_property("note", "without exchange: the operator is told, nobody is logged out")
    else:
        assert set(state.exchanged) == {"eos-eulake", "rucio"}
        assert state.failures == {}


async def test_many_renewals_at_once_are_one(stage: Stage, record_property: Note) -> None:
    """Renewal: many at once spend the refresh token once, and the sign-in lives on."""
    broker, sign_in = await signed_in(stage, MemoryStore())
    states = await asyncio.gather(
        *(broker.renew("alice", force=True, patience=30) for _ in range(6))
    )
    assert len({state.refresh_token for state in states}) == 1
    assert states[0].refresh_token != sign_in.refresh_token
    assert_good(stage, states[0], record_property)
    # It still refreshes: a second presentation would have ended the sign-in.
    assert states[0].refresh_token is not None
    assert (await stage.issuer.refresh(states[0].refresh_token)).refresh_token
    await broker.aclose()


async def test_lost_reply_logs_nobody_out(stage: Stage, record_property: Note) -> None:
    """Renewal: after a lost reply the spent refresh token is not presented, the session goes on."""
    store = MemoryStore()
    broker, sign_in = await signed_in(stage, store)
    before = await broker.state("alice")
    stage.line.losing = "replies"
    await broker.renew("alice", force=True, patience=30)
    assert stage.line.lost
    stage.line.losing = "nothing"
    await broker.aclose()
    # Another process: what it must not do, it knows from what is stored.
    broker = broker_over(stage, store)
    after = await broker.renew("alice", force=True, patience=30)
    assert after.needs_login is None
    assert after.refresh_token == sign_in.refresh_token
    # The audiences' tokens are new all the same: the login token still exchanges.
    assert set(after.exchanged) == set(before.exchanged)
    assert all(after.exchanged[n].value != t.value for n, t in before.exchanged.items())
    # Had it been presented again, Keycloak and oidc-provider would have ended this too.
    outlives = stage.provider.capabilities.access_token_outlives_refresh
    assert await stage.lives(sign_in.access_token) == outlives
    if not outlives:
        record_property("note", "its access token has ended with the refresh")
    await broker.aclose()

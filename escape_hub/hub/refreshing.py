"""The refresh grant: the one place where a refresh token is spent."""

from __future__ import annotations

import functools
import logging
from dataclasses import replace

from escape_hub.core.auth_state import ForeignAuthStateError, NeedsLogin
from escape_hub.core.exchange import TokenReply
from escape_hub.core.oidc import personal_claims
from escape_hub.core.renewal import LOST_REPLY
from escape_hub.errors import (
    EscapeHubError,
    InvalidTokenError,
    IssuerUnavailableError,
    LoginRequiredError,
)
from escape_hub.hub.flight import Flight, failure_of, without
from escape_hub.hub.store import StateMovedError

log = logging.getLogger(__name__)

#: `LoginRequiredError.code` for an account that the issuer has suspended: the files go at once.
SUSPENDED = "user-suspended"


async def refresh(flight: Flight, begun: float) -> bool:
    """Spend the refresh token and store its successor; whether there is a new subject token."""
    try:
        reply = await _present_refresh_token(flight)
    except LoginRequiredError as error:
        await _refused_for_good(flight, error)
        return False
    except (StateMovedError, ForeignAuthStateError):
        raise  # of the store, and not of the issuer
    except EscapeHubError as error:
        await _not_refreshed(flight, error, begun)
        return False
    state = flight.state
    previous = state.login_token
    flight.slot.succeeded("")
    await flight.save(
        state.next(
            refresh_token=reply.refresh_token or state.refresh_token,
            login_token=reply.access_token,
            scope=reply.scope or state.scope,
            failures=without(state.failures, ""),
        )
    )
    try:
        await _check_id_token(flight, reply.id_token)
    except InvalidTokenError as error:
        flight.state = replace(flight.state, login_token=previous)
        flight.dirty = True
        await _not_refreshed(flight, error, begun)
        return False
    flight.record("refresh", "ok")
    return True


async def _present_refresh_token(flight: Flight) -> TokenReply:
    """The reply, after a second try where the first refusal need not be the last word."""
    confirmed = False
    while True:
        token = flight.state.refresh_token
        assert token is not None  # noqa: S101 the plan asks for no refresh without one
        try:
            return await flight.call(
                "refresh", functools.partial(flight.parts.issuer.refresh, token)
            )
        except LoginRequiredError as error:
            moved = await _moved(flight)
            if confirmed or not (moved or error.confirm):
                raise
            confirmed = True


async def _moved(flight: Flight) -> bool:
    """Whether another sign-in is stored by now, which then is the one to go on with."""
    ours = flight.state
    if not await flight.reread():
        return False
    stored, flight.state = flight.state, ours
    if stored.refresh_token is None or stored.needs_login is not None:
        raise StateMovedError(stored)
    flight.parts.metrics.conflicts.inc()
    flight.state = stored
    if not flight.plan().refresh:
        raise StateMovedError(stored)  # what is there suffices
    return True


async def _refused_for_good(flight: Flight, error: LoginRequiredError) -> None:
    flight.record("refresh", "login", error.code)
    await flight.end(
        NeedsLogin(error.code, error.message, flight.now, wipe=error.code == SUSPENDED)
    )


async def _not_refreshed(flight: Flight, error: EscapeHubError, begun: float) -> None:
    """Keep everything; remember what went wrong, stored where it must outlive a restart."""
    failure = failure_of(error, flight.now)
    before = flight.state.failures.get("")
    lost = isinstance(error, IssuerUnavailableError) and error.maybe_processed
    if lost or (failure.kind == "transient" and before and before.code == LOST_REPLY):
        failure = replace(failure, code=LOST_REPLY)
    failure = flight.failed("", failure, error, begun)
    flight.state = replace(flight.state, failures={**flight.state.failures, "": failure})
    worth_storing = failure.kind != "transient" or failure.code == LOST_REPLY
    if flight.dirty or (worth_storing and before != failure):
        await flight.save(flight.state.next())


async def _check_id_token(flight: Flight, id_token: str | None) -> None:
    """OpenID Connect Core 12.2: issuer and subject stay; raises `InvalidTokenError`.

    Its claims count for `authorize` beside those of userinfo. When the issuer's keys
    cannot be had now, the older id_token is kept.
    """
    flight.claims = {}
    if id_token is None:
        return
    same = (flight.state.issuer, flight.state.subject)
    try:
        claims = await flight.parts.issuer.verify_id_token(id_token, nonce=None, same_as=same)
    except IssuerUnavailableError as error:
        log.warning("A refreshed id_token is not checked yet: %s", error.message)
        return
    flight.claims = personal_claims(claims)
    flight.state = replace(flight.state, id_token=id_token)
    flight.dirty = True

"""The order of one renewal: refresh, store the successor, exchange, store."""

from __future__ import annotations

from collections.abc import Awaitable
from dataclasses import replace

from escape_hub.core.auth_state import AuthState, NeedsLogin
from escape_hub.core.renewal import Work
from escape_hub.hub.admission import QUEUED, NotAdmittedError
from escape_hub.hub.exchanging import exchange
from escape_hub.hub.flight import Flight, failure_of
from escape_hub.hub.refreshing import refresh
from escape_hub.hub.store import StateMovedError


async def renew_once(flight: Flight) -> AuthState:
    """Bring the flight's state up to its need; what is known afterwards.

    Only `LookupError`, `ForeignAuthStateError` and errors of loading come out.
    """
    parts = flight.parts
    if flight.state.needs_login is not None:
        return flight.state
    if flight.now - flight.state.login_at > parts.policy.max_session_age:
        return await _guarded(flight, _end_of_age(flight))
    work = flight.plan()
    if not work.calls:
        return await _guarded(flight, _at_a_loss(flight))
    flight.slot.place = flight.place(work)
    try:
        async with parts.admission.renewal(flight.slot.place, flight.patience) as queued:
            if queued:
                await flight.reread()
                work = flight.plan()
            return await _guarded(flight, _renew(flight, work))
    except NotAdmittedError as error:
        if error.code == QUEUED:
            return flight.state
        failures = {"": failure_of(error, flight.now), **flight.state.failures}
        return replace(flight.state, failures=failures)


async def _guarded(flight: Flight, steps: Awaitable[None]) -> AuthState:
    try:
        await steps
    except StateMovedError as moved:
        await flight.yield_to(moved.stored)
    return flight.state


async def _renew(flight: Flight, work: Work) -> None:
    begun = flight.now
    if not work.calls:
        return
    if work.refresh:
        if await refresh(flight, begun):
            await exchange(flight, work, begun, fresh=True)
        return
    if await exchange(flight, work, begun, fresh=False, judge=flight.can_refresh()):
        return
    # The subject token was refused, and it is not fresh: only a refresh tells why.
    if await refresh(flight, begun):
        await exchange(flight, replace(work, userinfo=True), begun, fresh=True)


async def _end_of_age(flight: Flight) -> None:
    days = flight.parts.policy.max_session_age / 86400
    text = f"you signed in more than {days:g} days ago: sign in again"
    await flight.end_and_revoke(NeedsLogin("session-age", text, flight.now))


async def _at_a_loss(flight: Flight) -> None:
    """Nothing can be done now. Without a refresh token nothing ever will."""
    subject = flight.state.login_token
    if flight.state.refresh_token is not None or (subject and subject.is_valid(flight.now)):
        return
    flight.parts.alert(
        "no-refresh-token",
        "the identity service gave no refresh token: have 'offline_access' granted to this "
        "hub's client, and ask for it in the setting 'scope'",
    )
    text = "your sign-in has ended: sign in again"
    await flight.end(NeedsLogin("no-refresh-token", text, flight.now))

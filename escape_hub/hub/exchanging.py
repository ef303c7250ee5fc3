"""The exchanges of one renewal, each on its own, with userinfo beside them."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from escape_hub.core.auth_state import AuthState, NeedsLogin
from escape_hub.core.renewal import CHECK, Work
from escape_hub.core.tokens import AccessToken
from escape_hub.errors import EscapeHubError, NotAllowedError
from escape_hub.hub.audit import log_unexpected
from escape_hub.hub.flight import Flight, failure_of, without

log = logging.getLogger(__name__)

#: `IssuerError.code` of an exchange whose subject token was refused: a refresh must judge.
SUBJECT_REFUSED = "exchange-subject-refused"


async def exchange(
    flight: Flight, work: Work, begun: float, *, fresh: bool, judge: bool = False
) -> bool:
    """Exchange, ask userinfo, store. False when the subject token itself was refused.

    ``fresh``: it comes from a refresh just made. ``judge``: a refresh can be made to tell.
    """
    subject = flight.state.login_token
    assert subject is not None  # noqa: S101 the plan asks for none without it
    results, told = await asyncio.gather(
        asyncio.gather(*(_exchange_one(flight, subject.value, n, fresh) for n in work.exchange)),
        _userinfo(flight, subject.value, begun) if work.userinfo else _nothing(),
    )
    if judge and any(getattr(r, "code", "") == SUBJECT_REFUSED for r in results):
        return False
    before = flight.state
    for name, result in zip(work.exchange, results, strict=True):
        _take(flight, name, result, begun)
    if work.userinfo and (refusal := await _authorized(flight, told, begun)) is not None:
        await _refuse(flight, refusal)
    elif flight.dirty or _worth_storing(before) != _worth_storing(flight.state):
        await flight.save(flight.state.next())
    return True


def _take(flight: Flight, name: str, result: AccessToken | EscapeHubError, begun: float) -> None:
    """The new token; or, with the last good one kept, why there is none."""
    state = flight.state
    if isinstance(result, AccessToken):
        flight.slot.succeeded(name)
        flight.record(name, "ok")
        exchanged = {**state.exchanged, name: result}
        failures = without(state.failures, name)
    else:
        failure = flight.failed(name, failure_of(result, flight.now), result, begun)
        exchanged, failures = dict(state.exchanged), {**state.failures, name: failure}
    flight.state = replace(state, exchanged=exchanged, failures=failures)


async def _exchange_one(
    flight: Flight, subject: str, name: str, fresh: bool
) -> AccessToken | EscapeHubError:
    audience = flight.parts.audiences[name]
    try:
        return await flight.call(
            "exchange",
            lambda: flight.parts.issuer.exchange(subject, audience, subject_fresh=fresh),
        )
    except EscapeHubError as error:
        return error


async def _userinfo(flight: Flight, subject: str, begun: float) -> dict[str, Any] | None:
    try:
        claims = await flight.call(
            "userinfo",
            lambda: flight.parts.issuer.userinfo(subject, subject=flight.state.subject),
        )
    except EscapeHubError as error:
        # Not the last word on anybody: the claims stay, and the next renewal asks again.
        flight.failed(CHECK, failure_of(error, flight.now), error, begun)
        return None
    flight.slot.succeeded(CHECK)
    flight.record("userinfo", "ok")
    return claims


async def _authorized(
    flight: Flight, told: Mapping[str, Any] | None, begun: float
) -> NotAllowedError | None:
    """Judge the person by fresh claims alone: a group that is gone must not live on.

    Without an answer (``told`` None) by those known before: the rules themselves may
    have changed, and somebody who is blocked must not outlive that by a userinfo that fails.
    """
    claims = dict(flight.state.claims) if told is None else {**flight.claims, **told}
    try:
        answer = flight.parts.authorize(flight.user, claims)
        if inspect.isawaitable(answer):
            await answer
    except NotAllowedError as error:
        return error
    except Exception as error:
        # A bug, or an operator's callable: what was granted before stands for now.
        log_unexpected(log, f"the authorization of {flight.user!r}", error)
        broken = EscapeHubError("the check of who may come in failed", code="authorize-failed")
        flight.failed(CHECK, failure_of(broken, flight.now), broken, begun)
        return None
    if told is not None:
        flight.state = replace(flight.state, claims=claims, checked_at=flight.now)
    return None


async def _refuse(flight: Flight, error: NotAllowedError) -> None:
    flight.record("userinfo", "not_allowed", error.code)
    await flight.end_and_revoke(NeedsLogin(error.code, error.message, flight.now, wipe=True))


def _worth_storing(state: AuthState) -> tuple[Any, ...]:
    """What is stored when it changed; a transient failure alone is not."""
    failures = {n: f for n, f in state.failures.items() if f.kind != "transient"}
    return state.exchanged, failures, state.claims, state.checked_at


async def _nothing() -> None:
    return None

"""The exchanges of a login: each audience on its own, and none holds up the person for long."""

from __future__ import annotations

import asyncio

from escape_hub.clock import all_done_within
from escape_hub.core.audiences import Audience
from escape_hub.core.auth_state import Failure
from escape_hub.core.tokens import AccessToken
from escape_hub.errors import EscapeHubError, IssuerUnavailableError
from escape_hub.hub.flight import call, failure_of, record
from escape_hub.hub.parts import Parts


async def first_exchanges(
    parts: Parts, user: str, subject: AccessToken
) -> tuple[dict[str, AccessToken], dict[str, Failure]]:
    """Tokens and failures by audience, after ``login_patience`` seconds at most.

    A late exchange is given up, for it spends nothing; the first renewal makes up for it.
    """
    parts.admission.charge(len(parts.audiences))
    tasks = {
        name: asyncio.ensure_future(_one(parts, user, subject, audience))
        for name, audience in parts.audiences.items()
    }
    try:
        await all_done_within(parts.clock, tasks.values(), parts.policy.login_patience)
    finally:
        for task in tasks.values():
            task.cancel()
    exchanged: dict[str, AccessToken] = {}
    failures: dict[str, Failure] = {}
    for name, task in tasks.items():
        found = task.result() if task.done() and not task.cancelled() else _late()
        if isinstance(found, AccessToken):
            exchanged[name] = found
            record(parts, user, name, "ok")
            continue
        failure = failures[name] = failure_of(found, parts.clock.now())
        record(parts, user, name, failure.kind, failure.code)
        if failure.kind == "operator":
            parts.alert(f"{name} {failure.code}", found.message)
    return exchanged, failures


def _late() -> EscapeHubError:
    return IssuerUnavailableError("the identity service answers late", code="exchange-late")


async def _one(
    parts: Parts, user: str, subject: AccessToken, audience: Audience
) -> AccessToken | EscapeHubError:
    try:
        return await call(
            parts, user, "exchange", lambda: parts.issuer.exchange(subject.value, audience)
        )
    except EscapeHubError as error:
        return error

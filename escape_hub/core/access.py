"""How a person's access stands, judged from what is stored: a state, its words, a reference.

Apart from `escape_hub.core.status`, which sessions import and which must stay small.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from escape_hub.core.audiences import Audience
from escape_hub.core.auth_state import AuthState, Failure
from escape_hub.core.renewal import RenewalPolicy, due_at, mandatory_at
from escape_hub.core.status import WORDS, State, worst
from escape_hub.core.tokens import AccessToken


@dataclass(frozen=True, slots=True)
class AudienceStatus:
    """The access to one audience. Times are epoch seconds, None without a token.

    ``reference`` is the code a person can quote, empty when nothing is wrong.
    ``expires_at`` and ``renewed_at`` are those of the last good token, living or not.
    """

    name: str
    label: str
    state: State
    message: str
    reference: str
    expires_at: float | None
    renewed_at: float | None
    lifetime: float | None


@dataclass(frozen=True, slots=True)
class Status:
    """The access to the whole lake: its worst audience, and each of them."""

    state: State
    message: str
    reference: str
    audiences: Mapping[str, AudienceStatus]


def status(
    state: AuthState,
    audiences: Iterable[Audience],
    now: float,
    policy: RenewalPolicy,
    *,
    issuer_down: bool = False,
) -> Status:
    """What to tell a person. ``issuer_down``: the hub has given up on the issuer for now."""
    found = {
        a.name: _audience_status(state, a, *_judge(state, a.name, now, policy, issuer_down))
        for a in audiences
    }
    if not found or state.needs_login is not None:
        overall, message, reference = _overall_without_audiences(state)
        return Status(overall, message, reference, found)
    overall = worst([one.state for one in found.values()])
    first = next(one for one in found.values() if one.state is overall)
    return Status(overall, first.message, first.reference, found)


def _overall_without_audiences(state: AuthState) -> tuple[State, str, str]:
    if (needs := state.needs_login) is not None:
        return State.SIGN_IN, needs.message, needs.code
    return State.LATE, WORDS[State.LATE], ""


def _judge(
    state: AuthState, name: str, now: float, policy: RenewalPolicy, issuer_down: bool
) -> tuple[State, str, str]:
    if (needs := state.needs_login) is not None:
        return State.SIGN_IN, needs.message, needs.code
    token = state.exchanged.get(name)
    own = _judge_failure(state.failures.get(name), token, now, policy)
    common = _judge_failure(state.failures.get(""), token, now, policy)
    for verdict in (own, common):
        if verdict is not None:
            return verdict
    past_due = token is None or now >= due_at(policy, token, 1.0)
    if past_due and issuer_down:
        return State.LATE, WORDS[State.LATE], "issuer-unavailable"
    if token is None or now >= mandatory_at(policy, token):
        return State.RENEWING, WORDS[State.RENEWING], ""
    return State.FRESH, WORDS[State.FRESH], ""


def _judge_failure(
    failure: Failure | None, token: AccessToken | None, now: float, policy: RenewalPolicy
) -> tuple[State, str, str] | None:
    """None when the failure is nothing a person needs to hear of (yet)."""
    if failure is None:
        return None
    if failure.kind == "operator":
        # The issuer's words are for the operator, who finds them in the log by the code.
        return State.REFUSED, WORDS[State.REFUSED], failure.code
    if failure.kind in ("user_action", "login"):
        return State.SIGN_IN, failure.message, failure.code
    if token is not None and now < due_at(policy, token, 1.0):
        return None
    return State.LATE, WORDS[State.LATE], failure.code


def _audience_status(
    state: AuthState, audience: Audience, verdict: State, message: str, reference: str
) -> AudienceStatus:
    token = state.exchanged.get(audience.name)
    return AudienceStatus(
        name=audience.name,
        label=audience.label or audience.name,
        state=verdict,
        message=message,
        reference=reference,
        expires_at=token.expires_at if token else None,
        renewed_at=token.obtained_at if token else None,
        lifetime=token.lifetime if token else None,
    )

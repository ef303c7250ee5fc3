"""The token endpoint's reply: what may come, and what it means. Read strictly, quoted never."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from escape_hub.core.status import WORDS, State
from escape_hub.core.tokens import AccessToken
from escape_hub.errors import EscapeHubError

VERSION = 1
MAX_REPLY = 256 * 1024
_REFUSALS = frozenset({401, 403, 409, 429, 503})
_TERMINAL = frozenset({401, 403, 409})


class HubUnavailableError(EscapeHubError):
    """No reply, or none that makes sense: keep the files and ask again."""

    code = "hub-unavailable"


class HubRefusalError(EscapeHubError):
    """The hub answered, and gives no tokens now.

    ``reason`` is one of unauthorized, forbidden, needs_login, rate_limited,
    unavailable. ``wipe``: the files must go within this poll. ``next_poll`` is
    the hub's wish in seconds, ``hub_now`` its clock (epoch seconds) if it told.
    """

    code = "hub-refused"

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        reference: str = "",
        wipe: bool = False,
        next_poll: float | None = None,
        hub_now: float | None = None,
    ) -> None:
        super().__init__(message, code=reference or None)
        self.reason = reason
        self.wipe = wipe
        self.next_poll = next_poll
        self.hub_now = hub_now

    @property
    def is_final(self) -> bool:
        """Whether asking again at once would be of no use."""
        return self.reason in ("unauthorized", "forbidden", "needs_login")


@dataclass(frozen=True, slots=True)
class AudienceReply:
    """What the hub says of one audience. ``token`` is None when it has no living one."""

    state: State
    message: str = ""
    reference: str = ""
    renewed_at: float | None = None
    token: AccessToken | None = None


@dataclass(frozen=True, slots=True)
class TokensReply:
    """A reply of the token endpoint; ``next_poll`` in seconds, ``hub_now`` in epoch seconds."""

    generation: int
    state: State
    message: str
    reference: str
    next_poll: float
    hub_now: float | None
    audiences: Mapping[str, AudienceReply]


def read_reply(status: int, body: bytes, hub_date: float | None = None) -> TokensReply:
    """Read the token endpoint's reply strictly; no error shows any of it but the hub's words.

    A bad entry of one audience is that audience's problem alone.
    """
    if len(body) > MAX_REPLY:
        raise _garbage(status, "it is too long")
    try:
        raw = json.loads(body)
    except (ValueError, RecursionError):
        raise _garbage(status, "it is no JSON") from None
    if not isinstance(raw, dict):
        raise _garbage(status, "it is no JSON object")
    try:
        if status == 200:
            return _tokens(raw, hub_date)
        if status in _REFUSALS:
            refusal = _refusal(status, raw, hub_date)
        else:
            raise _garbage(status, "nobody expects that status")
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
        where = error.args[0] if isinstance(error, _FieldError) else type(error).__name__
        raise _garbage(status, f"a field is missing or wrong: {where}") from None
    raise refusal


def _garbage(status: int, why: str) -> HubUnavailableError:
    return HubUnavailableError(
        f"the hub's reply (status {status}) makes no sense: {why}; trying again by itself",
        code="hub-garbage",
    )


class _FieldError(ValueError):
    """Names the field of a reply that is wrong; never its value."""


def _tokens(raw: Mapping[str, Any], hub_date: float | None) -> TokensReply:
    if raw.get("version") != VERSION:
        raise _FieldError("version")
    generation = raw.get("generation")
    if not isinstance(generation, int) or isinstance(generation, bool):
        raise _FieldError("generation")
    entries = raw.get("audiences")
    if not isinstance(entries, dict):
        raise _FieldError("audiences")
    found = {str(name): _audience_or_problem(entry) for name, entry in entries.items()}
    # The tokens' clock is the hub's own; the Date header is only the next best.
    clocks = [a.token.obtained_at for a in found.values() if a.token is not None]
    return TokensReply(
        generation=generation,
        state=State(_text(raw, "state")),
        message=_text(raw, "message"),
        reference=_text(raw, "reference"),
        next_poll=_positive(raw, "next_poll"),
        hub_now=clocks[0] if clocks else hub_date,
        audiences=found,
    )


def _audience_or_problem(entry: Any) -> AudienceReply:
    try:
        return _audience(entry)
    except (TypeError, ValueError, OverflowError, AttributeError):
        return AudienceReply(State.LATE, WORDS[State.LATE], "hub-garbage")


def _audience(raw: Mapping[str, Any]) -> AudienceReply:
    token = None
    if raw.get("access_token") is not None:
        expires_at, expires_in = _positive(raw, "expires_at"), _positive(raw, "expires_in")
        value = _text(raw, "access_token")
        # obtained_at is when the hub answered: the token's life from then on is what counts.
        token = AccessToken(value, expires_at=expires_at, obtained_at=expires_at - expires_in)
    renewed_at = raw.get("renewed_at")
    return AudienceReply(
        state=State(_text(raw, "state")),
        message=_text(raw, "message"),
        reference=_text(raw, "reference"),
        renewed_at=None if renewed_at is None else _positive(raw, "renewed_at"),
        token=token,
    )


def _refusal(status: int, raw: Mapping[str, Any], hub_date: float | None) -> HubRefusalError:
    wipe = raw.get("wipe", False)
    if not isinstance(wipe, bool):
        raise _FieldError("wipe")
    return HubRefusalError(
        _text(raw, "message"),
        reason=_text(raw, "reason"),
        reference=_text(raw, "reference"),
        wipe=wipe and status in _TERMINAL,
        next_poll=_positive(raw, "next_poll") if raw.get("next_poll") is not None else None,
        hub_now=hub_date,
    )


def _text(raw: Mapping[str, Any], key: str) -> str:
    value = raw.get(key, "")
    if not isinstance(value, str) or len(value) > 32 * 1024:
        raise _FieldError(key)
    return value


def _positive(raw: Mapping[str, Any], key: str) -> float:
    value = raw.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _FieldError(key)
    if not (math.isfinite(value) and value > 0):
        raise _FieldError(key)
    return float(value)

"""What the broker works with, and what it asks of the issuer's client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol

from escape_hub.clock import Clock
from escape_hub.core.audiences import Audience
from escape_hub.core.exchange import TokenReply
from escape_hub.core.renewal import RenewalPolicy
from escape_hub.core.tokens import AccessToken
from escape_hub.hub.admission import Admission
from escape_hub.hub.audit import Audit
from escape_hub.hub.metrics import Metrics
from escape_hub.hub.shelf import Shelf

#: Judges (hub user name, fresh claims): returns, or raises `NotAllowedError`; may be async.
Authorize = Callable[[str, Mapping[str, Any]], Awaitable[None] | None]


class IssuerClient(Protocol):
    """What the broker asks of `escape_hub.hub.issuer.Issuer`; only `EscapeHubError` comes out."""

    async def refresh(self, refresh_token: str) -> TokenReply: ...

    async def exchange(
        self, subject_token: str, audience: Audience, *, subject_fresh: bool = True
    ) -> AccessToken: ...

    async def userinfo(
        self, access_token: str, *, subject: str | None = None
    ) -> dict[str, Any]: ...

    async def verify_id_token(
        self,
        token: str,
        *,
        nonce: str | None,
        audience: str | None = None,
        same_as: tuple[str, str] | None = None,
    ) -> dict[str, Any]: ...

    async def revoke(self, token: str, hint: str = "refresh_token") -> bool: ...


@dataclass(frozen=True, slots=True)
class Parts:
    """What every flight works with."""

    issuer: IssuerClient
    shelf: Shelf
    audiences: Mapping[str, Audience]
    policy: RenewalPolicy
    clock: Clock
    rng: Random
    admission: Admission
    metrics: Metrics
    audit: Audit
    authorize: Authorize
    alert: Callable[[str, str], None]
    revoke_later: Callable[[str], None]

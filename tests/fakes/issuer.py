"""An issuer in memory, as strict as a real one: single-use refresh tokens, expiring tokens.

A spent refresh token that is presented again kills everything that came from the
same sign-in, as Keycloak and panva's oidc-provider do. Faults are put in line with
`fail` or switched on with `down`, `hang` and `refuse`.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from escape_hub.clock import Clock
from escape_hub.core.audiences import Audience
from escape_hub.core.exchange import TokenReply
from escape_hub.core.tokens import AccessToken
from escape_hub.errors import (
    EscapeHubError,
    InvalidTokenError,
    IssuerMisconfiguredError,
    IssuerUnavailableError,
    LoginRequiredError,
)

ISSUER = "https://iam.example.org/"

#: A fault by which the request is processed, and then its reply is lost.
LOST = "issuer-reply-lost"


def unavailable(code: str = "issuer-down", **more: Any) -> IssuerUnavailableError:
    """A 503, or no connection: nothing was processed."""
    return IssuerUnavailableError("does not answer", code=code, **more)


@dataclass
class SignIn:
    """What came from one login: its refresh tokens, spent and current, and access tokens."""

    subject: str
    alive: bool = True
    current: str | None = None
    spent: set[str] = field(default_factory=set)


@dataclass
class FakeIssuer:
    """Answers like `escape_hub.hub.issuer.Issuer`, and counts."""

    clock: Clock
    lifetime: float = 3600.0
    exchange_lifetime: float | None = None
    rotation: bool = True
    reuse_kills: bool = True
    latency: float = 0.0
    #: Seconds until a hanging request gives up.
    timeout: float = 30.0
    with_id_token: bool = False
    down: bool = False
    hang: bool = False
    refuse: dict[str, EscapeHubError] = field(default_factory=dict)
    claims: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.granted: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.times: list[float] = []
        self.in_flight = 0
        self.most_in_flight = 0
        self.presented_at_once = 0
        self.revoked: list[str] = []
        self.secrets: list[str] = []
        #: Refresh tokens that were spent by a request whose reply was lost.
        self.lost: set[str] = set()
        self._faults: dict[str, deque[EscapeHubError | str]] = defaultdict(deque)
        self._numbers = count(1)
        self._sign_ins: dict[str, SignIn] = {}  # by refresh token
        self._access: dict[str, tuple[SignIn, AccessToken, str]] = {}
        self._presented: Counter[str] = Counter()

    # -- for tests ---------------------------------------------------------------------------

    def sign_in(self, subject: str, *, offline: bool = True) -> TokenReply:
        """What the code grant gives after a login."""
        sign_in = SignIn(subject)
        return self._reply(sign_in, offline)

    def fail(self, stage: str, *faults: EscapeHubError | str) -> None:
        """Have the next calls of ``stage`` fail: an error to raise, or `LOST`."""
        self._faults[stage].extend(faults)

    def is_good(self, token: str, audience: str = "") -> bool:
        """Whether a service would accept the access token now."""
        found = self._access.get(token)
        if found is None:
            return False
        sign_in, access, aud = found
        return sign_in.alive and aud == audience and access.is_valid(self.clock.now())

    def is_current(self, refresh_token: str | None) -> bool:
        """Whether the refresh token would be accepted."""
        sign_in = self._sign_ins.get(refresh_token or "")
        return sign_in is not None and sign_in.alive and refresh_token not in sign_in.spent

    def end_sign_in(self, refresh_token: str) -> None:
        """The issuer's own logout: everything of that login is dead."""
        self._sign_ins[refresh_token].alive = False

    # -- for the broker ----------------------------------------------------------------------

    async def refresh(self, refresh_token: str) -> TokenReply:
        """The refresh grant."""
        self._presented[refresh_token] += 1
        if self._presented[refresh_token] > 1:
            self.presented_at_once += 1
        try:
            return await self._request("refresh", lambda: self._refresh(refresh_token))
        except IssuerUnavailableError as error:
            if error.code == LOST:
                self.lost.add(refresh_token)
            raise
        finally:
            self._presented[refresh_token] -= 1

    def _refresh(self, refresh_token: str) -> TokenReply:
        sign_in = self._sign_ins.get(refresh_token)
        if sign_in is not None and refresh_token in sign_in.spent and self.reuse_kills:
            sign_in.alive = False
        if sign_in is None or not sign_in.alive or refresh_token in sign_in.spent:
            raise LoginRequiredError("sign in again", code="refresh-refused")
        return self._reply(sign_in, True)

    async def exchange(
        self, subject_token: str, audience: Audience, *, subject_fresh: bool = True
    ) -> AccessToken:
        """The exchange grant for one audience."""

        def answer() -> AccessToken:
            if (error := self.refuse.get(audience.name)) is not None:
                raise error
            found = self._access.get(subject_token)
            if found is None or not self.is_good(subject_token):
                raise self._subject_refused(subject_fresh)
            return self._issue(found[0], audience.audience, self.exchange_lifetime)

        return await self._request("exchange", answer)

    def _subject_refused(self, fresh: bool) -> EscapeHubError:
        code = "exchange-subject-refused"
        if fresh:
            return IssuerMisconfiguredError("refused", code=code, oauth_error="invalid_request")
        return unavailable(code, oauth_error="invalid_request")

    async def userinfo(self, access_token: str, *, subject: str | None = None) -> dict[str, Any]:
        """The person's claims as they are now."""

        def answer() -> dict[str, Any]:
            found = self._access.get(access_token)
            if found is None or not self.is_good(access_token):
                raise LoginRequiredError("refused", code="userinfo-refused")
            if subject is not None and found[0].subject != subject:
                raise InvalidTokenError("another person", code="userinfo-sub")
            return {"sub": found[0].subject, **self.claims.get(found[0].subject, {})}

        return await self._request("userinfo", answer)

    async def verify_id_token(
        self,
        token: str,
        *,
        nonce: str | None,
        audience: str | None = None,
        same_as: tuple[str, str] | None = None,
    ) -> dict[str, Any]:
        """The id_token is the subject in plain text here."""
        subject = token.removeprefix("id-token-of-")
        if same_as is not None and same_as != (ISSUER, subject):
            raise InvalidTokenError("of another person", code="id-token-identity")
        return {"iss": ISSUER, "sub": subject, "exp": 0, "from_id_token": True}

    async def revoke(self, token: str, hint: str = "refresh_token") -> bool:
        """End the whole sign-in, as Keycloak does."""

        def answer() -> bool:
            self.revoked.append(token)
            if (sign_in := self._sign_ins.get(token)) is not None:
                sign_in.alive = False
            return True

        return await self._request("revoke", answer)

    # -- inside ------------------------------------------------------------------------------

    async def _request(self, stage: str, answer: Any) -> Any:
        self.calls[stage] += 1
        self.times.append(self.clock.now())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._answer(stage, answer)
        finally:
            self.in_flight -= 1

    async def _answer(self, stage: str, answer: Any) -> Any:
        fault = self._faults[stage].popleft() if self._faults[stage] else None
        if self.hang:
            await self.clock.sleep(self.timeout)
            raise unavailable("issuer-timeout", maybe_processed=True)
        if self.latency:
            await self.clock.sleep(self.latency)
        else:
            await asyncio.sleep(0)
        if self.down:
            raise unavailable()
        if isinstance(fault, EscapeHubError):
            raise fault
        try:
            result = answer()
        except EscapeHubError:
            self.refused[stage] += 1
            raise
        self.granted[stage] += 1
        if fault == LOST:
            raise unavailable(LOST, maybe_processed=True)
        return result

    def _reply(self, sign_in: SignIn, offline: bool) -> TokenReply:
        refresh_token = sign_in.current
        if offline and (refresh_token is None or self.rotation):
            if refresh_token is not None:
                sign_in.spent.add(refresh_token)
            refresh_token = sign_in.current = self._secret("refresh")
            self._sign_ins[refresh_token] = sign_in
        access = self._issue(sign_in, "", self.lifetime)
        id_token = f"id-token-of-{sign_in.subject}" if self.with_id_token else None
        return TokenReply(access, refresh_token, id_token, ("openid", "offline_access"))

    def _issue(self, sign_in: SignIn, audience: str, lifetime: float | None) -> AccessToken:
        now = self.clock.now()
        life = self.lifetime if lifetime is None else lifetime
        token = AccessToken(self._secret("access"), now + life, now)
        self._access[token.value] = (sign_in, token, audience)
        return token

    def _secret(self, kind: str) -> str:
        secret = f"secret-{kind}-{next(self._numbers)}"
        self.secrets.append(secret)
        return secret

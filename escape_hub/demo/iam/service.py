"""The development IAM as one object that all handlers share."""

from __future__ import annotations

import dataclasses
import secrets
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from escape_hub.demo.iam import faults as fault_table
from escape_hub.demo.iam import hostile
from escape_hub.demo.iam.config import IamConfig
from escape_hub.demo.iam.counters import Counters, Issued
from escape_hub.demo.iam.dialects import DIALECTS, Dialect
from escape_hub.demo.iam.faults import Fault
from escape_hub.demo.iam.state import Grant, Session, SigningKey, digest, load_state
from escape_hub.demo.iam.tokens import Signer, access_claims

_NAMESPACE = uuid.UUID("6b2f9c1e-0c64-4f0e-9d61-0d6a3d0f5a11")


@dataclass(frozen=True, slots=True)
class User:
    """A user as things stand now, with the control API's overrides laid over."""

    login: str
    password: str = dataclasses.field(repr=False)
    sub: str
    name: str
    email: str
    groups: tuple[str, ...]
    claims: dict[str, Any] = dataclasses.field(default_factory=dict)


@dataclass(slots=True)
class Code:
    """An authorization code that was given out (RFC 6749 section 4.1.2).

    ``grant_id`` is set once it was redeemed: a second use ends that grant.
    """

    user: str
    client: str
    redirect_uri: str
    scope: list[str]
    nonce: str
    challenge: str
    sid: str
    auth_time: int
    expires_at: float
    tried: bool = False
    grant_id: str = ""


class Iam:
    """Users, tokens and faults of one development IAM. ``now`` gives seconds since the epoch."""

    def __init__(
        self, config: IamConfig, now: Callable[[], float], key: SigningKey | None = None
    ) -> None:
        self.config = config
        self.now = now
        self.state = load_state(config.state_file, now(), key)
        self.signer = Signer(self.state)
        self.faults = fault_table.initial(config)
        self.counters = Counters()
        self.issued = Issued()
        self.codes: dict[str, Code] = {}

    @property
    def dialect(self) -> Dialect:
        """The words of the present refusals."""
        return DIALECTS[self.faults.dialect]

    # -- users and sessions ---------------------------------------------------

    def user(self, login: str) -> User | None:
        """The user of that login name, or None."""
        base = self.config.users.get(login)
        over = dict(self.faults.users.get(login, {}))
        if base is None and "password" not in over:
            return None
        given = {} if base is None else dataclasses.asdict(base)
        given |= over
        return User(
            login,
            str(given["password"]),
            given.get("sub") or str(uuid.uuid5(_NAMESPACE, login)),
            given.get("name") or login.capitalize(),
            given.get("email") or f"{login}@example.org",
            tuple(given.get("groups", ())),
            dict(given.get("claims") or {}),
        )

    def open_session(self, login: str) -> str:
        """Sign a browser in; the cookie's value."""
        cookie = self.issued.add("session_cookies", secrets.token_urlsafe(32))
        now = self.now()
        self.state.sessions[digest(cookie)] = Session(
            login, uuid.uuid4().hex, int(now), now + self.config.session_lifetime
        )
        self.state.prune(now)
        self.state.save()
        return cookie

    def session(self, cookie: str | None) -> Session | None:
        """The living session of a cookie."""
        found = self.state.sessions.get(digest(cookie)) if cookie else None
        if found is None or found.expires_at <= self.now() or self.user(found.user) is None:
            return None
        return None if found.user in self.faults.suspended else found

    def sign_aup(self, login: str) -> None:
        """The user has signed the acceptable use policy."""
        left = tuple(name for name in self.faults.aup_unsigned if name != login)
        self.faults = dataclasses.replace(self.faults, aup_unsigned=left)

    def close_session(self, cookie: str) -> None:
        """Sign a browser out. Refresh tokens are offline tokens: they survive it."""
        if self.state.sessions.pop(digest(cookie), None) is not None:
            self.state.save()

    def end_sessions_of_sid(self, sid: str) -> str | None:
        """Sign out the browser session of that ``sid``; its user, if there was one."""
        for key, session in self.state.sessions.items():
            if session.sid == sid:
                del self.state.sessions[key]
                self.state.save()
                return session.user
        return None

    def newest_sid(self, login: str) -> str:
        """The ``sid`` of the user's last login with a living grant; empty without one."""
        mine = [g for g in self.state.grants.values() if g.user == login]
        return max(mine, key=lambda g: g.auth_time).sid if mine else ""

    def revoke_user(self, login: str) -> int:
        """End all grants and browser sessions of a user; how many there were."""
        grants = [k for k, g in self.state.grants.items() if g.user == login]
        sessions = [k for k, s in self.state.sessions.items() if s.user == login]
        for key in grants:
            del self.state.grants[key]
        for key in sessions:
            del self.state.sessions[key]
        self.codes = {k: c for k, c in self.codes.items() if c.user != login}
        self.state.save()
        return len(grants) + len(sessions)

    # -- tokens ---------------------------------------------------------------

    def new_code(self, code: Code) -> str:
        """Give out an authorization code."""
        now = self.now()
        self.codes = {k: c for k, c in self.codes.items() if c.expires_at > now}
        value = self.issued.add("codes", secrets.token_urlsafe(24))
        self.codes[digest(value)] = code
        return value

    def new_grant(self, *, user: str, client: str, scope: list[str], sid: str, at: int) -> Grant:
        """A login of a client, from which all its tokens come."""
        grant = Grant(secrets.token_hex(8), user, client, scope, sid, at, self.now())
        self.state.grants[grant.id] = grant
        return grant

    def end_grant(self, grant_id: str) -> None:
        """All tokens of that login are dead from now on."""
        if self.state.grants.pop(grant_id, None) is not None:
            self.state.save()

    def new_refresh_token(self, grant: Grant) -> str:
        """A fresh refresh token; the grant's former one is spent. The caller saves."""
        token = self.issued.add("refresh_tokens", secrets.token_urlsafe(40))
        expires_at = self.now() + self.faults.refresh_token_lifetime
        self.state.rotate(grant, token, expires_at)
        return token

    def access_token(
        self,
        grant: Grant,
        scope: list[str],
        *,
        client: str = "",
        audience: str = "",
        act: dict[str, Any] | None = None,
    ) -> tuple[str, int]:
        """A signed access token and its life in seconds; for the grant's client by default."""
        user = self.user(grant.user)
        assert user is not None  # noqa: S101 (whoever calls has looked)
        lifetime = self.faults.access_token_lifetime
        claims = access_claims(
            issuer=self.config.issuer_url,
            sub=user.sub,
            client=client or grant.client,
            scope=scope,
            grant_id=grant.id,
            now=self.now(),
            lifetime=lifetime,
            audience=audience,
            act=act,
        )
        if claims["exp"] > grant.expires_at:
            grant.expires_at = claims["exp"]
            self.state.save()
        draft = self.signer.draft(claims)
        if act:
            draft = hostile.mutate(draft, self.faults.hostile.get("exchanged_token"))
        return self.issued.add("access_tokens", self._sign(draft, grant.client)), lifetime

    def id_token(self, grant: Grant, *, nonce: str, refreshed: bool = False) -> str | None:
        """An id_token (OpenID Connect Core section 2); after a refresh it carries no nonce.

        None when the faults say that it is to be left out.
        """
        user = self.user(grant.user)
        assert user is not None  # noqa: S101 (whoever calls has looked)
        now = int(self.now())
        claims: dict[str, Any] = {
            "iss": self.config.issuer_url,
            "sub": user.sub,
            "aud": grant.client,
            "iat": now,
            "exp": now + self.config.id_token_lifetime,
            "auth_time": grant.auth_time,
            "jti": uuid.uuid4().hex,
            "sid": grant.sid,
        } | self.person_claims(user, grant.scope)
        if nonce:
            claims["nonce"] = nonce
        names = self.faults.hostile.get("refresh_id_token" if refreshed else "id_token")
        if names == "absent":
            return None
        draft = hostile.mutate(self.signer.draft(claims), names)
        return self.issued.add("id_tokens", self._sign(draft, grant.client))

    def _sign(self, draft: hostile.Draft, client: str) -> str:
        return self.signer.sign(draft, client_secret=self.config.clients[client].secret)

    def person_claims(self, user: User, scope: list[str]) -> dict[str, Any]:
        """Claims about the person that the scope allows; groups come with ``profile``."""
        claims: dict[str, Any] = {}
        if "profile" in scope:
            claims |= {"preferred_username": user.login, "name": user.name}
            claims[self.config.groups_claim] = list(user.groups)
            claims |= user.claims
        if "email" in scope:
            claims |= {"email": user.email, "email_verified": True}
        return claims

    def living(self, token: str) -> tuple[dict[str, Any], Grant, User] | None:
        """Claims, grant and user of an access token of ours that is still good, else None."""
        claims = self.signer.read(token) or {}
        # The jti of an id_token names no grant: it does not pass for an access token.
        jti = str(claims.get("jti", ""))
        grant = self.state.grants.get(jti.partition(".")[0])
        # A hostile token of ours may lack anything.
        if grant is None or jti in self.state.revoked or claims.get("exp", 0) <= self.now():
            return None
        user = self.user(grant.user)
        if user is None or user.login in self.faults.suspended or user.sub != claims.get("sub"):
            return None
        return claims, grant, user

    def rotate_keys(self, *, keep_old: bool) -> None:
        """Sign with a new key from now on; without the old one, all its tokens are void."""
        old = self.state.keys if keep_old else []
        # In place: the signer looks at the same list.
        self.state.keys[:] = [*old, SigningKey.new()][-3:]
        self.state.save()

    # -- faults ---------------------------------------------------------------

    def strike(self, endpoint: str, grant: str = "") -> Fault | None:
        """The fault that hits this request, if any; counts it down where it is limited."""
        fault: Fault = getattr(self.faults, endpoint)
        if not fault.applies(grant):
            return None
        changes: dict[str, Any] = {endpoint: fault.used()}
        self.faults = dataclasses.replace(self.faults, **changes)
        return fault

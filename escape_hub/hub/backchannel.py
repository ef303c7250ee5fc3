"""The issuer tells us that somebody signed out there (OpenID Connect Back-Channel Logout 1.0).

Anybody can post to the endpoint, so nothing is believed that the issuer did not sign for
this client a moment ago, and nothing twice. It answers once the token is checked; the
work follows, for at the issuer a person waits.

What ends is the person's sign-in: their browsers' cookies, the stored tokens, the
refresh token at the issuer (an offline token survives a logout there, section 2.7), and
the files of running sessions, within one poll. Kernels go on, unless
``JupyterHub.shutdown_on_logout`` says that a logout ends them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import sqlalchemy as sa
from jupyterhub import orm
from jupyterhub.utils import new_token

from escape_hub.core.auth_state import AuthState, ForeignAuthStateError, NeedsLogin
from escape_hub.core.oidc import LOGOUT_WINDOW
from escape_hub.core.replay import ReplayCache
from escape_hub.errors import EscapeHubError, InvalidTokenError, IssuerError, IssuerUnavailableError
from escape_hub.hub.handlers import EscapeAPIHandler
from escape_hub.hub.tasks import Tasks

#: Seconds that the check of a token may take. Keycloak gives up after 5.
PATIENCE = 4.0
#: Seconds that the hub's end waits for logouts under way.
LAST_PATIENCE = 10.0

Stop = Callable[[Any, str], Awaitable[Any]]
log = logging.getLogger(__name__)


class BackchannelLogout:
    """Checks logout_tokens and ends sign-ins; one for the whole hub."""

    def __init__(self, authenticator: Any, runtime: Any, app: Any) -> None:
        self._authenticator, self._runtime, self._app = authenticator, runtime, app
        self._seen = ReplayCache()
        self._tasks = Tasks()

    async def check(self, token: str) -> dict[str, Any]:
        """The claims of a logout_token that is good and new.

        `InvalidTokenError` for any other, `IssuerError` when the issuer's keys cannot be had.
        """
        issuer = self._authenticator.issuer_client
        claims: dict[str, Any] = await issuer.verify_logout_token(token)
        until = claims["iat"] + LOGOUT_WINDOW + issuer.settings.clock_skew
        now = self._authenticator.clock.now()
        if not self._seen.is_new(claims["jti"], now=now, valid_until=until):
            raise InvalidTokenError("logout_token: it came before", code="logout-token-replay")
        return claims

    def begin(self, claims: Mapping[str, Any], stop: Stop | None) -> None:
        """End the sign-in that ``claims`` mean, behind the caller's back.

        ``stop(user, server name)`` stops one server; None leaves all running.
        """
        self._tasks.spawn(self._end(claims, stop))

    async def finish(self, seconds: float = LAST_PATIENCE) -> None:
        """Wait for all that began, ``seconds`` at most."""
        await self._tasks.finish(self._authenticator.clock, seconds)

    async def _end(self, claims: Mapping[str, Any], stop: Stop | None) -> None:
        names = await self._people(claims["iss"], claims.get("sub"), claims.get("sid"))
        if not names:
            log.info("A back-channel logout is of nobody who has signed in here")
        for name in names:
            reference = await self._end_one(name, claims, stop)
            self._runtime.audit.record("logout", name, "ok", reference=reference)

    async def _people(self, issuer: str, sub: str | None, sid: str | None) -> list[str]:
        """Hub user names; the slow way when the token has no ``sub``, or the user was renamed."""
        name = self._runtime.identities.name_of(issuer, sub) if sub else None
        if name is not None and orm.User.find(self._app.db, name) is not None:
            return [name]

        def is_meant(state: AuthState) -> bool:
            mine = state.subject == sub if sub else state.sid == sid
            return state.issuer == issuer and mine

        return await self._names(is_meant)

    async def _names(self, is_meant: Callable[[AuthState], bool]) -> list[str]:
        """Looks at everybody's stored state, a fraction of a millisecond each."""
        rows = self._app.db.execute(
            sa.select(orm.User.name).where(orm.User.encrypted_auth_state.is_not(None))
        )
        found = []
        for name in rows.scalars().all():
            state = await self._state(name)
            if state is not None and is_meant(state):
                found.append(name)
        return found

    async def _end_one(self, name: str, claims: Mapping[str, Any], stop: Stop | None) -> str:
        """Returns the reference for the audit: how far the logout went."""
        state, sid = await self._state(name), claims.get("sid")
        skew = self._authenticator.issuer_settings.clock_skew
        if state is not None and state.login_at > claims["iat"] + skew:
            return "back-channel-newer-login"
        if self._runtime.left_with_access(name, sid):
            return "back-channel-own-logout"
        row = orm.User.find(self._app.db, name)
        if row is None:
            return "back-channel-no-user"
        user = self._app.users[row]
        self._end_browsers(user)
        if state is not None and state.sid and sid and state.sid != sid:
            # Ours come from a session of the issuer that goes on. Which browser belongs to
            # the one that ended the hub cannot tell: it has one cookie value a user.
            return "back-channel-other-session"
        now = self._authenticator.clock.now()
        message = f"you signed out at {self._authenticator.login_service}"
        await self._runtime.end(name, NeedsLogin("logged-out-at-issuer", message, now, wipe=True))
        if stop is not None:
            for server, spawner in list(user.spawners.items()):
                if spawner.active and not spawner.pending:
                    await stop(user, server)
        return "back-channel"

    async def _state(self, name: str) -> AuthState | None:
        try:
            found: AuthState | None = await self._runtime.store.load(name)
        except ForeignAuthStateError:
            return None
        return found

    def _end_browsers(self, user: Any) -> None:
        """End every cookie of the user: the hub's, and those of servers and services.

        A server asks the hub about a cookie it knows at most every five minutes.
        """
        db, row = self._app.db, user.orm_user
        row.cookie_id = new_token()
        # A browser's tokens have its session; API tokens and those of servers have none.
        for kind in (orm.APIToken, orm.OAuthCode):
            mine = db.query(kind).filter(kind.user_id == row.id, kind.session_id.is_not(None))
            for found in mine:
                db.delete(found)
        db.commit()


def routes(authenticator: Any) -> list[tuple[str, type[EscapeAPIHandler]]]:
    """The endpoint below ``/hub/``, where it is not switched off."""
    if not authenticator.backchannel_logout:
        return []
    return [(r"/escape/backchannel_logout", BackchannelLogoutHandler)]


class BackchannelLogoutHandler(EscapeAPIHandler):
    """``POST /hub/escape/backchannel_logout`` with ``logout_token`` in a form (section 2.5)."""

    _accept_cookie_auth = False
    _accept_token_auth = False

    def check_xsrf_cookie(self) -> None:
        """The issuer has no cookie of ours; the token's signature is what counts."""

    async def post(self) -> None:
        runtime = self.authenticator.runtime
        limit, address = runtime.limits["backchannel"], self.request.remote_ip
        # What is refused counts, and nothing else: an administrator of the issuer may well
        # end a thousand sessions at once.
        if (wait := limit.room_in(address)) > 0:
            self._count("rate_limited")
            self.set_header("Retry-After", str(math.ceil(wait)))
            self._refuse(429, "slow_down", "too many logout_tokens that are no good")
            return
        try:
            claims = await self._claims()
        except EscapeHubError as error:
            limit.charge(address)
            is_ours = isinstance(error, IssuerError)
            self._count("unavailable" if is_ours else "refused")
            self.log.warning("Back-channel logout refused [%s]: %s", error.code, error.message)
            # 400 as well when the keys cannot be had: section 2.8 knows no other failure.
            what = "temporarily_unavailable" if is_ours else "invalid_request"
            self._refuse(400, what, error.message if not is_ours else "try again later")
            return
        stops = self.settings.get("shutdown_on_logout", False)
        runtime.backchannel.begin(claims, self.stop_single_user if stops else None)
        self._count("ok")
        self.finish()

    async def _claims(self) -> dict[str, Any]:
        found = self.request.body_arguments.get("logout_token", [])
        if len(found) != 1 or not found[0].isascii():
            raise InvalidTokenError(
                "the form must hold one logout_token", code="logout-token-missing"
            )
        checking = self.authenticator.runtime.backchannel.check(found[0].decode("ascii"))
        try:
            claims: dict[str, Any] = await asyncio.wait_for(checking, PATIENCE)
        except TimeoutError:
            raise IssuerUnavailableError(
                "the identity service does not give its keys in time", code="issuer-timeout"
            ) from None
        return claims

    def _count(self, outcome: str) -> None:
        self.authenticator.runtime.metrics.backchannel_logouts.labels(outcome).inc()

    def _refuse(self, status: int, error: str, description: str) -> None:
        self.set_status(status)
        self.finish(json.dumps({"error": error, "error_description": description}))

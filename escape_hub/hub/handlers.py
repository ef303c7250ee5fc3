"""What sessions and the hub's pages ask the hub for: tokens, status, renew now.

``GET  /hub/api/escape/tokens``  a server's own API token, for its owner's access tokens
``GET  /hub/api/escape/status``  the person's own cookie; never a token in the reply
``POST /hub/api/escape/renew``   the same, with XSRF: renew now

Identity comes from the caller's own token or cookie, never from a path or parameter.
"""

from __future__ import annotations

import json
import math
from typing import Any

from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.user import User
from jupyterhub.utils import url_path_join
from tornado import web
from tornado.httputil import url_concat

from escape_hub.core.auth_state import AuthState, ForeignAuthStateError, NeedsLogin
from escape_hub.errors import EscapeHubError
from escape_hub.hub.replies import status_reply, tokens_reply
from escape_hub.hub.startup import TOKEN_SCOPE

#: Largest ``min_valid_period``, in seconds.
LONGEST = 86_400.0
#: Seconds a session's request waits for the issuer; its agent gives up later than that.
PATIENCE = 10.0
_UNKNOWN = NeedsLogin("no-sign-in", "no sign-in of yours is stored: sign in again", 0.0)


class RefusedError(Exception):
    """The request gets ``status`` and a JSON reason."""

    def __init__(self, status: int, reason: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status, self.reason, self.message, self.more = status, reason, message, more


class EscapeAPIHandler(APIHandler):
    """JSON in and out, refusals with a reason, and no refresh on the way to the handler."""

    async def refresh_auth(self, user: Any, force: bool = False) -> Any:
        # These handlers look at what is stored themselves. On JupyterHub 5 a refresh that
        # says "log in" would end the request with a bare 403 before they could.
        return user

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")

    async def _state(self, username: str) -> AuthState | None:
        """What is known of the person now; None when no sign-in of theirs is stored."""
        try:
            found: AuthState = await self.authenticator.broker.state(username)
        except (ForeignAuthStateError, LookupError):
            return None
        return found

    async def _renewed(self, username: str, **wish: Any) -> AuthState | None:
        """The state after a renewal, or after `PATIENCE` what there is by then."""
        broker = self.authenticator.broker
        try:
            found: AuthState = await broker.renew(username, patience=PATIENCE, **wish)
        except (ForeignAuthStateError, LookupError):
            return None
        return found

    def refuse(self, refused: RefusedError) -> None:
        """Answer with the refusal of the contract."""
        self.set_status(refused.status)
        body = {
            "reason": refused.reason,
            "message": refused.message,
            "reference": refused.more.get("reference", refused.reason),
            "wipe": refused.more.get("wipe", False),
            "next_poll": refused.more.get("next_poll", 60.0),
        }
        if (wait := refused.more.get("retry_after")) is not None:
            self.set_header("Retry-After", str(math.ceil(wait)))
        self.finish(json.dumps(body))

    def limit(self, key: str, bucket: str) -> None:
        """Raise 429 when ``key`` asks more often than it should."""
        wait = self.authenticator.runtime.limits[bucket].wait(key)
        if wait > 0:
            raise RefusedError(
                429,
                "rate_limited",
                "too many requests",
                retry_after=wait,
                next_poll=math.ceil(wait),
            )


class TokensHandler(EscapeAPIHandler):
    """Access tokens for the server that asks, as long as its owner is signed in."""

    # A browser's cookie must never lead here: pages cannot need a token.
    _accept_cookie_auth = False

    async def get(self) -> None:
        try:
            user = self._owner()
            period = self._min_valid_period()
            self.finish(json.dumps(await self._tokens(user.name, period)))
        except RefusedError as refused:
            self._answer_with(refused)
        except EscapeHubError as error:
            self.log.error("No tokens for a session: %s", error.message)
            self._answer_with(
                RefusedError(503, "unavailable", error.message, reference=error.code, next_poll=15)
            )
        else:
            self._count("ok")

    def _answer_with(self, refused: RefusedError) -> None:
        self._count(refused.reason)
        self.refuse(refused)

    def _count(self, outcome: str) -> None:
        self.authenticator.runtime.metrics.publish.labels("endpoint", outcome).inc()

    def _owner(self) -> Any:
        """The user whose running server asks with its own token; `RefusedError` otherwise."""
        token, user = self.get_token(), self.current_user
        if token is None or user is None:
            if self.get_cookie(self.hub.cookie_name):
                raise RefusedError(403, "forbidden", "only a server's own API token, no cookie")
            raise RefusedError(401, "unauthorized", "no valid API token of a server")
        if not isinstance(user, User):
            raise RefusedError(403, "forbidden", "a service has no tokens of its own")
        self.limit(token.hashed, "tokens")
        server = self.authenticator.runtime.server_tokens.server_of(token, user.name)
        if server is None:
            raise RefusedError(403, "forbidden", "this API token is not a server's own")
        if not self.has_scope(f"{TOKEN_SCOPE}!user={user.name}"):
            raise RefusedError(403, "forbidden", f"the token lacks the scope {TOKEN_SCOPE}!user")
        spawner = user.spawners.get(server)
        if spawner is None or not spawner.active:
            raise RefusedError(403, "forbidden", "that server does not run")
        return user

    def _min_valid_period(self) -> float:
        raw = self.get_query_argument("min_valid_period", "0")
        try:
            value = float(raw)
        except ValueError:
            value = -1.0
        if not 0 <= value <= LONGEST:
            raise RefusedError(
                400, "invalid", f"min_valid_period must be 0 to {LONGEST:.0f} seconds"
            )
        return value

    async def _tokens(self, username: str, period: float) -> dict[str, Any]:
        authenticator = self.authenticator
        authenticator.renewal.fetched(username)
        state = await self._renewed(username, min_valid_period=period)
        if state is None or state.needs_login is not None:
            told = (state.needs_login if state else None) or _UNKNOWN
            raise RefusedError(
                409, "needs_login", told.message, reference=told.code, wipe=told.wipe, next_poll=15
            )
        now, broker = authenticator.clock.now(), authenticator.broker
        sessions = authenticator.runtime.session_count()
        poll = broker.next_poll(username, state, now, sessions=sessions)
        return tokens_reply(broker.status(state, now), state, now, poll)


class StatusHandler(EscapeAPIHandler):
    """How the person's own access stands, in words for people."""

    _accept_token_auth = False

    async def get(self) -> None:
        self._write_status(await self._state(self._person().name))

    def _person(self) -> Any:
        user = self.current_user
        if not isinstance(user, User):
            raise web.HTTPError(403)
        return user

    def _write_status(self, state: AuthState | None) -> None:
        authenticator = self.authenticator
        now = authenticator.clock.now()
        # Somebody without a stored sign-in reads the same words as one whose sign-in ended.
        state = state or AuthState("", "", needs_login=_UNKNOWN)
        home = url_path_join(self.hub.base_url, "home")
        login_url = url_concat(authenticator.login_url(self.hub.base_url), {"next": home})
        self.finish(json.dumps(status_reply(authenticator.broker.status(state, now), login_url)))


class RenewHandler(StatusHandler):
    """The button "renew now"."""

    async def get(self) -> None:
        raise web.HTTPError(405)

    async def post(self) -> None:
        user = self._person()
        try:
            self.limit(user.name, "renew")
        except RefusedError as refused:
            self.refuse(refused)
            return
        self._write_status(await self._renewed(user.name, force=True))


def api_handlers() -> list[tuple[str, type[EscapeAPIHandler]]]:
    """Routes below ``/hub/``."""
    return [
        (r"/api/escape/tokens", TokensHandler),
        (r"/api/escape/status", StatusHandler),
        (r"/api/escape/renew", RenewHandler),
    ]

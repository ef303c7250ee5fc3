"""Logging out: of the hub always, of the sessions' tokens when nobody needs them, of the issuer.

With ``JupyterHub.shutdown_on_logout`` the person's servers stop, the refresh token
is revoked and what is stored is cleared; so it is without it when no server runs.
Servers that go on running keep their access, and it is renewed up to
``max_session_age``: then nothing is revoked and nothing cleared.

The way to the issuer's logout and back is OpenID Connect RP-Initiated Logout 1.0. All is
over here before the browser leaves, so nothing depends on its coming back; ``state``
tells whether it comes back from a logout that this browser began.
"""

from __future__ import annotations

import asyncio
import secrets
from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from jupyterhub.handlers import LogoutHandler
from jupyterhub.utils import url_path_join

from escape_hub.core.auth_state import AuthState, NeedsLogin
from escape_hub.core.oidc import same_secret
from escape_hub.errors import EscapeHubError
from escape_hub.hub.login import callback_url
from escape_hub.hub.refusal_pages import Refusal, RefusingHandler

LOGOUT_TEMPLATE = "escape_logout.html"
STATE_COOKIE = "escape-logout-state"
#: Seconds a person may take at the issuer's logout.
STATE_LIFETIME = 3600
#: Seconds a logout waits to learn where the issuer's own is.
ISSUER_PATIENCE = 5.0


class EscapeLogoutHandler(LogoutHandler):
    """``GET /hub/logout``."""

    _issuer_logout: str | None = None
    _state: str = ""

    async def refresh_auth(self, user: Any, force: bool = False) -> Any:
        # Who leaves needs no renewal first.
        return user

    async def handle_logout(self) -> None:
        """After upstream stopped the servers (if it does) and cleared the cookies."""
        user = self.current_user
        if user is None:
            return
        runtime = self.authenticator.runtime
        state = await self._stored(user.name)
        if state is not None and self.authenticator.logout_at_issuer:
            self._issuer_logout = await self._issuer_logout_url(state)
        if self.shutdown_on_logout or not runtime.has_session(user):
            reason = NeedsLogin(
                "logged-out", "you signed out", self.authenticator.clock.now(), wipe=True
            )
            await runtime.end(user.name, reason)
        elif state is not None and self._issuer_logout is not None:
            runtime.leaves_with_access(user.name, state.sid)
        runtime.audit.record("logout", user.name, "ok")

    async def render_logout_page(self) -> None:
        """On to the issuer's logout if it has one, else upstream's way."""
        if self._issuer_logout is None:
            if self.authenticator.logout_redirect_url:
                self.redirect(self.authenticator.logout_redirect_url)
            else:
                await super().render_logout_page()
            return
        self.set_header("Cache-Control", "no-store")
        self._set_cookie(
            STATE_COOKIE,
            self._state,
            encrypted=False,
            path=_cookie_path(self),
            max_age=STATE_LIFETIME,
            # The way back is a navigation from the issuer's site: Strict would lose it.
            samesite="Lax",
        )
        if self.authenticator.logout_method == "get":
            # 303, for the hub logs where a 302 leads to, and the id_token with it.
            self.redirect(self._issuer_logout, status=303)
            return
        # A form, for the id_token that goes with it must not stand in an address.
        parts = urlsplit(self._issuer_logout)
        html = await self.render_template(
            LOGOUT_TEMPLATE,
            action=urlunsplit(parts._replace(query="")),
            fields=dict(parse_qsl(parts.query)),
            login_service=self.authenticator.login_service,
        )
        self.finish(html)  # JupyterHub's is no coroutine

    async def _stored(self, username: str) -> AuthState | None:
        try:
            found: AuthState | None = await self.authenticator.runtime.store.load(username)
        except EscapeHubError:
            return None
        return found

    async def _issuer_logout_url(self, state: AuthState) -> str | None:
        """RP-Initiated Logout 1.0 section 2; None where the issuer has no such, or is away."""
        self._state = secrets.token_urlsafe(32)
        try:
            asking = self.authenticator.issuer_client.end_session_url(
                state.id_token,
                post_logout_redirect_uri=self._after_logout(),
                state=self._state,
            )
            url: str | None = await asyncio.wait_for(asking, ISSUER_PATIENCE)
        except TimeoutError:
            self.log.warning("No logout at the issuer: it does not answer")
            return None
        except EscapeHubError as error:
            self.log.warning("No logout at the issuer: %s", error.message)
            return None
        return url

    def _after_logout(self) -> str:
        """Where the issuer sends the browser back to: our own page, as an absolute address."""
        here = urlsplit(callback_url(self))
        path = url_path_join(self.hub.base_url, "escape/signed_out")
        return urlunsplit(here._replace(path=path, query=""))


class SignedOutHandler(RefusingHandler):
    """``GET /hub/escape/signed_out?state=...``: back from the issuer's logout."""

    async def get(self) -> None:
        expected = self.get_cookie(STATE_COOKIE)
        self.clear_cookie(STATE_COOKIE, path=_cookie_path(self))
        came = self.request.query_arguments.get("state", [])
        if len(came) != 1 or not same_secret(expected, came[0].decode("utf-8", "replace")):
            await self._doubt()
        elif target := self.authenticator.logout_redirect_url:
            self.redirect(target)
        elif self.authenticator.auto_login:
            # The login page would sign them in again.
            self.finish(await self.render_template("logout.html"))
        else:
            self.redirect(self.settings["login_url"])

    async def _doubt(self) -> None:
        """Nothing happens here whoever sent the browser; the person is told what is known."""
        reference = f"logout-state-{secrets.token_hex(3)}"
        self.log.warning("A way back from a logout without its state, reference %s", reference)
        service = self.authenticator.login_service
        found = Refusal(
            400,
            "Are you signed out?",
            f"This page was not reached from a logout of this browser, or {service} did not "
            f"send back what belongs to it. It does not show whether you are signed out.",
            "Sign out again, or close the browser, if other people use it.",
            reference,
            self.settings["login_url"],
        )
        await self.show(found)


def _cookie_path(handler: Any) -> str:
    return str(url_path_join(handler.hub.base_url, "escape/signed_out"))

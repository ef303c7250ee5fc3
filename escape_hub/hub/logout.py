"""Logging out: of the hub always, of the sessions' tokens when nobody needs them, of the issuer.

With ``JupyterHub.shutdown_on_logout`` the person's servers stop, the refresh token
is revoked and what is stored is cleared; so it is without it when no server runs.
Servers that go on running keep their access, and it is renewed up to
``max_session_age``: then nothing is revoked and nothing cleared.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl, urlsplit, urlunsplit

from jupyterhub.handlers import LogoutHandler
from jupyterhub.utils import url_path_join

from escape_hub.core.auth_state import AuthState, NeedsLogin
from escape_hub.errors import EscapeHubError
from escape_hub.hub.login import callback_url

LOGOUT_TEMPLATE = "escape_logout.html"


class EscapeLogoutHandler(LogoutHandler):
    """``GET /hub/logout``."""

    _issuer_logout: str | None = None

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
        runtime.audit.record("logout", user.name, "ok")

    async def render_logout_page(self) -> None:
        """On to the issuer's logout if it has one, else upstream's way."""
        if self._issuer_logout is None:
            if self.authenticator.logout_redirect_url:
                self.redirect(self.authenticator.logout_redirect_url)
            else:
                await super().render_logout_page()
            return
        # A form, for the id_token that goes with it must not stand in an address.
        parts = urlsplit(self._issuer_logout)
        self.set_header("Cache-Control", "no-store")
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
        try:
            url: str | None = await self.authenticator.issuer_client.end_session_url(
                state.id_token, post_logout_redirect_uri=self._after_logout()
            )
        except EscapeHubError as error:
            self.log.warning("No logout at the issuer: %s", error.message)
            return None
        return url

    def _after_logout(self) -> str:
        """Where the issuer sends the browser back to: an absolute address."""
        if target := self.authenticator.logout_redirect_url:
            return str(target)
        here = urlsplit(callback_url(self))
        return urlunsplit(here._replace(path=url_path_join(self.hub.base_url, "login"), query=""))

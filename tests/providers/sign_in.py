"""A sign-in at a provider, done as the hub does it: our client, the provider's own pages."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import httpx
import pytest

from escape_hub.clock import SystemClock
from escape_hub.core.audiences import Audience
from escape_hub.core.exchange import TokenReply
from escape_hub.core.oidc import check_callback_iss, code_challenge
from escape_hub.core.urls import discovery_url
from escape_hub.errors import IssuerError, LoginRequiredError
from escape_hub.hub.issuer import Issuer
from tests.providers.browser import Browser
from tests.providers.peers import Line, LogoutReceiver
from tests.providers.provider import Provider

#: pytest's ``record_property``; see `tests.providers.results.NOTES`.
Note = Callable[[str, object], None]


@dataclass
class SignIn:
    """What one sign-in brought. ``callback``: the parameters that came back, without the code."""

    user: str
    browser: Browser
    callback: dict[str, str]
    nonce: str
    reply: TokenReply

    @property
    def access_token(self) -> str:
        return self.reply.access_token.value

    @property
    def refresh_token(self) -> str:
        assert self.reply.refresh_token, "the provider gave no refresh token"
        return self.reply.refresh_token

    @property
    def id_token(self) -> str:
        assert self.reply.id_token, "the provider gave no id_token"
        return self.reply.id_token


class Stage:
    """A running provider with our client, the line between them, and the logout endpoint."""

    def __init__(
        self, provider: Provider, issuer: Issuer, line: Line, receiver: LogoutReceiver
    ) -> None:
        self.provider, self.issuer = provider, issuer
        self.line, self.receiver = line, receiver
        self._browsers: list[Browser] = []

    def close(self) -> None:
        for browser in self._browsers:
            browser.close()

    @property
    def scope(self) -> str:
        """What the hub asks for at a sign-in."""
        offline = " offline_access" if self.provider.capabilities.offline_scope else ""
        return f"openid profile email{offline}"

    def audience(self, name: str) -> Audience:
        """The audience as an operator configures it for this provider."""
        scope = self.provider.capabilities.exchange_scopes[name]
        return Audience(name, name, scope, f"{name}.token")

    async def sign_in(self, user: str = "alice", *, scope: str = "") -> SignIn:
        """Through the provider's pages; the callback's state and issuer are checked."""
        addresses = self.provider.addresses
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        url = await self.issuer.authorization_url(
            addresses.redirect_uri,
            scope or self.scope,
            state,
            nonce,
            code_challenge(verifier),
            self.provider.capabilities.login_query,
        )
        browser = Browser(self.provider.pages)
        self._browsers.append(browser)
        callback = browser.login(url, addresses.redirect_uri, user)
        assert callback["state"] == state
        check_callback_iss(await self.issuer.metadata(), callback.get("iss"))
        code = callback.pop("code")
        reply = await self.issuer.redeem_code(code, addresses.redirect_uri, verifier)
        return SignIn(user, browser, callback, nonce, reply)

    async def claims(self, sign_in: SignIn) -> dict[str, Any]:
        """Of the verified id_token."""
        return await self.issuer.verify_id_token(sign_in.id_token, nonce=sign_in.nonce)

    async def lives(self, access_token: str) -> bool:
        """Whether userinfo takes the access token."""
        try:
            await self.issuer.userinfo(access_token)
        except IssuerError as refusal:
            assert refusal.code == "userinfo-refused"
            return False
        return True

    async def assert_dead(self, refresh_token: str) -> LoginRequiredError:
        """The refresh token is refused in the way the provider is known for; the refusal."""
        with pytest.raises(LoginRequiredError) as refusal:
            await self.issuer.refresh(refresh_token)
        assert refusal.value.oauth_error == self.provider.capabilities.dead_refresh_token
        assert refresh_token not in str(refusal.value)
        return refusal.value

    def issuer_with(self, **changes: Any) -> Issuer:
        """Another client of the same provider; the caller closes it."""
        return Issuer(replace(self.issuer.settings, **changes), clock=SystemClock())

    async def published(self) -> dict[str, Any]:
        """The provider's metadata, all of it."""
        async with httpx.AsyncClient(trust_env=False) as client:
            found: dict[str, Any] = (await client.get(discovery_url(self.provider.issuer))).json()
            return found

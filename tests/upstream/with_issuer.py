"""`EscapeAuthenticator` with an issuer, where oauthenticator's tests make one without.

Their tests know endpoints and not an issuer, and mock tornado's HTTP client and not ours.
What stands between them and us is here: discovery, keys and an id_token of an issuer that
is the mocked provider for the rest; a sign-in as the hub's callback makes it; and a hub of
three attributes. Everything in between is the product's own.
"""

from __future__ import annotations

import json
import logging
import time
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import httpx
from jupyterhub import orm
from tornado.httpclient import HTTPRequest, HTTPResponse
from traitlets import default

from escape_hub.core.exchange import TYPE_ACCESS_TOKEN
from escape_hub.errors import NotAllowedError
from escape_hub.hub.authenticator import EscapeAuthenticator
from escape_hub.hub.login import LoginReply
from escape_hub.hub.login_flight import LoginFlight
from escape_hub.hub.runtime import Runtime
from tests.fakes.signing import jwk, rsa_key, signed

ISSUER = "https://generic.horse/"
METADATA = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}authorize",
    "token_endpoint": f"{ISSUER}oauth/access_token",
    "userinfo_endpoint": f"{ISSUER}oauth/userinfo",
    "jwks_uri": f"{ISSUER}jwk",
}


AUDIENCES = {"rucio": {"audience": "rucio", "scope": "openid profile"}}
EXCHANGED = {
    "access_token": "opaque",
    "token_type": "Bearer",
    "issued_token_type": TYPE_ACCESS_TOKEN,
    "expires_in": 3600,
}


def _reply(document: Any, status: int = 200) -> httpx.Response:
    return httpx.Response(status, stream=httpx.ByteStream(json.dumps(document).encode()))


class _Provider(httpx.AsyncBaseTransport):
    """The issuer: their mock of a provider, and what it lacks of OpenID Connect."""

    def __init__(self, mock: Any, client_id: str) -> None:
        self.mock, self.client_id = mock, client_id
        self.nonce = ""

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        path = urlsplit(str(request.url)).path
        if path.endswith("/openid-configuration"):
            return _reply(METADATA)
        if path == "/jwk":
            return _reply({"keys": [jwk(rsa_key())]})
        body = await request.aread()
        if b"token-exchange" in body:
            return _reply(EXCHANGED)
        found = self._ask_mock(path, request, body)
        if isinstance(found, HTTPResponse):
            return _reply({"error": "invalid_grant"}, found.code)
        if path.endswith("/access_token") and "id_token" not in found:
            found = {**found, "id_token": self._id_token(found["access_token"])}
        return _reply(found)

    def _ask_mock(self, path: str, request: httpx.Request, body: bytes) -> Any:
        (answer,) = [do for known, do in self.mock.hosts["generic.horse"] if known == path]
        headers = dict(request.headers)
        return answer(
            HTTPRequest(
                str(request.url),
                request.method,
                headers={name.title(): value for name, value in headers.items()},
                body=body if request.method == "POST" else None,
            )
        )

    def _id_token(self, access_token: str) -> str:
        now = int(time.time())
        user = self.mock.access_tokens[access_token]
        return signed(
            {
                "iss": ISSUER,
                "sub": user["sub"],
                "aud": self.client_id,
                "iat": now,
                "exp": now + 300,
                "nonce": self.nonce,
            }
        )


class WithIssuer(EscapeAuthenticator):
    """Made as their tests make a `GenericOAuthenticator`."""

    @default("username_claim")
    def _default_username_claim(self) -> str:
        return "username"  # the one claim that their people have

    def __init__(self, **kwargs: Any) -> None:
        for name in ("token_url", "userdata_url", "userdata_from_id_token"):
            kwargs.pop(name, None)
        kwargs.setdefault("client_id", "jupyterhub-oauth-client")
        mock = kwargs.get("http_client")
        super().__init__(issuer=ISSUER, client_secret="not-a-secret", audiences=AUDIENCES, **kwargs)
        self.provider = _Provider(mock, self.client_id)
        self.issuer_client._http._client = httpx.AsyncClient(transport=self.provider)
        db = orm.new_session_factory("sqlite:///:memory:")()
        app: Any = SimpleNamespace(db=db, log=logging.getLogger("hub"), users={})
        self.runtime = Runtime(self, app)
        self.broker, self.renewal = self.runtime.broker, self.runtime.renewal

    async def authenticate(self, handler: Any, data: Any = None, **kwargs: Any) -> Any:
        """As `EscapeCallbackHandler` does, with the code of their mocked handler."""
        flight = LoginFlight.start("", self.clock.now())
        self.provider.nonce = flight.nonce
        login = LoginReply(handler.get_argument("code"), flight, "https://hub.example.org/callback")
        return await super().authenticate(handler, {"login": login}, **kwargs)

    async def get_authenticated_user(self, handler: Any, data: Any = None, **kwargs: Any) -> Any:
        """Our callback makes a page of this refusal; theirs knows None alone."""
        try:
            return await super().get_authenticated_user(handler, data, **kwargs)
        except NotAllowedError:
            return None

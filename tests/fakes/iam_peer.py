"""A development IAM inside the test, and a person and a client that talk to it over HTTP."""

from __future__ import annotations

import dataclasses
import functools
import html
import re
import secrets
import time
from types import TracebackType
from typing import Any, Self

import httpx
import tornado.netutil
from tornado.httpserver import HTTPServer

from escape_hub.demo.iam.app import make_app
from escape_hub.demo.iam.config import CLIENT_ID, CLIENT_SECRET, ClientConfig, IamConfig
from escape_hub.demo.iam.grants import EXCHANGE, s256
from escape_hub.demo.iam.state import SigningKey

CALLBACK = "http://127.0.0.1:9/hub/oauth_callback"
ACCESS = "urn:ietf:params:oauth:token-type:access_token"
SCOPE = "openid profile email offline_access"
AUTH = (CLIENT_ID, CLIENT_SECRET)


@functools.cache
def signing_key() -> SigningKey:
    """One key for all tests of a run: making one takes longer than most tests."""
    return SigningKey.new()


class Peer:
    """``async with Peer(consent=True) as iam``: a running IAM; ``shift`` moves its clock (s)."""

    def __init__(self, **config: Any) -> None:
        if "clients" not in config:
            client = config.pop("client", ClientConfig(CLIENT_SECRET, (CALLBACK,)))
            config["clients"] = {CLIENT_ID: client}
        self._config = IamConfig(port=0, **config)
        self.shift = 0.0
        self.verifier = secrets.token_urlsafe(48)

    async def __aenter__(self) -> Self:
        sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
        port = sockets[0].getsockname()[1]
        self.config = dataclasses.replace(self._config, port=port)
        app = make_app(self.config, now=lambda: time.time() + self.shift, signing_key=signing_key())
        self.server = HTTPServer(app)
        self.server.add_sockets(sockets)
        self.url = f"http://127.0.0.1:{port}/"
        # No TLS on loopback, so no certificates to load.
        self.http = httpx.AsyncClient(base_url=self.url, timeout=10, verify=False)  # noqa: S501
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.http.aclose()
        self.server.stop()
        await self.server.close_all_connections()

    # -- the person -----------------------------------------------------------

    def query(self, **changes: str | None) -> dict[str, str]:
        """An authorization request; None leaves a parameter out."""
        good = {
            "response_type": "code",
            "client_id": CLIENT_ID,
            "redirect_uri": CALLBACK,
            "scope": SCOPE,
            "state": "the-state",
            "nonce": "the-nonce",
            "code_challenge": s256(self.verifier),
            "code_challenge_method": "S256",
        }
        return {k: v for k, v in (good | changes).items() if v is not None}

    async def authorize(self, **changes: str | None) -> httpx.Response:
        """Open the authorization URL."""
        return await self.http.get("authorize", params=self.query(**changes))

    async def submit(self, page: httpx.Response, **fields: str) -> httpx.Response:
        """Send the form of a page, with its hidden key."""
        action = re.search(r'<form method="post" action="([^"]+)"', page.text)
        key = re.search(r'name="key" value="([^"]+)"', page.text)
        assert action, page.text
        fields |= {"key": key[1]} if key else {}
        return await self.http.post(html.unescape(action[1]), data=fields)

    async def sign_in(
        self, user: str = "alice", password: str | None = None, **changes: str | None
    ) -> httpx.Response:
        """Open the login page, fill it in, and go to where that leads: one step further."""
        page = await self.authorize(**changes)
        done = await self.submit(page, username=user, password=password or user)
        if done.status_code != 303:
            return done
        return await self.http.get(done.headers["Location"])

    async def code(self, user: str = "alice", **changes: str | None) -> str:
        """An authorization code for a user, in a browser of their own."""
        self.http.cookies.clear()
        return callback(await self.sign_in(user, **changes))["code"]

    # -- the client -----------------------------------------------------------

    async def post_token(self, auth: Any = AUTH, **form: str) -> httpx.Response:
        """One request to the token endpoint."""
        return await self.http.post("token", data=form, auth=auth)

    async def redeem(self, code: str, **changes: str) -> httpx.Response:
        """Redeem a code."""
        form = {"code": code, "redirect_uri": CALLBACK, "code_verifier": self.verifier}
        return await self.post_token(grant_type="authorization_code", **(form | changes))

    async def login(self, user: str = "alice", **changes: str | None) -> dict[str, Any]:
        """Sign in and redeem the code: the members of the token reply."""
        return good(await self.redeem(await self.code(user, **changes)))

    async def refresh(self, token: str, **form: str) -> httpx.Response:
        """A refresh grant."""
        return await self.post_token(grant_type="refresh_token", refresh_token=token, **form)

    async def exchange(self, subject: str, **changes: str | None) -> httpx.Response:
        """An exchange for the audience rucio, unless changed; None leaves a parameter out."""
        form = {
            "grant_type": EXCHANGE,
            "subject_token": subject,
            "subject_token_type": ACCESS,
            "audience": "rucio",
            "scope": "openid profile",
        }
        return await self.post_token(**{k: v for k, v in (form | changes).items() if v is not None})

    async def userinfo(self, token: str) -> httpx.Response:
        """Userinfo with the token in the header."""
        return await self.http.get("userinfo", headers={"Authorization": f"Bearer {token}"})

    async def active(self, token: str) -> bool:
        """What introspection says of a token."""
        answer = await self.http.post("introspect", data={"token": token}, auth=AUTH)
        return bool(good(answer)["active"])

    # -- the control API ------------------------------------------------------

    async def control(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """A request to the control API."""
        headers = {"X-Dev-Control": "1"}
        return await self.http.request(method, f"dev/{path}", json=body or {}, headers=headers)

    async def faults(self, **faults: Any) -> None:
        """Exactly these faults from now on."""
        good(await self.control("PUT", "faults", faults))

    async def counters(self) -> dict[str, Any]:
        """The counters."""
        return good(await self.control("GET", "counters"))


def callback(response: httpx.Response) -> dict[str, str]:
    """The parameters with which the browser is sent back to the client."""
    assert response.status_code == 303, response.text
    url = httpx.URL(response.headers["Location"])
    assert str(url.copy_with(query=None)) == CALLBACK
    return dict(url.params)


def good(response: httpx.Response) -> dict[str, Any]:
    """The JSON object of an answer that must be 200."""
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def refusal(response: httpx.Response) -> tuple[int, str]:
    """Status and ``error`` of a refusal."""
    return response.status_code, response.json()["error"]

"""A relying party that does what the worst ones do, to show what the hostile cases are worth.

It believes its issuer's metadata whoever that says it is, reads the id_token without its
signature, checks neither ``state`` nor ``nonce``, issuer, audience or time, asks for no
keys, sends its secret in the body and follows redirects with it, and refreshes on every
request without waiting for itself. It runs as a web server with the hub's addresses, so
that the same scripted browser visits both. Never use any of it.
"""

from __future__ import annotations

import json
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import jwt

from escape_hub.core.exchange import GRANT_EXCHANGE, TYPE_ACCESS_TOKEN
from escape_hub.core.oidc import code_challenge

#: The same for everybody and for ever; this IAM insists on having one.
VERIFIER = "v" * 43
SCOPE = "openid profile email offline_access"
COOKIE = "naive"


class NaiveClient:
    """``with NaiveClient(issuer, client_id, secret) as naive``: serves at ``naive.url``.

    ``sessions``: cookie -> what the token endpoint answered and who that was taken for.
    """

    def __init__(self, client_id: str, client_secret: str) -> None:
        self.issuer = ""
        self.client_id, self.client_secret = client_id, client_secret
        self.sessions: dict[str, dict[str, Any]] = {}
        self.logged_out: list[str] = []
        self.sent_to: list[str] = []
        self._http = httpx.Client(timeout=10, follow_redirects=True)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/"
        self.redirect_uri = f"{self.url}hub/oauth_callback"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._http.close()

    # -- the protocol, as far as it goes ------------------------------------------------

    def metadata(self) -> dict[str, Any]:
        """Whatever stands there."""
        found: dict[str, Any] = self._http.get(
            f"{self.issuer}.well-known/openid-configuration"
        ).json()
        return found

    def authorization_url(self) -> str:
        query = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": SCOPE,
            "state": "state",
            "nonce": "nonce",
            "code_challenge": code_challenge(VERIFIER),
            "code_challenge_method": "S256",
        }
        return f"{self.metadata()['authorization_endpoint']}?{urlencode(query)}"

    def token_call(self, **form: str) -> dict[str, Any]:
        """One call of the token endpoint; a refusal is a `KeyError` somewhere later."""
        url = self.metadata()["token_endpoint"]
        form |= {"client_id": self.client_id, "client_secret": self.client_secret}
        request = self._http.build_request("POST", url, data=form)
        self.sent_to.append(str(request.url))
        found: dict[str, Any] = self._http.send(request).json()
        return found

    def callback(self, query: str) -> str:
        """Sign in whoever comes with a code; the new session's cookie."""
        reply = self.token_call(
            grant_type="authorization_code",
            code=dict(parse_qsl(query))["code"],
            redirect_uri=self.redirect_uri,
            code_verifier=VERIFIER,
        )
        cookie = secrets.token_hex(8)
        self.sessions[cookie] = {**reply, "who": self._who(reply)}
        return cookie

    def _who(self, reply: dict[str, Any]) -> str:
        if "id_token" in reply:
            return person_of(reply["id_token"])
        if "error" in reply:
            raise KeyError("id_token")
        headers = {"Authorization": f"Bearer {reply['access_token']}"}
        found = self._http.get(self.metadata()["userinfo_endpoint"], headers=headers)
        return str(found.json()["preferred_username"])

    def refresh(self, cookie: str) -> None:
        """Take whatever comes, and whoever it is for."""
        session = self.sessions[cookie]
        reply = self.token_call(grant_type="refresh_token", refresh_token=session["refresh_token"])
        if "error" in reply:
            del self.sessions[cookie]
            raise KeyError("access_token")
        session |= reply
        if "id_token" in reply:
            session["sub"] = jwt.decode(reply["id_token"], options=_UNCHECKED).get("sub")

    def exchange(self, cookie: str, audience: str) -> str:
        """A token for an audience, by name."""
        reply = self.token_call(
            grant_type=GRANT_EXCHANGE,
            subject_token=self.sessions[cookie]["access_token"],
            subject_token_type=TYPE_ACCESS_TOKEN,
            audience=audience,
            scope="openid profile",
        )
        return str(reply["access_token"])

    def backchannel_logout(self, form: str) -> None:
        """Log out whom a stranger names."""
        claims = jwt.decode(dict(parse_qsl(form))["logout_token"], options=_UNCHECKED)
        self.logged_out.append(str(claims.get("sub")))


_UNCHECKED: Any = {
    "verify_signature": False,
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
    "verify_aud": False,
    "verify_sub": False,
    "verify_jti": False,
}


def person_of(id_token: str) -> str:
    """The name in a token that nobody looked at."""
    claims = jwt.decode(id_token, options=_UNCHECKED)
    return str(claims.get("preferred_username") or claims.get("sub"))


def _handler(naive: NaiveClient) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """The hub's addresses: login, callback, who am I, renew."""

        def log_message(self, format: str, *args: Any) -> None:
            """Quiet."""

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            try:
                self._get(parts.path, parts.query)
            except Exception as error:
                self._answer(500, {"error": type(error).__name__})

        def _get(self, path: str, query: str) -> None:
            if path == "/hub/oauth_login":
                self._go_to(naive.authorization_url())
            elif path == "/hub/oauth_callback":
                self._go_to("/hub/home", cookie=naive.callback(query))
            elif path == "/hub/api/user":
                session = naive.sessions.get(self._cookie())
                self._answer(200 if session else 403, {"name": session and session["who"]})
            else:
                self._answer(200, {})

        def do_POST(self) -> None:
            size = int(self.headers.get("Content-Length", 0))
            form = self.rfile.read(size).decode()
            try:
                if self.path == "/hub/escape/backchannel_logout":
                    naive.backchannel_logout(form)
                else:
                    naive.refresh(self._cookie())
            except Exception as error:
                self._answer(500, {"error": type(error).__name__})
            else:
                self._answer(200, {})

        def _cookie(self) -> str:
            found = dict(
                part.strip().partition("=")[::2]
                for part in self.headers.get("Cookie", "").split(";")
            )
            return found.get(COOKIE, "")

        def _go_to(self, url: str, cookie: str = "") -> None:
            self.send_response(303)
            self.send_header("Location", url)
            if cookie:
                self.send_header("Set-Cookie", f"{COOKIE}={cookie}; Path=/")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _answer(self, status: int, body: dict[str, Any]) -> None:
            raw = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

    return Handler

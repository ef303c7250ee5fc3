"""What all handlers share: faults, who may come, answers, pages."""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import logging
import urllib.parse
from collections.abc import Mapping
from typing import Any

import tornado.web

from escape_hub.demo.iam.config import is_loopback
from escape_hub.demo.iam.dialects import OAuthError
from escape_hub.demo.iam.faults import Fault
from escape_hub.demo.iam.service import Iam

_log = logging.getLogger("escape_hub.demo.iam")
_GARBAGE = b"<html><body>It works! Or does it: this is not JSON {\x00\xff</body>"


class Handler(tornado.web.RequestHandler):
    """Base of all handlers; ``endpoint`` names the fault that can hit it."""

    endpoint = ""

    def initialize(self, iam: Iam) -> None:
        """Tornado's hook for the route's arguments."""
        self.iam = iam
        self._gone = asyncio.Event()

    def set_default_headers(self) -> None:
        """Nothing of this service is cached, framed or leaked as a referrer."""
        self.set_header("Server", "escape-hub-development-iam")
        self.set_header("Cache-Control", "no-store")
        self.set_header("Referrer-Policy", "no-referrer")
        self.set_header("X-Content-Type-Options", "nosniff")
        # No form-action: browsers apply it to the redirect back to the client as well.
        self.set_header(
            "Content-Security-Policy",
            "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'",
        )

    async def prepare(self) -> None:
        """Loopback only, whatever the socket is bound to; then the fault of this endpoint."""
        # Another name that leads here is a website's attempt at DNS rebinding.
        name = urllib.parse.urlsplit(f"//{self.request.host}").hostname or ""
        ours = urllib.parse.urlsplit(self.iam.config.issuer_url).hostname
        if not is_loopback(self.request.remote_ip or "") or not (name == ours or is_loopback(name)):
            raise tornado.web.HTTPError(403)
        if self.endpoint:
            self.iam.counters.request(self.endpoint)
            if self.endpoint != "token" and (fault := self.iam.strike(self.endpoint)):
                await self.suffer(fault)

    def on_connection_close(self) -> None:
        """Wake a request that hangs."""
        self._gone.set()

    async def suffer(self, fault: Fault) -> None:
        """Answer as the fault says, or not at all."""
        if fault.mode == "hang":
            await self._gone.wait()
            self.drop()
        elif fault.mode in ("drop", "lost_reply"):
            self.drop()
        elif fault.mode == "307":
            self.redirect(f"http://{self._other_name()}:{self.iam.config.port}/caught", status=307)
        elif fault.mode == "garbage":
            self.set_header("Content-Type", "text/html")
            self.finish(_GARBAGE)
        else:
            self.set_status(int(fault.mode))
            if fault.retry_after is not None:
                self.set_header("Retry-After", str(fault.retry_after))
            self.set_header("Content-Type", "text/html")
            self.finish("<html><body><h1>Injected by dev/faults</h1></body></html>")

    def _other_name(self) -> str:
        """This machine's loopback by another name: to a client that is another origin."""
        return "127.0.0.1" if self.request.host.startswith("localhost") else "localhost"

    def drop(self) -> None:
        """Close the connection without a word."""
        if not self._finished:
            self.detach().close()

    def form(self) -> dict[str, str]:
        """The form's fields; one that comes twice is refused (RFC 6749 section 3.2)."""
        kind = self.request.headers.get("Content-Type", "").partition(";")[0]
        if kind != "application/x-www-form-urlencoded":
            raise OAuthError(400, "invalid_request", "The body must be a form")
        if any(len(values) > 1 for values in self.request.body_arguments.values()):
            raise OAuthError(400, "invalid_request", "A parameter came more than once")
        return {k: v[0].decode() for k, v in self.request.body_arguments.items() if v[0]}

    def credentials(self, form: Mapping[str, str]) -> tuple[str, str]:
        """The client's id and secret, by either way of RFC 6749 section 2.3.1, never both."""
        header = self.request.headers.get("Authorization", "")
        in_body = "client_secret" in form
        self.iam.counters.client_auth("basic" if header else "post" if in_body else "none")
        if not header:
            return form.get("client_id", ""), form.get("client_secret", "")
        if in_body:
            raise OAuthError(400, "invalid_request", "Two ways of client authentication at once")
        kind, _, encoded = header.partition(" ")
        try:
            decoded = base64.b64decode(encoded, validate=True).decode()
            name, colon, secret = decoded.partition(":")
        except (binascii.Error, UnicodeDecodeError):
            kind, name, colon, secret = "", "", "", ""
        if kind.lower() != "basic" or not colon:
            raise OAuthError(401, "invalid_client", "Unreadable Authorization header")
        return urllib.parse.unquote_plus(name), urllib.parse.unquote_plus(secret)

    def bearer(self) -> str:
        """The token of the Authorization header (RFC 6750 section 2.1), or an empty string."""
        kind, _, token = self.request.headers.get("Authorization", "").partition(" ")
        return token.strip() if kind.lower() == "bearer" else ""

    def send_json(self, value: Any, status: int = 200) -> None:
        """Finish with a JSON body."""
        self.set_status(status)
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps(value))

    def send_error_json(self, error: OAuthError) -> None:
        """Finish with a refusal in the form of RFC 6749 section 5.2."""
        if error.status == 401:
            self.set_header("WWW-Authenticate", 'Basic realm="development IAM"')
        body = {"error": error.error}
        if error.description:
            body["error_description"] = error.description
        self.send_json(body, error.status)

    def page(self, template: str, *, status: int = 200, **values: Any) -> None:
        """Finish with one of the pages."""
        self.set_status(status)
        self.render(template, iam=self.iam, **values)

    def problem(self, title: str, what: str, todo: str, *, status: int = 400) -> None:
        """Finish with a page that says what happened and what to do."""
        self.page("error.html", status=status, title=title, what=what, todo=todo)

    def write_error(self, status_code: int, **kwargs: Any) -> None:
        """A page for what is not a protocol error, without a traceback."""
        self.problem(
            f"{status_code} {self._reason}",
            "The development IAM cannot answer this request.",
            "Go back to the application and start again.",
            status=status_code,
        )

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        """Tornado would log the whole URL, which may hold a code or an id_token."""
        if not isinstance(value, tornado.web.HTTPError):
            where = f"{self.request.method} {self.request.path}"
            _log.error("%s failed", where, exc_info=(typ, value, tb))


class NotFound(Handler):
    """Any other path."""

    async def prepare(self) -> None:
        """Refuse, after the common checks."""
        await super().prepare()
        raise tornado.web.HTTPError(404)

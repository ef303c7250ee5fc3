"""A stand-in for the hub's token endpoint, for tests of the session side: a real HTTP server.

It answers ``GET <prefix>/escape/tokens`` as the contract says, or as badly as a test asks.
Run as ``python -m tests.fakes.hub_api --port P --token T`` it serves alice and takes
``PUT /control`` with a JSON mode.
"""

from __future__ import annotations

import argparse
import base64
import json
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PREFIX = "/hub/api"
MODES = ("good", "hang", "drip", "garbage", "redirect", "drop", "huge", "refuse", "raw")


def make_jwt(claims: Mapping[str, Any]) -> str:
    """An unsigned-looking JWT: three parts, the signature is noise."""

    def part(value: Mapping[str, Any]) -> str:
        text = json.dumps(value).encode()
        return base64.urlsafe_b64encode(text).decode().rstrip("=")

    return f"{part({'alg': 'RS256', 'typ': 'JWT'})}.{part(claims)}.c2lnbmF0dXJl"


@dataclass
class Behaviour:
    """What the endpoint does next; tests change it while it runs.

    ``audiences`` maps a configured name to the ``aud`` value; ``lifetime`` in seconds.
    ``overrides`` are merged into the reply of one audience, None drops the audience.
    """

    mode: str = "good"
    audiences: dict[str, str] = field(default_factory=dict)
    lifetime: float = 3600.0
    next_poll: float = 30.0
    state: str = "fresh"
    message: str = ""
    overrides: dict[str, Any] = field(default_factory=dict)
    refusal: tuple[int, dict[str, Any]] = (409, {})
    raw: tuple[int, bytes] = (200, b"")
    clock_offset: float = 0.0


class FakeHub:
    """The server in a thread; a context manager. ``issued`` holds every token handed out."""

    def __init__(
        self,
        behaviour: Behaviour,
        *,
        api_token: str = "hub-token",  # noqa: S107
        port: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.behaviour = behaviour
        self.api_token = api_token
        self.requests: list[dict[str, Any]] = []
        self.issued: list[str] = []
        self.released = threading.Event()
        self.generation = 0
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                hub.answer(self)

            def do_PUT(self) -> None:
                hub.control(self)

            def handle(self) -> None:
                try:
                    super().handle()
                except OSError:
                    pass  # the client went away, or shows no good certificate

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self._scheme = "https" if tls else "http"
        if tls is not None:
            # The handshake is the handler's: a bad client must not stop the accepting thread.
            self._server.socket = tls.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    @property
    def url(self) -> str:
        """The value for JUPYTERHUB_API_URL."""
        return f"{self._scheme}://127.0.0.1:{self._server.server_port}{PREFIX}"

    def __enter__(self) -> FakeHub:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def control(self, handler: BaseHTTPRequestHandler) -> None:
        """Change the behaviour from another process."""
        body = json.loads(handler.rfile.read(int(handler.headers["Content-Length"])))
        for key, value in body.items():
            setattr(self.behaviour, key, tuple(value) if key == "refusal" else value)
        handler.send_response(204)
        handler.end_headers()

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        """Answer one request for tokens by the behaviour."""
        self.requests.append({"path": handler.path, "headers": dict(handler.headers)})
        how = self.behaviour
        if handler.path.split("?")[0] != f"{PREFIX}/escape/tokens":
            return self._send(handler, 404, b"{}")
        if handler.headers["Authorization"] != f"token {self.api_token}":
            body = {"reason": "unauthorized", "message": "unknown token", "reference": "hub-401"}
            return self._send(handler, 401, json.dumps(body).encode())
        if how.mode == "hang":
            self.released.wait(60)
            handler.close_connection = True
        elif how.mode == "drop":
            handler.close_connection = True
        elif how.mode == "drip":
            self._drip(handler)
        elif how.mode == "redirect":
            handler.send_response(302)
            handler.send_header("Location", f"{PREFIX}/escape/tokens?redirected=1")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
        elif how.mode == "garbage":
            self._send(handler, 200, b"<html>not what you asked for</html>")
        elif how.mode == "huge":
            self._send(handler, 200, b'{"x": "' + b"y" * (2 * 1024 * 1024) + b'"}')
        elif how.mode == "raw":
            self._send(handler, *how.raw)
        elif how.mode == "refuse":
            status, body = how.refusal
            self._send(handler, status, json.dumps(body).encode())
        else:
            self._send(handler, 200, json.dumps(self.reply()).encode())

    def _drip(self, handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "500")
        handler.end_headers()
        try:
            while not self.released.wait(0.02):
                handler.wfile.write(b" ")
        except OSError:
            handler.close_connection = True

    def _send(self, handler: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
        handler.send_response_only(status)
        handler.send_header("Date", handler.date_time_string(time.time() + self._offset))
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    @property
    def _offset(self) -> float:
        return self.behaviour.clock_offset

    def reply(self) -> dict[str, Any]:
        """A good reply with a new token for each audience."""
        how = self.behaviour
        self.generation += 1
        now = time.time() + how.clock_offset
        found = {}
        for name, aud in how.audiences.items():
            claims = {"aud": aud, "sub": "alice", "exp": now + how.lifetime, "n": self.generation}
            token = make_jwt(claims)
            self.issued.append(token)
            entry = {
                "audience": aud,
                "label": name,
                "state": how.state,
                "message": how.message,
                "reference": "",
                "renewed_at": now,
                "access_token": token,
                "expires_in": how.lifetime,
                "expires_at": now + how.lifetime,
            }
            change = how.overrides.get(name, {})
            if change is not None:
                found[name] = change if not isinstance(change, dict) else {**entry, **change}
        return {
            "version": 1,
            "generation": self.generation,
            "next_poll": how.next_poll,
            "state": how.state,
            "message": how.message,
            "reference": "",
            "audiences": found,
        }


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--token", default="hub-token")
    parser.add_argument("--audiences", default='{"eos": "eos-eulake", "rucio": "rucio"}')
    args = parser.parse_args()
    behaviour = Behaviour(audiences=json.loads(args.audiences), next_poll=5)
    with FakeHub(behaviour, api_token=args.token, port=args.port) as hub:
        print(hub.url, flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    main()

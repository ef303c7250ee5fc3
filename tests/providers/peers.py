"""What stands around a provider in a test: a line that loses things, the hub's logout endpoint."""

from __future__ import annotations

import queue
import socket
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Literal, Self
from urllib.parse import parse_qs

import httpx

Losing = Literal["nothing", "requests", "replies", "replies to refreshes"]


class Line:
    """A TCP relay on loopback before a provider; all traffic passes it, on request some is lost.

    ``losing = "requests"``: what comes is swallowed and the connection dropped; the
    provider never sees it. ``"replies"``: the provider does all it was asked, and the
    connection is dropped when its answer begins; ``"replies to refreshes"``: the same for
    refreshes alone. `lost` counts what was lost.
    `heard` counts, per phrase of `PHRASES`, the requests on their way to the provider.
    """

    #: Of token requests (RFC 6749, RFC 8693) and of revocations (RFC 7009).
    PHRASES = (
        "grant_type=refresh_token",
        "grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange",
        "token_type_hint=refresh_token",
    )
    REFRESH, EXCHANGE, REVOCATION = PHRASES

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.upstream = 0
        self.losing: Losing = "nothing"
        self.lost = 0
        self.heard: Counter[str] = Counter()
        self._refreshing: set[socket.socket] = set()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        # A shutdown wakes the thread that waits in accept; closing alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        with self._lock:
            for one in self._open:
                _end(one)
        for thread in self._threads:
            thread.join(10)
        self._listener.close()

    def _start(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with client:
            try:
                provider = socket.create_connection(("127.0.0.1", self.upstream), timeout=10)
            except OSError:
                return
            with provider:
                provider.settimeout(None)
                with self._lock:
                    self._open |= {client, provider}
                back = threading.Thread(
                    target=self._pump, args=(provider, client, "replies"), daemon=True
                )
                back.start()
                self._pump(client, provider, "requests")
                back.join()
                with self._lock:
                    self._open -= {client, provider}
                    self._refreshing.discard(provider)

    def _pump(self, source: socket.socket, target: socket.socket, what: Losing) -> None:
        before = b""
        try:
            while data := source.recv(65536):
                if what == "requests":
                    before = self._listen(before, data, provider=target)
                if self._is_lost(what, provider=source):
                    self.lost += 1
                    break
                if what == "replies":
                    self._refreshing.discard(source)
                target.sendall(data)
        except OSError:
            pass  # one side is gone: so is the other, below
        _end(source)
        _end(target)

    def _is_lost(self, what: Losing, *, provider: socket.socket) -> bool:
        if what == "replies" and self.losing == "replies to refreshes":
            return provider in self._refreshing
        return self.losing == what

    def _listen(self, before: bytes, data: bytes, *, provider: socket.socket) -> bytes:
        """Count the phrases that end in ``data``; the tail in which one may have begun."""
        both = before + data
        for phrase in self.PHRASES:
            found = both.count(phrase.encode()) - before.count(phrase.encode())
            if found:
                with self._lock:
                    self.heard[phrase] += found
                    if phrase == self.REFRESH:
                        self._refreshing.add(provider)
        return both[-max(map(len, self.PHRASES)) :]


def _end(one: socket.socket) -> None:
    try:
        one.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # it was already


class LogoutReceiver:
    """The back-channel logout endpoint (Back-Channel Logout 1.0 section 2.5) as a provider sees it.

    What arrives goes on to ``hub``, the endpoint of a hub that runs, whose status is the
    answer; without one it is 200.
    """

    def __init__(self) -> None:
        received: queue.Queue[str] = queue.Queue()
        receiver = self
        self.hub = ""
        self.answers: list[int] = []

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status = receiver._pass_on(body, self.headers.get("Content-Type", ""))
                received.put(parse_qs(body.decode())["logout_token"][0])
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing: what arrives is a token."""

        self._received = received
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = False
        self.url = f"http://127.0.0.1:{self._server.server_port}/hub/backchannel_logout"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def _pass_on(self, body: bytes, kind: str) -> int:
        """The hub's answer."""
        if not self.hub:
            return 200
        headers = {"Content-Type": kind}
        answer = httpx.post(self.hub, content=body, headers=headers, trust_env=False)
        self.answers.append(answer.status_code)
        return answer.status_code

    def take(self, timeout: float = 10.0) -> str:
        """The next logout token; fails when none comes within ``timeout`` seconds."""
        try:
            return self._received.get(timeout=timeout)
        except queue.Empty:
            raise AssertionError("the provider sent no logout token") from None

    def empty(self) -> bool:
        """Forget what has arrived; whether that was nothing."""
        found = self._received.empty()
        while not self._received.empty():
            self._received.get_nowait()
        return found

"""A real HTTP/1.1 server on loopback that answers, or does not, exactly as a test says."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs


@dataclass
class Request:
    """What came; header names are lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        """The body as a form, one value a name."""
        return {k: v[0] for k, v in parse_qs(self.body.decode(), strict_parsing=True).items()}


@dataclass
class Answer:
    """A reply. ``json`` goes before ``body``; ``cut`` closes after so many bytes of the body.

    ``hold`` is awaited before anything is sent; ``silent`` closes without a byte.
    """

    status: int = 200
    json: Any = None
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None
    hold: asyncio.Event | None = None
    silent: bool = False


Script = Answer | Callable[[Request], Answer]


class Peer:
    """``async with Peer() as peer``: set ``peer.routes[path]``, read ``peer.requests``."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.routes: dict[str, Script] = {}
        self.requests: list[Request] = []
        self.connections = 0
        self.arrived = asyncio.Event()
        self._tls = tls
        self._open: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Address without trailing slash."""
        scheme = "http" if self._tls is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}"

    def count(self, path: str) -> int:
        """How many requests came for a path."""
        return sum(request.path == path for request in self.requests)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        self.connections += 1
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._open.discard(task)
            writer.transport.abort()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        method, target, _ = head[0].split(" ")
        headers = dict(line.split(": ", 1) for line in head[1:] if line)
        headers = {name.lower(): value for name, value in headers.items()}
        body = await reader.readexactly(int(headers.get("content-length", 0)))
        request = Request(method, target, headers, body)
        self.requests.append(request)
        self.arrived.set()
        script = self.routes.get(target.split("?")[0], Answer(404))
        answer = script(request) if callable(script) else script
        if answer.hold is not None:
            await answer.hold.wait()
        if answer.silent:
            return False
        content = answer.body if answer.json is None else json.dumps(answer.json).encode()
        lines = [f"HTTP/1.1 {answer.status} X", f"Content-Length: {len(content)}"]
        lines += [f"{name}: {value}" for name, value in answer.headers.items()]
        writer.write("\r\n".join(lines).encode() + b"\r\n\r\n" + content[: answer.cut])
        await writer.drain()
        return answer.cut is None

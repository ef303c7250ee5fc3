"""What the benchmark adds to a real hub: sessions that cost nothing, and a door to prepare it.

The hub's configuration names these classes; nothing of the product is replaced.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import httpx
from jupyterhub.apihandlers.base import APIHandler
from jupyterhub.scopes import needs_scope
from jupyterhub.spawner import Spawner
from sqlalchemy import event
from traitlets import Integer, Unicode

from benchmarks.aging import aged
from escape_hub.core.exchange import parse_token_reply
from escape_hub.hub.authenticator import EscapeAuthenticator


class StubSpawner(Spawner):
    """Every server is the same one at ``stub_port``; its API token goes to a file."""

    stub_port = Integer(config=True)
    token_directory = Unicode(config=True)

    async def start(self) -> tuple[str, int]:
        self._tell_token()
        return "127.0.0.1", self.stub_port

    def _tell_token(self) -> None:
        Path(self.token_directory, self.user.name).write_text(self.api_token)

    async def poll(self) -> int | None:
        return None

    async def stop(self, now: bool = False) -> None:
        """Nothing runs."""


class CommitTimer:
    """Seconds the hub has spent in its database's commits, in which nothing else of it runs."""

    def __init__(self, db: Any) -> None:
        self.seconds = self._begun = 0.0
        event.listen(db, "before_commit", self._before)
        event.listen(db, "after_commit", self._after)

    def _before(self, _db: Any) -> None:
        self._begun = time.perf_counter()

    def _after(self, _db: Any) -> None:
        self.seconds += time.perf_counter() - self._begun


class BenchmarkAuthenticator(EscapeAuthenticator):
    """Ours, with one more door."""

    def get_handlers(self, app: Any) -> list[Any]:
        self.commits = CommitTimer(app.db)
        return [*super().get_handlers(app), (r"/api/benchmark/(\w+)", PrepareHandler)]


class PrepareHandler(APIHandler):
    """``POST sign_in`` {users}, ``POST age`` {users}: all their tokens are over; ``POST cpu``."""

    @needs_scope("admin:users")
    async def post(self, action: str) -> None:
        users = (self.get_json_body() or {}).get("users", [])
        for user in users:
            await {"sign_in": self._sign_in, "age": self._age}[action](user)
        # All threads of the hub: the database's encryption has its own.
        commits = self.authenticator.commits.seconds
        self.finish(json.dumps({"cpu": time.process_time(), "commits": commits}))

    async def _sign_in(self, name: str) -> None:
        """As after a login, without a browser."""
        authenticator = self.authenticator
        async with httpx.AsyncClient(headers={"X-Dev-Control": "1"}) as client:
            minted = await client.post(f"{authenticator.issuer}dev/mint", json={"user": name})
        reply = parse_token_reply(minted.content, now=authenticator.clock.now())
        claims = await authenticator.issuer_client.userinfo(reply.access_token.value)
        state = await authenticator.broker.begin(
            name, reply, issuer=authenticator.issuer, subject=claims["sub"], claims=claims
        )
        await self.user_from_username(name).save_auth_state(state.to_dict())

    async def _age(self, name: str) -> None:
        store = self.authenticator.runtime.store
        state = await store.load(name)
        await store.save(name, aged(state, self.authenticator.clock.now()))

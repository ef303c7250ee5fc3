"""A running session of alice, and what the hub answers it."""

from __future__ import annotations

from typing import Any

import httpx

from tests.unit.hub.browser import Browser
from tests.unit.hub.in_process import HubInTest


class Session:
    """A running server of alice, and what it asks the hub."""

    def __init__(self, hub: HubInTest, token: str) -> None:
        self.hub, self.token = hub, token

    async def ask(self, token: str | None = None, **params: Any) -> httpx.Response:
        headers = {"Authorization": f"token {self.token if token is None else token}"}
        async with httpx.AsyncClient(headers=headers) as client:
            return await client.get(f"{self.hub.url}hub/api/escape/tokens", params=params)


async def spawn(hub: HubInTest, browser: Browser, name: str = "") -> str:
    await browser.get("hub/home")
    path = f"users/alice/servers/{name}" if name else "users/alice/server"
    answer = await browser.api("POST", path, json={})
    assert answer.status_code in {201, 202}, answer.text
    spawner = hub.user("alice").spawners[name]
    if spawner._spawn_future:
        await spawner._spawn_future
    token: str = spawner.api_token
    return token


def refused(answer: httpx.Response, status: int, reason: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    assert body["reason"] == reason
    assert set(body) == {"reason", "message", "reference", "wipe", "next_poll"}
    assert body["message"]
    assert answer.headers["Content-Type"].startswith("application/json")
    return body

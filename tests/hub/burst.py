"""Twenty requests of one user that reach a hub at the same instant."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx

from tests.harness import Hub
from tests.hub.at_work import AtWork


def requests(alice: AtWork, server_token: str) -> list[httpx.Request]:
    """Eight of the session with its own token, twelve of the browser with its cookies."""
    hub, browser = alice.stage.hub.url, alice.person.client
    tokens = {"Authorization": f"token {server_token}"}
    own = {"X-XSRFToken": alice.person.xsrf, "Referer": f"{hub}hub/home"}
    made = [httpx.Request("GET", f"{hub}hub/api/escape/tokens", headers=tokens) for _ in range(8)]
    made += [browser.build_request("GET", f"{hub}hub/home") for _ in range(6)]
    for method, path in [("GET", "users/alice")] * 4 + [("POST", "escape/renew")] * 2:
        made.append(browser.build_request(method, f"{hub}hub/api/{path}", headers=own))
    return made


@contextmanager
def stopped(hub: Hub) -> Iterator[Callable[[], None]]:
    """The hub does nothing until what is yielded is called, or the block ends."""
    assert hub.process is not None
    pid = hub.process.pid

    def go_on() -> None:
        os.kill(pid, signal.SIGCONT)

    os.kill(pid, signal.SIGSTOP)
    try:
        yield go_on
    finally:
        go_on()


async def send_at_once(
    requests: list[httpx.Request], go_on: Callable[[], None]
) -> list[httpx.Response]:
    """Send all while the hub is stopped, and let it go on when the last one is on its way."""
    under_way = asyncio.Semaphore(0)

    async def trace(event: str, _info: object) -> None:
        if event == "http11.send_request_body.complete":
            under_way.release()

    async with httpx.AsyncClient(timeout=60) as client:
        for request in requests:
            request.extensions["trace"] = trace
        answers = asyncio.gather(*(client.send(request) for request in requests))
        for _ in requests:
            await under_way.acquire()
        go_on()
        return await answers


def refused(answers: list[httpx.Response]) -> list[tuple[str, int]]:
    return [(str(a.url), a.status_code) for a in answers if a.status_code != 200]


def joins(alice: AtWork) -> float:
    """How often a renewal waited for another one of the same user."""
    lines = alice.stage.hub.metrics().splitlines()
    found = [line for line in lines if line.startswith("escape_hub_singleflight_joins_total")]
    return float(found[0].split()[-1])

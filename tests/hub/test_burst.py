"""Twenty requests of one user at the same instant, with access that has expired.

The IAM gives single-use refresh tokens and ends the whole sign-in when one comes
twice, so a second grant would log alice out. The same burst against a hub without
its lock shows that this test would notice.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.harness.processes import wait_for
from tests.harness.stage import Stage
from tests.hub.at_work import AtWork

SINGLE_USE = {"refresh_rotation": True, "refresh_reuse": "kill_family"}
#: Pages look at the access at every request that comes a second after the last one.
EXTRA = """
c.EscapeAuthenticator.auth_refresh_age = 1
c.JupyterHub.authenticate_prometheus = False
"""
#: One place: every renewal goes through the user's slot, and its lock.
WITHOUT_LOCK = """
from contextlib import asynccontextmanager
from escape_hub.hub import slots
@asynccontextmanager
async def hold_without_lock(self, user):
    yield slots.Slot(), False
slots.Slots.hold = hold_without_lock
"""
SHORT, LONG = 6, 60


@pytest.fixture(scope="module")
def hub_options() -> dict[str, Any]:
    return {"extra": EXTRA}


@pytest.fixture(scope="module")
def iam_options() -> dict[str, Any]:
    return {"access_token_lifetime": LONG, **SINGLE_USE}


@pytest.fixture(scope="module")
def alice(stage: Stage) -> Iterator[AtWork]:
    at_work = AtWork.begin(stage)
    yield at_work
    at_work.close()


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


async def send_at_once(requests: list[httpx.Request], hub_pid: int) -> list[httpx.Response]:
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
        os.kill(hub_pid, signal.SIGCONT)
        return await answers


def burst(alice: AtWork) -> tuple[list[httpx.Response], dict[str, int]]:
    """The answers, and the refresh grants by outcome that the IAM counted for them."""
    iam, hub = alice.stage.iam, alice.stage.hub
    server_token = alice.server_token
    iam.faults(access_token_lifetime=SHORT)
    alice.person.login()
    made = requests(alice, server_token)
    assert len(made) == 20
    assert hub.process is not None
    # Stopped, the hub cannot renew by itself before the burst.
    os.kill(hub.process.pid, signal.SIGSTOP)
    expired_at = time.time() + SHORT + 0.5
    try:
        wait_for("the access to expire", lambda: time.time() > expired_at)
        iam.faults(delay=0.3, access_token_lifetime=LONG)
        iam.reset_counters()
        answers = asyncio.run(send_at_once(made, hub.process.pid))
    finally:
        os.kill(hub.process.pid, signal.SIGCONT)
    grants = iam.counters()["users"]["alice"]["refresh_token"]
    return answers, dict(grants)


def refused(answers: list[httpx.Response]) -> list[tuple[str, int]]:
    return [(str(a.url), a.status_code) for a in answers if a.status_code != 200]


def test_twenty_requests_at_once_spend_one_refresh_token_and_all_are_served(alice: AtWork) -> None:
    joined = joins(alice)
    answers, grants = burst(alice)
    assert refused(answers) == []
    assert grants == {"ok": 1}
    assert joins(alice) - joined >= 8, "they did not come at once"
    handed = [a.json() for a in answers if a.url.path.endswith("escape/tokens")]
    assert len(handed) == 8
    for reply in handed:
        assert reply["state"] == "fresh"
        assert {row["access_token"] for row in reply["audiences"].values()} == {
            row["access_token"] for row in handed[0]["audiences"].values()
        }
    assert alice.status()["state"] == "fresh"


def joins(alice: AtWork) -> float:
    """How often a renewal waited for another one of the same user."""
    lines = alice.stage.hub.metrics().splitlines()
    found = [line for line in lines if line.startswith("escape_hub_singleflight_joins_total")]
    return float(found[0].split()[-1])


def test_without_the_lock_the_same_burst_would_be_noticed(alice: AtWork) -> None:
    hub = alice.stage.hub
    hub.stop()
    hub.extra = EXTRA + WITHOUT_LOCK
    alice.stage.start_hub()
    answers, grants = burst(alice)
    assert sum(grants.values()) > 1, grants
    assert refused(answers)

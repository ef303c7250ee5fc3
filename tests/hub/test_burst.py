"""Twenty requests of one user at the same instant, with access that has expired.

The IAM gives single-use refresh tokens and ends the whole sign-in when one comes
twice, so a second grant would log alice out. The same burst against a hub without
its lock shows that this test would notice.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.harness.processes import wait_for
from tests.harness.stage import Stage
from tests.hub.at_work import AtWork
from tests.hub.burst import joins, refused, requests, send_at_once, stopped

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


def burst(alice: AtWork) -> tuple[list[httpx.Response], dict[str, int]]:
    """The answers, and the refresh grants by outcome that the IAM counted for them."""
    iam, hub = alice.stage.iam, alice.stage.hub
    server_token = alice.server_token
    iam.faults(access_token_lifetime=SHORT)
    alice.person.login()
    made = requests(alice, server_token)
    assert len(made) == 20
    expired_at = time.time() + SHORT + 0.5
    # Stopped, the hub cannot renew by itself before the burst.
    with stopped(hub) as go_on:
        wait_for("the access to expire", lambda: time.time() > expired_at)
        iam.faults(delay=0.3, access_token_lifetime=LONG)
        iam.reset_counters()
        answers = asyncio.run(send_at_once(made, go_on))
    grants = iam.counters()["users"]["alice"]["refresh_token"]
    return answers, dict(grants)


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


def test_without_the_lock_the_same_burst_would_be_noticed(alice: AtWork) -> None:
    hub = alice.stage.hub
    hub.stop()
    hub.extra = EXTRA + WITHOUT_LOCK
    alice.stage.start_hub()
    answers, grants = burst(alice)
    assert sum(grants.values()) > 1, grants
    assert refused(answers)

"""A session in which nothing happens but our agent is idle, and is culled.

The test asks as the culler does, with a service's API token: a browser's own
requests would be activity.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import httpx
import pytest

from tests.harness import Hub
from tests.harness.processes import wait_for
from tests.harness.stage import Stage
from tests.hub.at_work import AtWork

TOKEN = "0c" * 20
#: Everything that moves `last_activity` reports every second or two, not every five minutes.
EXTRA = f"""
c.JupyterHub.services = [{{"name": "culler", "api_token": {TOKEN!r}}}]
c.JupyterHub.load_roles.append({{
    "name": "culler",
    "scopes": ["list:users", "read:users:activity", "read:servers", "delete:servers"],
    "services": ["culler"],
}})
c.JupyterHub.last_activity_interval = 2
c.JupyterHub.activity_resolution = 1
c.Spawner.environment = {{"JUPYTERHUB_ACTIVITY_INTERVAL": "1"}}
"""
POLLS = 5


@pytest.fixture(scope="module")
def hub_options() -> dict[str, Any]:
    return {"extra": EXTRA}


@pytest.fixture(scope="module")
def iam_options() -> dict[str, Any]:
    """Short lives, so that the agent asks every few seconds."""
    return {"access_token_lifetime": 6}


@pytest.fixture(scope="module")
def alice(stage: Stage) -> Iterator[AtWork]:
    at_work = AtWork.begin(stage)
    yield at_work
    at_work.close()


def as_culler(hub: Hub, method: str, path: str) -> Any:
    headers = {"Authorization": f"token {TOKEN}"}
    answer = httpx.request(method, f"{hub.url}hub/api/{path}", headers=headers)
    answer.raise_for_status()
    return answer.json() if answer.content else None


def last_activity(hub: Hub) -> tuple[datetime, datetime]:
    """Of the person and of the server."""
    alice = as_culler(hub, "GET", "users/alice")
    found = alice["last_activity"], alice["servers"][""]["last_activity"]
    user, server = (datetime.fromisoformat(one) for one in found)
    return user, server


class Since:
    """What stands in the hub's log from now on."""

    def __init__(self, hub: Hub) -> None:
        self.hub, self.mark = hub, len(hub.log_text)

    def count(self, request: str) -> int:
        return self.hub.log_text[self.mark :].count(request)

    def wait_for(self, request: str, times: int) -> None:
        wait_for(f"{times} x {request}", lambda: self.count(request) >= times, 60)


POLL = "200 GET /hub/api/escape/tokens"
REPORT = "200 POST /hub/api/users/alice/activity"


def test_the_agents_polls_keep_nobody_active_and_the_idle_session_can_be_culled(
    hub: Hub, alice: AtWork
) -> None:
    files = alice.look().directory["path"]
    Since(hub).wait_for(REPORT, 3)  # what was done until now is reported

    before, window = last_activity(hub), Since(hub)
    window.wait_for(POLL, POLLS)
    window.wait_for(REPORT, 2)  # the server itself had the chance to say "active"
    assert last_activity(hub) == before

    # The clock of activity does run: something done in the kernel moves both.
    alice.assert_kernel_lives()
    wait_for("real activity to count", lambda: all_later(before, last_activity(hub)), 30)

    as_culler(hub, "DELETE", "users/alice/server")
    wait_for("the server to stop", lambda: not as_culler(hub, "GET", "users/alice")["servers"])
    assert not [p for p in hub.token_root.rglob("*") if p.is_file()], files


def all_later(before: tuple[datetime, datetime], now: tuple[datetime, datetime]) -> bool:
    return all(n > b for b, n in zip(before, now, strict=True))

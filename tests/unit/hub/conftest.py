"""A hub for a whole module (starting one takes a second), put right again for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.unit.hub.browser import Browser
from tests.unit.hub.in_process import HubInTest, hub_in_test

#: Traits that tests change; they get their values back.
CHANGED = ("allowed_groups", "allowed_users", "admin_groups", "blocked_users", "contact")
CHANGED += ("post_auth_hook", "username_claim", "revoke_on_logout", "logout_at_issuer")
CHANGED += ("logout_method",)


def assert_nothing_broke(hub: HubInTest) -> None:
    """A handler may fail after its answer is out: then only the log tells."""
    lines = [record.getMessage() for record in hub.app.records]
    assert not [line for line in lines if line.startswith("Uncaught exception")]
    hub.app.records.clear()


@pytest.fixture(scope="module")
def hub_config() -> Callable[[Any], None] | None:
    """A module overrides this to change the hub's configuration."""
    return None


@pytest.fixture(scope="module")
def iam_config() -> dict[str, Any]:
    """A module overrides this to configure its IAM."""
    return {}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_hub(
    tmp_path_factory: pytest.TempPathFactory,
    hub_config: Callable[[Any], None] | None,
    iam_config: dict[str, Any],
) -> AsyncIterator[HubInTest]:
    directory = tmp_path_factory.mktemp("hub")
    async with hub_in_test(directory, config=hub_config, iam=iam_config) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def hub(shared_hub: HubInTest) -> AsyncIterator[HubInTest]:
    """The module's hub without users, its IAM without faults.

    A test that puts the clock forward takes `fresh_hub`: a clock never goes back.
    """
    authenticator = shared_hub.authenticator
    before = {name: getattr(authenticator, name) for name in CHANGED}
    yield shared_hub
    assert_nothing_broke(shared_hub)
    for name, value in before.items():
        setattr(authenticator, name, value)
    await shared_hub.iam.faults()
    await shared_hub.iam.control("POST", "counters/reset")
    await shared_hub.delete_everybody()


@pytest_asyncio.fixture(loop_scope="module")
async def alice(hub: HubInTest) -> AsyncIterator[Browser]:
    browser = Browser(hub)
    yield browser
    await browser.client.aclose()


@pytest_asyncio.fixture(loop_scope="module")
async def fresh_hub(
    tmp_path: Path,
    hub_config: Callable[[Any], None] | None,
    iam_config: dict[str, Any],
) -> AsyncIterator[HubInTest]:
    """A hub for one test alone, which knows nothing of its issuer yet."""
    async with hub_in_test(tmp_path, config=hub_config, iam=iam_config) as found:
        yield found
        assert_nothing_broke(found)


@pytest_asyncio.fixture(loop_scope="module")
async def fresh_alice(fresh_hub: HubInTest) -> AsyncIterator[Browser]:
    browser = Browser(fresh_hub)
    yield browser
    await browser.client.aclose()

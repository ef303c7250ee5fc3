"""One hub, one IAM and one Chromium; every address shown is a canary channel."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.browser.pages import Window, launch
from tests.harness.stage import Stage

EXTRA = """
c.JupyterHub.admin_access = True
c.EscapeAuthenticator.contact = "support@example.org"
"""


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("browser")
    iam = {"access_token_lifetime": 60, "consent": True, "end_session": True}
    with Stage(directory, {"extra": EXTRA}, iam) as running:
        yield running
    assert running.leaks() == []


@pytest.fixture
def window(chromium: Browser, stage: Stage, request: pytest.FixtureRequest) -> Iterator[Window]:
    """A new window with no cookies; its addresses are searched for secrets at the end."""
    one = Window(chromium.new_context(viewport={"width": 1280, "height": 800}), stage.hub.url)
    yield one
    one.close()
    stage.iam.faults()
    for kind, values in stage.iam.issued().items():
        # A code passes through the callback's address by design of OAuth; it must not stay there.
        stage.canaries.add(kind, values)
    assert stage.canaries.look_in("the address bar", "\n".join(one.rested).encode()) == []


@pytest.fixture(scope="session", autouse=True)
def screenshots_are_fresh() -> None:
    from tests.browser.pages import SHOTS

    SHOTS.mkdir(parents=True, exist_ok=True)
    for old in Path(SHOTS).glob("*.png"):
        old.unlink()

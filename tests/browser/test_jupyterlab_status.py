"""The data lake's item in JupyterLab's status bar, in a real JupyterLab with a scripted hub."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, Request, expect

from tests.browser.pages import SHOTS
from tests.fakes.hub_api import Behaviour, FakeHub
from tests.unit.session.jupyter import ROOT, TOKEN, Server, environment, serve

AUDIENCES = {"eos": "eos-eulake", "rucio": "rucio"}
NEEDS_LOGIN = {
    "reason": "needs_login",
    "message": "your sign-in ended, sign in again",
    "reference": "login-required",
    "wipe": False,
    "next_poll": 2,
}


@pytest.fixture(scope="module")
def hub() -> Iterator[FakeHub]:
    with FakeHub(Behaviour(audiences=AUDIENCES, next_poll=2)) as running:
        yield running


@pytest.fixture(scope="module")
def lab(hub: FakeHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """JupyterLab with the status bar's part taken from the source tree."""
    path = tmp_path_factory.mktemp("lab")
    source = Path(ROOT) / "escape_hub/session/labextension"
    shutil.copytree(source, path / "labextensions/escape-hub")
    extra = f"--LabApp.extra_labextensions_path={path / 'labextensions'}"
    news = "--LabApp.news_url=None"
    with serve(path, environment(hub, path / "t"), extra, news, module="jupyterlab") as running:
        yield running


@pytest.fixture
def page(chromium: Browser, hub: FakeHub, lab: Server) -> Iterator[Page]:
    """A page of a fresh profile, in an hour of its own; errors of ours in its console fail."""
    hub.behaviour.mode = "good"
    context = chromium.new_context(viewport={"width": 1280, "height": 800}, timezone_id="UTC")
    found: list[str] = []

    def note(message: ConsoleMessage) -> None:
        if message.type == "error" and "escape" in (message.text + str(message.location)).lower():
            found.append(message.text)

    one = context.new_page()
    one.on("console", note)
    yield one
    context.close()
    assert found == []


def open_lab(page: Page, lab: Server) -> None:
    page.goto(f"{lab.url}/lab?token={TOKEN}")
    expect(page.locator(".jp-EscapeHub-item")).to_be_visible(timeout=60_000)


def test_a_click_on_the_fresh_item_shows_each_audience(page: Page, lab: Server) -> None:
    open_lab(page, lab)
    item = page.get_by_role("button", name="Data lake: fresh")
    item.focus()
    page.keyboard.press("Enter")
    details = page.locator(".jp-EscapeHub-details")
    for label in ("EOS storage", "Rucio catalogue"):
        expect(details.get_by_text(label)).to_be_visible()
    expect(details.get_by_role("link")).to_have_count(0)
    expect(details).not_to_contain_text("token")
    page.screenshot(path=SHOTS / "jupyterlab-fresh.png")
    page.get_by_role("button", name="Close").click()
    expect(details).to_have_count(0)


def test_a_sign_in_that_ended_is_told_once_and_the_notice_goes_after_a_new_one(
    page: Page, lab: Server, hub: FakeHub
) -> None:
    open_lab(page, lab)
    hub.behaviour.refusal = (409, NEEDS_LOGIN)
    hub.behaviour.mode = "refuse"
    page.locator(".jp-EscapeHub-item").click()
    page.get_by_role("button", name="Ask again now").click()
    notice = page.locator(".Toastify__toast").filter(has_text="your sign-in ended")
    expect(notice).to_be_visible(timeout=30_000)
    expect(notice).to_have_count(1)
    page.screenshot(path=SHOTS / "jupyterlab-sign-in.png")
    with page.expect_popup() as popup:
        notice.get_by_role("button", name="Sign in again").click()
    assert popup.value.url.endswith("/hub/oauth_login")
    popup.value.close()
    page.get_by_role("button", name="Data lake: sign in again").click()
    link = page.get_by_role("link", name="Sign in again")
    assert (
        link.get_attribute("href", timeout=5000) == lab.url.split("/user")[0] + "/hub/oauth_login"
    )
    assert (link.get_attribute("target"), link.get_attribute("rel")) == ("_blank", "noopener")
    hub.behaviour.mode = "good"
    details = page.locator(".jp-EscapeHub-details")
    expect(details.get_by_text("fresh: renews by itself", exact=False)).to_be_visible(
        timeout=30_000
    )
    expect(notice).to_have_count(0)


def test_a_page_that_nobody_sees_asks_nothing_and_asks_at_once_when_seen(
    page: Page, lab: Server
) -> None:
    asked: list[Request] = []
    page.clock.install()
    page.on("request", lambda r: asked.append(r) if "/escape-hub/status" in r.url else None)
    open_lab(page, lab)
    set_hidden(page, True)
    page.clock.fast_forward(120_000)  # what was planned before may come due, to nothing
    before = len(asked)
    page.clock.fast_forward(3_600_000)
    assert len(asked) == before
    with page.expect_response("**/escape-hub/status*"):
        set_hidden(page, False)
    seen = len(asked)
    for _ in range(100):  # the next one is planned once the page has read the reply
        page.clock.fast_forward(31_000)
        if len(asked) > seen:
            break
    assert len(asked) > seen
    assert all("no_track_activity=1" in r.url for r in asked)


def set_hidden(page: Page, hidden: bool) -> None:
    page.evaluate(
        f"""() => {{
            Object.defineProperty(document, 'hidden', {{value: {json.dumps(hidden)},
                                                       configurable: true}});
            document.dispatchEvent(new Event('visibilitychange'));
        }}"""
    )

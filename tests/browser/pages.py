"""A window of Debian's Chromium, and pictures of what it shows."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from playwright.sync_api import Browser, BrowserContext, Page, Playwright

SHOTS = Path(os.environ.get("ESCAPE_HUB_TEST_OUTPUT", "test-output")) / "screenshots"
SIZES = {"wide": (1280, 800), "narrow": (390, 844)}
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def launch(playwright: Playwright) -> Browser:
    """Debian's Chromium, without the calls home that a closed network would only delay."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    return playwright.chromium.launch(executable_path=path, args=QUIET)


class Window:
    """A browser window at ``hub``. ``rested`` holds every address it came to rest at."""

    def __init__(self, context: BrowserContext, hub: str) -> None:
        self.context, self.hub = context, hub
        self.page: Page = context.new_page()
        self.rested: list[str] = []
        self.page.on("load", lambda page: self.rested.append(page.url))

    def close(self) -> None:
        self.context.close()

    def shoot(self, name: str) -> None:
        """Pictures of the page as it stands: both themes, wide and narrow."""
        before = self.page.viewport_size
        self.page.mouse.move(0, 0)
        for theme in ("light", "dark"):
            self.page.emulate_media(color_scheme=theme)  # type: ignore[arg-type]
            for size, (width, height) in SIZES.items():
                self.page.set_viewport_size({"width": width, "height": height})
                path = SHOTS / f"{name}-{theme}-{size}.png"
                self.page.screenshot(path=path, full_page=True, animations="disabled")
        self.page.emulate_media(color_scheme="light")
        if before:
            self.page.set_viewport_size(before)

    def assert_fits(self) -> None:
        """Nothing sticks out to the right on a narrow screen."""
        self.page.set_viewport_size({"width": 390, "height": 844})
        wide = self.page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390, f"{self.page.url} is {wide} px wide on a 390 px screen"
        self.page.set_viewport_size({"width": 1280, "height": 800})

    def press_sign_in(self) -> None:
        self.page.goto(f"{self.hub}hub/login")
        self.page.get_by_role("link", name="Sign in with ESCAPE IAM").click()

    def give_password(self, user: str, password: str | None = None) -> None:
        self.page.get_by_label("User name").fill(user)
        self.page.get_by_label("Password").fill(user if password is None else password)
        self.page.get_by_role("button", name="Sign in").click()

    def sign_in(self, user: str = "alice") -> None:
        """From the hub's page through the IAM's own pages, with consent if it asks."""
        self.press_sign_in()
        self.give_password(user)
        allow = self.page.get_by_role("button", name="Allow")
        if allow.count():
            allow.click()
        self.page.wait_for_url(f"{self.hub}**")

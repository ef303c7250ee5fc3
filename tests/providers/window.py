"""A real browser at a provider's own pages, on its way from the hub and back to it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from playwright.sync_api import BrowserContext, Error, Locator, expect

from tests.browser.pages import Window
from tests.harness import Person
from tests.providers.provider import Pages

MAX_PAGES = 8


class ProviderWindow(Window):
    """A window with cookies of its own. ``passwords`` counts how often one was asked for."""

    def __init__(self, context: BrowserContext, hub: str, pages: Pages) -> None:
        super().__init__(context, hub)
        self.pages = pages
        self.passwords = 0

    def sign_in(self, user: str = "alice") -> None:
        """The hub's button, then whatever the provider shows, until the hub has the person."""
        with self.page.expect_navigation(url=re.compile(rf"^(?!{re.escape(self.hub)})")):
            self.press_sign_in()
        self.agree(user)
        refused = self.page.locator(".escape-reference code")
        assert not refused.count(), f"{self.page.url}: {refused.inner_text()}"

    def sign_out(self) -> None:
        """The hub's logout, which leads to the provider's, and back from there."""
        self._goto(f"{self.hub}hub/logout")
        # A form there sends itself to the provider.
        self.page.wait_for_url(re.compile(r"^(?!.*/hub/logout)"))
        self.agree("")

    def sign_out_at(self, end_session: str) -> None:
        """At the provider itself, where nobody knows of the hub."""
        self._goto(end_session)
        with self.page.expect_navigation():
            self._agreeing(self.pages.logout).click()

    def agree(self, user: str) -> None:
        """Give name and password, consent, confirm: what the provider's pages want."""
        for _ in range(MAX_PAGES):
            if self.page.url.startswith(self.hub):
                return
            with self.page.expect_navigation():
                self._step(user).click()
        raise AssertionError(f"{self.page.url} leads nowhere")

    def _step(self, user: str) -> Locator:
        """Fill in the page that is there; the button to press."""
        if self._named(self.pages.password).count():
            self.passwords += 1
            self._named(self.pages.username).fill(user)
            self._named(self.pages.password).fill(user)
            return self._button_beside(self.pages.password)
        for wanted in (self.pages.consent, self.pages.logout):
            if any(self._named(name).count() for name in wanted):
                return self._agreeing(wanted)
        raise AssertionError(f"{self.page.url} is unknown: {self.page.inner_text('body')[:500]}")

    def _agreeing(self, wanted: Mapping[str, str]) -> Locator:
        for name, value in wanted.items():
            choice = self.page.locator(f"input[type=radio][name='{name}'][value='{value}']")
            if choice.count():
                choice.check()
        for name in wanted:
            button = self.page.locator(f"button[name='{name}'], input[type=submit][name='{name}']")
            if button.count():
                return button.first
        return self._button_beside(next(iter(wanted)))

    def _named(self, name: str) -> Locator:
        return self.page.locator(f"[name='{name}']")

    def _button_beside(self, name: str) -> Locator:
        """The first button that sends the form with the field ``name``."""
        form = self.page.locator("form", has=self._named(name))
        return form.locator("button:not([type=button]), input[type=submit]").first

    def start_session(self, user: str) -> None:
        """Choose the first environment and wait until the session is reached."""
        self._goto(f"{self.hub}hub/spawn")
        self.page.locator("fieldset input[type=radio]").first.check(force=True)
        self.page.locator("form button[type=submit], form input[type=submit]").last.click()
        lab = re.compile(rf"/user/{user}/lab")
        self.page.wait_for_url(lab, timeout=90_000, wait_until="commit")
        self._leave()

    def visit_session(self, user: str) -> None:
        """Get the cookies of the session that runs."""
        self._goto(f"{self.hub}user/{user}/lab", wait_until="commit")
        self._leave()

    def _goto(self, url: str, **options: Any) -> None:
        """Again when the machine's network changed on the way (containers beside us)."""
        try:
            self.page.goto(url, **options)
        except Error as error:
            if "ERR_NETWORK_CHANGED" not in error.message:
                raise
            self.page.goto(url, **options)

    def _leave(self) -> None:
        # What the tests read comes from a kernel; JupyterLab need not be drawn for that.
        self._goto("about:blank")

    def assert_signed_out(self) -> None:
        """The hub's home page wants a sign-in."""
        self._goto(f"{self.hub}hub/home")
        expect(self.page.get_by_role("link", name="Sign in with ESCAPE IAM")).to_be_visible()

    def person(self, user: str) -> Person:
        """The same person with the same cookies, for the hub's API and for kernels."""
        found = Person(self.hub, user)
        for cookie in self.context.cookies():
            if re.match(r"/(hub|user)/|/$", cookie["path"]):
                found.client.cookies.set(
                    cookie["name"], cookie["value"], domain=cookie["domain"], path=cookie["path"]
                )
        return found

"""Somebody at a hub in the test: a browser without a screen."""

from __future__ import annotations

import re
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

import httpx

from tests.unit.hub.in_process import HubInTest


class Browser:
    """Somebody's browser: cookies, no automatic redirects."""

    def __init__(self, hub: HubInTest) -> None:
        self.hub = hub
        self.client = httpx.AsyncClient(timeout=30)

    async def get(self, url: str, **options: Any) -> httpx.Response:
        return await self.client.get(urljoin(self.hub.url, url), **options)

    async def follow(self, response: httpx.Response, *, within: str = "") -> httpx.Response:
        """Follow redirects; ``within``: only to addresses that begin so."""
        while response.has_redirect_location:
            target = str(response.next_request.url) if response.next_request else ""
            if within and not target.startswith(within):
                return response
            response = await self.client.get(target)
        return response

    async def to_issuer(self, next_url: str = "") -> httpx.Response:
        """Press the button: the redirect to the issuer."""
        return await self.get("hub/oauth_login", params={"next": next_url} if next_url else {})

    async def at_issuer(self, start: httpx.Response, user: str = "alice") -> str:
        """Fill in the issuer's form: the address that leads back to the hub."""
        iam = self.hub.iam.url
        page = await self.follow(await self.client.get(start.headers["Location"]), within=iam)
        while not page.has_redirect_location:  # already: the issuer knew this browser
            page = await self.follow(await self.submit(page, user), within=iam)
        return str(page.headers["Location"])

    async def submit(
        self, page: httpx.Response, user: str = "alice", **fields: str
    ) -> httpx.Response:
        """Fill in the issuer's form."""
        action = re.search(r'<form method="post" action="([^"]+)"', page.text)
        key = re.search(r'name="key" value="([^"]+)"', page.text)
        assert action, page.text
        fields = {"username": user, "password": user, **fields} | ({"key": key[1]} if key else {})
        return await self.client.post(urljoin(str(page.url), unescape(action[1])), data=fields)

    async def leave_issuer(self) -> None:
        """The issuer no longer knows this browser."""
        for cookie in list(self.client.cookies.jar):
            if "iam" in cookie.name:
                self.client.cookies.jar.clear(cookie.domain, cookie.path, cookie.name)

    async def login(self, user: str = "alice", next_url: str = "") -> httpx.Response:
        """Sign in; the answer to the callback, not followed."""
        return await self.client.get(await self.at_issuer(await self.to_issuer(next_url), user))

    async def page(self, response: httpx.Response) -> httpx.Response:
        """Where the hub's own redirects end."""
        return await self.follow(response, within=self.hub.url)

    @property
    def xsrf(self) -> str:
        found = [c for c in self.client.cookies.jar if c.name == "_xsrf" and c.path == "/hub/"]
        return str(found[0].value) if found else ""

    async def api(self, method: str, path: str, **options: Any) -> httpx.Response:
        headers = {"X-XSRFToken": self.xsrf, "Referer": f"{self.hub.url}hub/home"}
        url = f"{self.hub.url}hub/api/{path}"
        return await self.client.request(method, url, headers=headers, **options)


def query(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query))


async def refused(browser: Browser, response: Any, status: int, *words: str) -> str:
    """The refusal's page, which must be at an address without code; returns its text."""
    page = await browser.page(response)
    assert page.status_code == status, page.text
    assert not page.url.query or "next" in str(page.url.query)
    for word in words:
        assert word in page.text, page.text
    assert "Traceback" not in page.text
    home = await browser.get("hub/home")
    assert home.status_code == 302, "somebody is signed in"
    return page.text

"""A person's browser at a provider's own pages: forms, cookies, redirects; no scripts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

import httpx

from tests.harness.person import forms
from tests.providers.provider import Pages

MAX_STEPS = 12


class Browser:
    """Follows what a provider shows until it sends the person to an address of the hub."""

    def __init__(self, pages: Pages) -> None:
        self.pages = pages
        self.client = httpx.Client(timeout=60, follow_redirects=False)
        # Keycloak's cookies are Secure even on loopback http: browsers send them back there,
        # Python's cookie jar does not.
        self.client.event_hooks = {"response": [self._loopback_is_secure]}

    def close(self) -> None:
        self.client.close()

    def login(
        self, url: str, target: str, user: str, password: str | None = None
    ) -> dict[str, str]:
        """Sign in from an authorization URL; the parameters that arrive at ``target``."""
        password = user if password is None else password
        return self._walk(self.client.get(url), target, user, password)

    def logout(self, url: str, target: str) -> dict[str, str]:
        """Visit an end-session URL, agreeing where asked; what arrives at ``target``."""
        return self._walk(self.client.get(url), target, "", "")

    def _walk(self, page: httpx.Response, target: str, user: str, password: str) -> dict[str, str]:
        seen_password = False
        for _ in range(MAX_STEPS):
            if page.is_redirect:
                where = urljoin(str(page.url), page.headers["Location"])
                if where.split("?")[0] == target:
                    return dict(parse_qsl(urlsplit(where).query))
                page = self.client.get(where)
                continue
            form = self._form(page)
            values = dict(form["fields"])
            if self.pages.password in values:
                assert not seen_password, f"{user} is not let in: {page.text[:2000]}"
                seen_password = True
                values |= {self.pages.username: user, self.pages.password: password}
            else:
                values = self._agree(values)
            page = self._send(page, form, values)
        raise AssertionError(f"{page.url} leads nowhere")

    def _form(self, page: httpx.Response) -> dict[str, Any]:
        """The form that is the page's business: pages have others, for a logout or a language."""
        found = forms(page)
        assert found, f"{page.url} ({page.status_code}) has no form: {page.text[:500]}"
        for fields in ({self.pages.password}, {*self.pages.consent}, {*self.pages.logout}):
            for form in found:
                if fields & set(form["fields"]):
                    return form
        return found[0]

    def _agree(self, values: dict[str, str]) -> dict[str, str]:
        """A consent or a logout page: what the agreeing button sends, not the refusing one."""
        values.pop("deny", None)
        is_consent = any(name in values for name in self.pages.consent)
        return {**values, **(self.pages.consent if is_consent else self.pages.logout)}

    def _send(
        self, page: httpx.Response, form: Mapping[str, Any], values: Mapping[str, str]
    ) -> httpx.Response:
        where = urljoin(str(page.url), form["action"] or str(page.url))
        if form["method"] == "post":
            return self.client.post(where, data=dict(values))
        return self.client.get(where, params=dict(values))

    def _loopback_is_secure(self, _: httpx.Response) -> None:
        for cookie in self.client.cookies.jar:
            cookie.secure = False

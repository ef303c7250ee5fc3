"""Back from the issuer's logout: with our state, without one, with somebody else's."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.unit.hub.browser import Browser, query
from tests.unit.hub.in_process import HubInTest, hub_in_test

pytestmark = pytest.mark.asyncio(loop_scope="module")
DOUBT = "Are you signed out?"


@pytest.fixture(scope="module")
def iam_config() -> dict[str, Any]:
    return {"end_session": True}


async def leave(browser: Browser) -> httpx.Response:
    """Sign in and out; the page that leads to the issuer."""
    await browser.login()
    return await browser.get("hub/logout")


async def back(browser: Browser, page: httpx.Response) -> str:
    """Send the page's form to the issuer: where the issuer sends the browser."""
    fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', unescape(page.text)))
    iam = browser.hub.iam.url
    answer = await browser.client.post(f"{iam}end_session", data=fields)
    location: str = (await browser.follow(answer, within=iam)).headers["Location"]
    return location


async def doubts(answer: httpx.Response) -> None:
    assert answer.status_code == 400, answer.text
    assert DOUBT in answer.text
    assert "logout-state-" in answer.text
    assert 'href="/hub/login"' in answer.text
    assert answer.headers["Cache-Control"] == "no-store"


async def test_with_the_state_that_was_sent_the_way_ends_at_the_login_page(
    hub: HubInTest, alice: Browser
) -> None:
    address = await back(alice, await leave(alice))
    assert address.startswith(f"{hub.url}hub/escape/signed_out?")
    assert len(query(address)["state"]) >= 43
    assert (await alice.get(address)).headers["Location"] == "/hub/login"


async def test_each_logout_has_a_state_of_its_own_which_only_its_browser_knows(
    hub: HubInTest, alice: Browser
) -> None:
    page = await leave(alice)
    cookie = page.headers["Set-Cookie"]
    mine = next(c for c in page.headers.get_list("Set-Cookie") if "escape-logout-state" in c)
    for flag in ("HttpOnly", "SameSite=Lax", "Path=/hub/escape/signed_out", "Max-Age=3600"):
        assert flag in mine, cookie
    first = query(await back(alice, page))["state"]
    second = query(await back(alice, await leave(alice)))["state"]
    assert first != second


async def test_without_a_state_nobody_claims_that_the_issuer_signed_out(
    hub: HubInTest, alice: Browser
) -> None:
    """rp-init-logout-no-state."""
    await back(alice, await leave(alice))
    await doubts(await alice.get("hub/escape/signed_out"))
    assert (await alice.get("hub/home")).status_code == 302


@pytest.mark.parametrize("other", ["state=other", "state=", "state=%ff", "state=SENT&state=SENT"])
async def test_with_another_state_nobody_claims_that_the_issuer_signed_out(
    hub: HubInTest, alice: Browser, other: str
) -> None:
    """rp-init-logout-other-state."""
    sent = query(await back(alice, await leave(alice)))["state"]
    await doubts(await alice.get(f"hub/escape/signed_out?{other.replace('SENT', sent)}"))


async def test_a_state_counts_once(hub: HubInTest, alice: Browser) -> None:
    address = await back(alice, await leave(alice))
    await alice.get(address)
    await doubts(await alice.get(address))


async def test_a_link_of_a_stranger_signs_nobody_out(hub: HubInTest, alice: Browser) -> None:
    await alice.login()
    await doubts(await alice.get("hub/escape/signed_out?state=a-strangers"))
    assert (await alice.get("hub/home")).status_code == 200


async def test_an_operators_own_page_comes_after_the_issuers(
    hub: HubInTest, alice: Browser
) -> None:
    hub.authenticator.logout_redirect_url = "https://www.example.org/bye"
    try:
        address = await back(alice, await leave(alice))
        assert (await alice.get(address)).headers["Location"] == "https://www.example.org/bye"
    finally:
        hub.authenticator.logout_redirect_url = ""


async def test_an_id_token_hint_that_ran_out_long_ago_is_still_good(
    fresh_hub: HubInTest, fresh_alice: Browser
) -> None:
    await fresh_alice.login()
    fresh_hub.iam.shift = 3000
    address = await back(fresh_alice, await fresh_alice.get("hub/logout"))
    assert (await fresh_alice.get(address)).headers["Location"] == "/hub/login"


@pytest_asyncio.fixture(loop_scope="module")
async def hub_that_signs_in_by_itself(tmp_path: Path) -> AsyncIterator[HubInTest]:
    def change(c: Any) -> None:
        c.EscapeAuthenticator.auto_login = True

    async with hub_in_test(tmp_path, config=change, iam={"end_session": True}) as found:
        yield found


async def test_with_auto_login_the_way_ends_at_a_page_that_signs_nobody_in(
    hub_that_signs_in_by_itself: HubInTest,
) -> None:
    alice = Browser(hub_that_signs_in_by_itself)
    answer = await alice.get(await back(alice, await leave(alice)))
    assert answer.status_code == 200
    assert "<title>Signed out" in answer.text
    await alice.client.aclose()

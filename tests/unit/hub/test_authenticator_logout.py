"""Signing out: of the hub, of the sessions where nobody needs them, of the issuer."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from escape_hub.hub.issuer import Issuer
from tests.unit.hub.browser import Browser
from tests.unit.hub.in_process import HubInTest, hub_in_test

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def iam_config() -> dict[str, Any]:
    return {"end_session": True}


async def spawn(hub: HubInTest, browser: Browser) -> str:
    await browser.get("hub/home")
    answer = await browser.api("POST", "users/alice/server", json={})
    assert answer.status_code in {201, 202}, answer.text
    spawner = hub.user("alice").spawners[""]
    if spawner._spawn_future:
        await spawner._spawn_future
    token: str = spawner.api_token
    return token


async def alive(hub: HubInTest, refresh_token: str) -> bool:
    return (await hub.iam.refresh(refresh_token)).status_code == 200


async def test_without_a_running_server_a_logout_revokes_and_clears(
    hub: HubInTest, alice: Browser
) -> None:
    await alice.login()
    before = await hub.state("alice")
    await alice.get("hub/logout")
    after = await hub.state("alice")
    assert not await alive(hub, before.refresh_token)
    assert after.refresh_token is None
    assert after.login_token is None
    assert after.id_token is None
    assert not after.exchanged
    assert (after.needs_login.code, after.needs_login.wipe) == ("logged-out", True)
    assert (await alice.get("hub/home")).status_code == 302


async def test_a_server_that_goes_on_keeps_its_access(hub: HubInTest, alice: Browser) -> None:
    await alice.login()
    token = await spawn(hub, alice)
    before = await hub.state("alice")
    await alice.get("hub/logout")
    assert (await hub.state("alice")).refresh_token == before.refresh_token
    async with httpx.AsyncClient(headers={"Authorization": f"token {token}"}) as session:
        assert (await session.get(f"{hub.url}hub/api/escape/tokens")).status_code == 200
    assert (await alice.get("hub/home")).status_code == 302
    assert await alive(hub, before.refresh_token)


async def test_with_shutdown_on_logout_servers_stop_and_access_ends(
    hub: HubInTest, alice: Browser
) -> None:
    hub.settings["shutdown_on_logout"] = True
    try:
        await alice.login()
        await spawn(hub, alice)
        before = await hub.state("alice")
        await alice.get("hub/logout")
    finally:
        hub.settings["shutdown_on_logout"] = False
    assert not hub.user("alice").active
    assert not await alive(hub, before.refresh_token)
    assert (await hub.state("alice")).needs_login.wipe


async def test_the_way_to_the_issuers_logout_has_no_token_in_its_address(
    hub: HubInTest, alice: Browser
) -> None:
    await alice.login()
    state = await hub.state("alice")
    page = await alice.get("hub/logout")
    assert page.status_code == 200
    assert f'action="{hub.iam.url}end_session"' in unescape(page.text)
    assert state.id_token in page.text
    assert page.headers["Cache-Control"] == "no-store"
    fields = {
        "id_token_hint": state.id_token,
        "client_id": "escape-hub",
        "post_logout_redirect_uri": f"{hub.url}hub/escape/signed_out",
        "state": alice.client.cookies["escape-logout-state"],
    }
    for name, value in fields.items():
        assert f'name="{name}" value="{value}"' in unescape(page.text)
    back = await alice.client.post(f"{hub.iam.url}end_session", data=fields)
    back = await alice.follow(back, within=hub.iam.url)
    assert back.has_redirect_location, back.text
    assert back.headers["Location"].startswith(f"{hub.url}hub/escape/signed_out")
    assert (await alice.get(back.headers["Location"])).headers["Location"] == "/hub/login"
    again = await alice.follow(
        await alice.client.get((await alice.to_issuer()).headers["Location"]), within=hub.iam.url
    )
    assert "password" in again.text, "the issuer still knows the browser"


async def test_an_issuer_that_takes_no_post_is_reached_by_a_redirect(
    hub: HubInTest, alice: Browser
) -> None:
    hub.authenticator.logout_method = "get"
    await alice.login()
    page = await alice.get("hub/logout")
    assert page.status_code == 303
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Location"].startswith(f"{hub.iam.url}end_session?id_token_hint=")
    back = await alice.follow(page, within=hub.iam.url)
    assert back.headers["Location"].startswith(f"{hub.url}hub/escape/signed_out")
    assert (await alice.get(back.headers["Location"])).headers["Location"] == "/hub/login"


async def test_without_logout_at_the_issuer_the_login_page_follows(
    hub: HubInTest, alice: Browser
) -> None:
    hub.authenticator.logout_at_issuer = False
    await alice.login()
    page = await alice.get("hub/logout")
    assert page.headers["Location"] == "/hub/login"


async def test_an_operators_own_page_follows_a_logout(hub: HubInTest, alice: Browser) -> None:
    hub.authenticator.logout_at_issuer = False
    hub.authenticator.logout_redirect_url = "https://www.example.org/bye"
    try:
        await alice.login()
        page = await alice.get("hub/logout")
        assert page.headers["Location"] == "https://www.example.org/bye"
    finally:
        hub.authenticator.logout_redirect_url = ""


async def test_an_issuer_that_is_down_holds_up_no_logout(hub: HubInTest, alice: Browser) -> None:
    await alice.login()
    await hub.iam.faults(revoke={"mode": "503"})
    assert (await alice.get("hub/logout")).status_code == 200
    assert (await hub.state("alice")).refresh_token is None


async def test_an_issuer_that_hangs_and_was_never_asked_holds_up_no_logout(
    hub: HubInTest, alice: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    await alice.login()
    monkeypatch.setattr("escape_hub.hub.logout.ISSUER_PATIENCE", 0.2)
    authenticator = hub.authenticator
    # As after a restart of the hub: nothing is known of the issuer yet.
    cold = Issuer(authenticator.issuer_settings, clock=authenticator.clock)
    monkeypatch.setattr(authenticator, "issuer_client", cold)
    await hub.iam.faults(discovery={"mode": "hang"})
    began = time.monotonic()
    page = await alice.get("hub/logout")
    assert page.headers["Location"] == "/hub/login"
    assert time.monotonic() - began < 10
    assert (await hub.state("alice")).refresh_token is None
    await cold.aclose()


async def test_who_is_not_signed_in_can_sign_out(alice: Browser) -> None:
    assert (await alice.get("hub/logout")).headers["Location"] == "/hub/login"


@pytest_asyncio.fixture(loop_scope="module")
async def hub_that_does_not_revoke(tmp_path: Path) -> AsyncIterator[HubInTest]:
    def change(c: Any) -> None:
        c.EscapeAuthenticator.revoke_on_logout = False

    async with hub_in_test(tmp_path, config=change) as found:
        yield found


async def test_revocation_can_be_switched_off(hub_that_does_not_revoke: HubInTest) -> None:
    hub = hub_that_does_not_revoke
    alice = Browser(hub)
    await alice.login()
    before = await hub.state("alice")
    await alice.get("hub/logout")
    assert (await hub.state("alice")).refresh_token is None
    assert await alive(hub, before.refresh_token)
    await alice.client.aclose()

"""Staying signed in: who is sent to the login again, when, and who never is."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from escape_hub.core.auth_state import NeedsLogin
from escape_hub.errors import NotAllowedError
from tests.unit.hub.browser import Browser
from tests.unit.hub.in_process import HubInTest

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOUR = 3600


async def signed_in(browser: Browser) -> bool:
    """Whether a page of the hub is shown rather than the way to the login."""
    answer = await browser.get("hub/home")
    assert answer.status_code in {200, 302}, answer.text
    return answer.status_code == 200


def forget_last_look(hub: HubInTest, name: str = "alice") -> None:
    """As if `auth_refresh_age` had passed since the hub last looked."""
    hub.user(name)._auth_refreshed = None


async def later(hub: HubInTest, seconds: float) -> None:
    """Both clocks, the hub's and the issuer's, move on."""
    hub.clock.shift += seconds
    hub.iam.shift += seconds
    forget_last_look(hub)


async def needs_login(hub: HubInTest) -> None:
    state = await hub.state("alice")
    reason = NeedsLogin("refresh-refused", "sign in again", hub.clock.now())
    await hub.authenticator.runtime.store.save("alice", state.next(needs_login=reason))
    forget_last_look(hub)


async def start_server(hub: HubInTest, browser: Browser) -> str:
    """Start alice's server; its own API token."""
    await browser.get("hub/home")
    answer = await browser.api("POST", "users/alice/server", json={})
    assert answer.status_code in {201, 202}, answer.text
    user = hub.user("alice")
    if future := user.spawners[""]._spawn_future:
        await future
    token: str = user.spawners[""].api_token
    return token


@pytest.fixture
def hub(fresh_hub: HubInTest) -> HubInTest:
    return fresh_hub


@pytest.fixture
def alice(fresh_alice: Browser) -> Browser:
    return fresh_alice


async def test_pages_ask_no_issuer_while_nothing_is_due(hub: HubInTest, alice: Browser) -> None:
    await alice.login()
    before = await hub.iam.counters()
    for _ in range(5):
        forget_last_look(hub)
        assert await signed_in(alice)
    assert (await hub.iam.counters())["grants"] == before["grants"]


async def test_a_page_renews_what_can_no_longer_wait(hub: HubInTest, alice: Browser) -> None:
    await alice.login()
    old = await hub.state("alice")
    await later(hub, HOUR - 60)
    assert await signed_in(alice)
    new = await hub.state("alice")
    assert new.generation > old.generation
    assert new.exchanged["rucio"].value != old.exchanged["rucio"].value


async def test_an_issuer_that_is_away_logs_nobody_out_within_the_grace(
    hub: HubInTest, alice: Browser
) -> None:
    await alice.login()
    await hub.iam.faults(token={"mode": "503"}, userinfo={"mode": "503"})
    await later(hub, 2 * HOUR)  # every token has expired
    assert await signed_in(alice)
    await later(hub, hub.authenticator.outage_grace)
    assert not await signed_in(alice)


async def test_a_rotated_client_secret_logs_nobody_out_even_over_a_weekend(
    hub: HubInTest, alice: Browser
) -> None:
    await alice.login()
    await hub.iam.faults(invalid_client=True)
    await later(hub, 2 * HOUR)
    assert await signed_in(alice)
    await later(hub, 60 * HOUR)
    assert await signed_in(alice)
    await hub.iam.faults()
    await later(hub, HOUR)
    assert await signed_in(alice)
    assert not (await hub.state("alice")).failures


async def test_a_page_does_not_wait_for_an_issuer_that_takes_too_long(
    hub: HubInTest, alice: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("escape_hub.hub.authenticator.PAGE_PATIENCE", 0.2)
    await alice.login()
    await hub.iam.faults(delay=1.0)
    before = await hub.state("alice")
    await later(hub, 2 * HOUR)
    assert await signed_in(alice)
    assert (await hub.state("alice")).generation == before.generation  # nobody waited for it


async def test_who_must_sign_in_again_is_sent_there_by_a_page(
    hub: HubInTest, alice: Browser
) -> None:
    await alice.login()
    await needs_login(hub)
    answer = await alice.get("hub/home")
    assert answer.status_code == 302
    assert "/hub/login" in answer.headers["Location"]


async def test_a_spawn_by_who_must_sign_in_again_is_no_internal_error(
    hub: HubInTest, alice: Browser
) -> None:
    # JupyterHub 6.1 reads an attribute here that it sets for tokens only.
    await alice.login()
    await alice.get("hub/home")
    await needs_login(hub)
    hub.user("alice")._auth_refreshed = float("inf")  # only the spawn itself looks
    answer = await alice.api("POST", "users/alice/server", json={})
    assert answer.status_code in {400, 403}, answer.text


async def test_a_running_servers_own_requests_are_never_turned_away(
    hub: HubInTest, alice: Browser
) -> None:
    await alice.login()
    token = await start_server(hub, alice)
    await needs_login(hub)
    async with httpx.AsyncClient(headers={"Authorization": f"token {token}"}) as session:
        url = f"{hub.url}hub/api/users/alice/activity"
        activity = {"servers": {"": {"last_activity": "2026-01-01T00:00:00Z"}}}
        forget_last_look(hub)
        answer = await session.post(url, json=activity)
        assert answer.status_code == 200, answer.text
        forget_last_look(hub)
        assert (await session.get(f"{hub.url}hub/api/user")).status_code == 200


async def test_a_refresh_never_answers_no_to_a_token_or_to_somebody_else(
    hub: HubInTest, alice: Browser
) -> None:
    await alice.login()
    await needs_login(hub)
    user, refresh = hub.user("alice"), hub.authenticator.refresh_user
    assert await refresh(user, Request()) is False
    assert await refresh(user, Request(_jupyterhub_user=user)) is False
    assert await refresh(user, Request(_token_authenticated=True)) is True
    assert await refresh(user, Request(_jupyterhub_user=Request(name="bob"))) is True
    assert await refresh(user, None) is True


class Request:
    """What a refresh looks at of a request handler."""

    def __init__(self, **attributes: Any) -> None:
        self.__dict__.update(attributes)


async def test_an_administrator_can_start_the_server_of_who_must_sign_in_again(
    hub: HubInTest, alice: Browser
) -> None:
    hub.authenticator.admin_groups = {"escape/cms"}
    bob = Browser(hub)
    await bob.login("bob")
    await alice.login()
    state = await hub.state("bob")
    reason = NeedsLogin("refresh-refused", "sign in again", hub.clock.now())
    await hub.authenticator.runtime.store.save("bob", state.next(needs_login=reason))
    await alice.get("hub/home")
    answer = await alice.api("POST", "users/bob/server", json={})
    assert answer.status_code in {201, 202}, answer.text
    await bob.client.aclose()


async def test_state_of_another_authenticator_leads_to_a_login(
    hub: HubInTest, alice: Browser
) -> None:
    await alice.login()
    await hub.user("alice").save_auth_state({"access_token": "x", "exchanged_tokens": {}})
    forget_last_look(hub)
    assert not await signed_in(alice)
    await alice.login()
    assert await signed_in(alice)


async def test_a_group_that_is_lost_ends_the_access_at_the_next_renewal_with_the_reason(
    hub: HubInTest, alice: Browser
) -> None:
    await alice.login()
    await hub.iam.faults(users={"alice": {"groups": ["elsewhere"]}})
    await later(hub, HOUR - 60)
    assert not await signed_in(alice)
    state = await hub.state("alice")
    assert state.needs_login.code == "not-allowed"
    assert state.needs_login.wipe
    assert "'escape'" in state.needs_login.message
    assert not state.exchanged
    assert {g.name for g in hub.user("alice").groups} == {"elsewhere"}


async def test_a_person_who_is_blocked_loses_access_at_the_next_renewal(
    hub: HubInTest, alice: Browser
) -> None:
    await alice.login()
    hub.authenticator.blocked_users = {"alice"}
    await later(hub, HOUR - 60)
    assert not await signed_in(alice)
    assert (await hub.state("alice")).needs_login.code == "blocked"


async def test_a_scope_that_is_no_longer_granted_lets_nobody_go_on(
    hub: HubInTest, alice: Browser
) -> None:
    hub.authenticator.allowed_groups = set()
    hub.authenticator.allowed_scopes = ["email"]
    await alice.login()
    state = await hub.state("alice")
    await hub.authenticator.authorize("alice", state.claims)
    narrower = state.next(scope=("openid", "offline_access"))
    await hub.authenticator.runtime.store.save("alice", narrower)
    with pytest.raises(NotAllowedError):
        await hub.authenticator.authorize("alice", state.claims)


async def test_admin_rights_follow_the_group_at_each_renewal(
    hub: HubInTest, alice: Browser
) -> None:
    hub.authenticator.admin_groups = {"escape/cms"}
    await alice.login()
    assert hub.user("alice").admin
    assert "admin" in {r.name for r in hub.user("alice").roles}
    await hub.iam.faults(users={"alice": {"groups": ["escape"]}})
    await later(hub, HOUR - 60)
    assert await signed_in(alice)
    assert not hub.user("alice").admin
    assert "admin" not in {r.name for r in hub.user("alice").roles}
    assert {g.name for g in hub.user("alice").groups} == {"escape"}


async def test_a_session_that_is_too_old_needs_a_login(hub: HubInTest, alice: Browser) -> None:
    await alice.login()
    await later(hub, hub.authenticator.max_session_age + HOUR)
    assert not await signed_in(alice)


async def test_a_login_heals_who_had_to_sign_in_again(hub: HubInTest, alice: Browser) -> None:
    await alice.login()
    await needs_login(hub)
    assert not await signed_in(alice)
    await alice.login()
    assert await signed_in(alice)
    assert (await hub.state("alice")).needs_login is None

"""What people are told about their access, and the button \"renew now\"."""

from __future__ import annotations

import httpx
import pytest

from escape_hub.core.auth_state import NeedsLogin
from tests.unit.hub.browser import Browser
from tests.unit.hub.in_process import HubInTest
from tests.unit.hub.sessions import Session, refused, spawn

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_people_are_told_how_each_audience_stands_and_never_a_token(
    hub: HubInTest, alice: Browser
) -> None:
    await hub.iam.faults(refuse_audience=["eos-eulake"])
    await alice.login()
    answer = await alice.api("GET", "escape/status")
    assert answer.status_code == 200
    body = answer.json()
    assert body["state"] == "refused"
    assert body["sign_in_url"] == "/hub/oauth_login?next=%2Fhub%2Fhome"
    eos, rucio = body["audiences"]
    assert (eos["name"], eos["label"], eos["state"]) == ("eos", "EOS storage", "refused")
    assert eos["reference"]
    assert eos["expires_at"] is None
    assert rucio["state"] == "fresh"
    assert rucio["lifetime"] == 3600
    state = await hub.state("alice")
    assert state.exchanged["rucio"].value not in answer.text
    assert state.refresh_token not in answer.text


async def test_the_status_of_who_must_sign_in_again_can_still_be_read(
    hub: HubInTest, alice: Browser
) -> None:
    await alice.login()
    await alice.get("hub/home")
    state = await hub.state("alice")
    reason = NeedsLogin("the-code", "the reason", hub.clock.now())
    await hub.authenticator.runtime.store.save("alice", state.next(needs_login=reason))
    hub.user("alice")._auth_refreshed = None
    body = (await alice.api("GET", "escape/status")).json()
    assert (body["state"], body["reference"]) == ("sign_in", "the-code")


async def test_renew_now_renews_and_is_for_people_with_xsrf_alone(
    hub: HubInTest, alice: Browser
) -> None:
    await alice.login()
    session = Session(hub, await spawn(hub, alice))
    await alice.get("hub/home")
    old = await hub.state("alice")
    answer = await alice.api("POST", "escape/renew")
    assert answer.status_code == 200
    assert answer.json()["state"] == "fresh"
    new = await hub.state("alice")
    assert new.exchanged["eos"].value != old.exchanged["eos"].value
    without = await alice.client.post(f"{hub.url}hub/api/escape/renew")
    assert without.status_code == 403
    async with httpx.AsyncClient(headers={"Authorization": f"token {session.token}"}) as client:
        by_token = await client.post(f"{hub.url}hub/api/escape/renew")
    assert by_token.status_code == 403


async def test_renew_now_cannot_be_pressed_all_the_time(fresh_alice: Browser) -> None:
    await fresh_alice.login()
    await fresh_alice.get("hub/home")
    answers = [await fresh_alice.api("POST", "escape/renew") for _ in range(4)]
    assert [a.status_code for a in answers] == [200, 200, 200, 429]
    refused(answers[-1], 429, "rate_limited")


@pytest.mark.parametrize("path", ["escape/status", "escape/renew"])
async def test_strangers_read_no_status(hub: HubInTest, path: str) -> None:
    stranger = Browser(hub)
    method = "GET" if path.endswith("status") else "POST"
    assert (await stranger.api(method, path)).status_code == 403
    await stranger.client.aclose()

"""Who gets access tokens from the hub, and what people are told about their access."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio
from jupyterhub import orm

from escape_hub.core.auth_state import NeedsLogin
from tests.unit.hub.in_process import SERVER_SCOPES, TOKEN_SCOPE, Browser, HubInTest

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Session:
    """A running server of alice, and what it asks the hub."""

    def __init__(self, hub: HubInTest, token: str) -> None:
        self.hub, self.token = hub, token

    async def ask(self, token: str | None = None, **params: Any) -> httpx.Response:
        headers = {"Authorization": f"token {self.token if token is None else token}"}
        async with httpx.AsyncClient(headers=headers) as client:
            return await client.get(f"{self.hub.url}hub/api/escape/tokens", params=params)


async def spawn(hub: HubInTest, browser: Browser, name: str = "") -> str:
    await browser.get("hub/home")
    path = f"users/alice/servers/{name}" if name else "users/alice/server"
    answer = await browser.api("POST", path, json={})
    assert answer.status_code in {201, 202}, answer.text
    spawner = hub.user("alice").spawners[name]
    if spawner._spawn_future:
        await spawner._spawn_future
    token: str = spawner.api_token
    return token


@pytest.fixture(scope="module")
def hub_config() -> Callable[[Any], None]:
    def change(c: Any) -> None:
        c.JupyterHub.allow_named_servers = True

    return change


@pytest_asyncio.fixture(loop_scope="module")
async def session(hub: HubInTest, alice: Browser) -> AsyncIterator[Session]:
    await alice.login()
    yield Session(hub, await spawn(hub, alice))


def refused(answer: httpx.Response, status: int, reason: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    body: dict[str, Any] = answer.json()
    assert body["reason"] == reason
    assert set(body) == {"reason", "message", "reference", "wipe", "next_poll"}
    assert body["message"]
    assert answer.headers["Content-Type"].startswith("application/json")
    return body


async def test_a_server_gets_its_owners_access_tokens_and_nothing_more(
    hub: HubInTest, session: Session
) -> None:
    answer = await session.ask()
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    body = answer.json()
    state = await hub.state("alice")
    assert body["version"] == 1
    assert body["generation"] == state.generation
    assert body["state"] == "fresh"
    assert 1 <= body["next_poll"] <= 300
    assert set(body["audiences"]) == {"eos", "rucio"}
    for name, row in body["audiences"].items():
        assert row["access_token"] == state.exchanged[name].value
        assert 3500 < row["expires_in"] <= 3600
        assert row["expires_at"] == state.exchanged[name].expires_at
        assert row["renewed_at"] == state.exchanged[name].obtained_at
        assert row["label"]
    for secret in (state.refresh_token, state.id_token, state.login_token.value):
        assert secret not in answer.text


async def test_min_valid_period_renews_what_would_end_earlier(
    fresh_hub: HubInTest, fresh_alice: Browser
) -> None:
    await fresh_alice.login()
    session = Session(fresh_hub, await spawn(fresh_hub, fresh_alice))
    first = (await session.ask()).json()
    fresh_hub.clock.shift = fresh_hub.iam.shift = 2400  # 1200 s are left
    same = (await session.ask(min_valid_period=1000)).json()
    assert same["generation"] == first["generation"]
    longer = (await session.ask(min_valid_period=1300)).json()
    assert longer["audiences"]["rucio"]["expires_in"] > 3500


@pytest.mark.parametrize("wrong", ["-1", "soon", "nan", "inf", "86401", "1e99", ""])
async def test_a_min_valid_period_that_is_none_is_refused(session: Session, wrong: str) -> None:
    refused(await session.ask(min_valid_period=wrong), 400, "invalid")


async def test_nobody_without_a_token_gets_any(hub: HubInTest, session: Session) -> None:
    refused(await session.ask("0" * 32), 401, "unauthorized")
    async with httpx.AsyncClient() as client:
        refused(await client.get(f"{hub.url}hub/api/escape/tokens"), 401, "unauthorized")


async def test_a_browser_never_gets_any(session: Session, alice: Browser) -> None:
    refused(await alice.api("GET", "escape/tokens"), 403, "forbidden")
    plain = await alice.get("hub/api/escape/tokens")
    refused(plain, 403, "forbidden")


async def test_a_token_that_the_user_made_gets_none_whatever_its_note_and_scopes(
    hub: HubInTest, session: Session, alice: Browser
) -> None:
    wish = {"note": "Server at /user/alice/", "scopes": [f"{TOKEN_SCOPE}!user"]}
    made = await alice.api("POST", "users/alice/tokens", json=wish)
    assert made.status_code == 201, made.text
    body = refused(await session.ask(made.json()["token"]), 403, "forbidden")
    assert "not a server's own" in body["message"]


async def test_a_guests_token_for_a_shared_server_gets_none(
    hub: HubInTest, session: Session
) -> None:
    bob = Browser(hub)
    await bob.login("bob")
    # What JupyterHub issues to the browser of a guest of alice's server.
    guest = hub.user("bob").new_api_token(
        note="guest", scopes=[], client_id="jupyterhub-user-alice"
    )
    refused(await session.ask(guest), 403, "forbidden")
    owners_browser = hub.user("alice").new_api_token(
        note="browser", scopes=[], client_id="jupyterhub-user-alice"
    )
    refused(await session.ask(owners_browser), 403, "forbidden")
    await bob.client.aclose()


async def test_a_service_gets_none(hub: HubInTest, session: Session) -> None:
    db = hub.app.db
    service = orm.Service(name="a-service")
    db.add(service)
    db.commit()
    refused(await session.ask(service.new_api_token(scopes=[])), 403, "forbidden")
    db.delete(service)
    db.commit()


async def test_a_server_token_without_the_scope_gets_none(hub: HubInTest, session: Session) -> None:
    row = orm.APIToken.find(hub.app.db, session.token)
    assert row is not None
    row.scopes = [s for s in row.scopes if not s.startswith(TOKEN_SCOPE)]
    hub.app.db.commit()
    assert "scope" in refused(await session.ask(), 403, "forbidden")["message"]


async def test_the_token_of_a_stopped_server_is_worth_nothing(
    hub: HubInTest, session: Session, alice: Browser
) -> None:
    row = orm.APIToken.find(hub.app.db, session.token)
    await alice.api("DELETE", "users/alice/server")
    refused(await session.ask(), 401, "unauthorized")
    assert row is not None
    # A new token may get the id of the old one; it is still not a server's.
    made = await alice.api("POST", "users/alice/tokens", json={"note": "mine"})
    refused(await session.ask(made.json()["token"]), 403, "forbidden")


async def test_each_server_of_a_user_asks_with_its_own_token(
    hub: HubInTest, session: Session, alice: Browser
) -> None:
    second = await spawn(hub, alice, "second")
    assert (await session.ask(second)).status_code == 200
    await alice.api("DELETE", "users/alice/servers/second")
    refused(await session.ask(second), 401, "unauthorized")
    assert (await session.ask()).status_code == 200


async def test_too_many_requests_of_one_session_are_told_when_to_come_back(
    session: Session,
) -> None:
    answers = [await session.ask() for _ in range(14)]
    late = [a for a in answers if a.status_code == 429]
    assert [a.status_code for a in answers[:10]] == [200] * 10
    assert late
    refused(late[0], 429, "rate_limited")
    assert int(late[0].headers["Retry-After"]) >= 1


@pytest.mark.parametrize("wipe", [True, False])
async def test_who_must_sign_in_is_told_so_and_whether_the_files_go(
    hub: HubInTest, session: Session, wipe: bool
) -> None:
    state = await hub.state("alice")
    reason = NeedsLogin("the-code", "the reason", hub.clock.now(), wipe=wipe)
    await hub.authenticator.runtime.store.save("alice", state.next(needs_login=reason))
    body = refused(await session.ask(), 409, "needs_login")
    assert body["wipe"] is wipe
    assert body["reference"] == "the-code"
    assert body["message"] == "the reason"


async def test_a_session_without_a_stored_sign_in_is_told_to_sign_in(
    hub: HubInTest, session: Session
) -> None:
    await hub.user("alice").save_auth_state(None)
    assert refused(await session.ask(), 409, "needs_login")["wipe"] is False


async def test_an_issuer_that_is_down_leaves_the_living_tokens(
    hub: HubInTest, session: Session
) -> None:
    await hub.iam.faults(token={"mode": "503"})
    body = (await session.ask(min_valid_period=80_000)).json()
    assert body["audiences"]["rucio"]["access_token"]


async def test_the_agents_requests_are_no_activity_of_the_user_or_the_server(
    hub: HubInTest, session: Session, alice: Browser
) -> None:
    user = hub.user("alice")
    mine = (await alice.api("POST", "users/alice/tokens", json={"note": "mine"})).json()["token"]
    hub.settings["activity_resolution"] = 0
    before = (user.last_activity, user.spawners[""].orm_spawner.last_activity)
    for _ in range(3):
        assert (await session.ask()).status_code == 200
    hub.app.db.expire_all()
    assert (user.last_activity, user.spawners[""].orm_spawner.last_activity) == before
    await session.ask(mine)  # refused, and the user's own doing
    hub.app.db.expire_all()
    assert user.last_activity != before[0], "the measure of this test does not work"


async def test_a_spawn_whose_token_lacks_the_scope_is_refused_and_says_which_fragment(
    hub: HubInTest, alice: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    await alice.login()
    await alice.get("hub/home")
    spawner = hub.user("alice").spawners[""]
    spawner.server_token_scopes = [s for s in SERVER_SCOPES if not s.startswith(TOKEN_SCOPE)]
    answer = await alice.api("POST", "users/alice/server", json={})
    assert answer.status_code == 503, answer.text
    assert "40_roles.py" in caplog.text
    assert not spawner.active


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
    hub: HubInTest, session: Session, alice: Browser
) -> None:
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

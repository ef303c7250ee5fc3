"""Who gets access tokens from the hub, and what people are told about their access."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
import pytest_asyncio
from jupyterhub import orm

from escape_hub.core.auth_state import NeedsLogin
from tests.unit.hub.browser import Browser
from tests.unit.hub.in_process import SERVER_SCOPES, TOKEN_SCOPE, HubInTest
from tests.unit.hub.sessions import Session, refused, spawn

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def hub_config() -> Callable[[Any], None]:
    def change(c: Any) -> None:
        c.JupyterHub.allow_named_servers = True

    return change


@pytest_asyncio.fixture(loop_scope="module")
async def session(hub: HubInTest, alice: Browser) -> AsyncIterator[Session]:
    await alice.login()
    yield Session(hub, await spawn(hub, alice))


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

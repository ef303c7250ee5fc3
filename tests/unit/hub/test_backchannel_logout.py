"""The issuer says that somebody signed out there, or somebody else pretends to be the issuer."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import suppress
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from jupyterhub import orm

from escape_hub.core.auth_state import ForeignAuthStateError
from escape_hub.demo.iam.config import CLIENT_ID
from escape_hub.demo.iam.handlers_logout import logout_token
from tests.unit.hub.browser import Browser
from tests.unit.hub.in_process import HubInTest, hub_in_test
from tests.unit.hub.sessions import Session, refused, spawn

pytestmark = pytest.mark.asyncio(loop_scope="module")

#: What is wrong with a logout_token, and the reason that must be in the hub's log.
HOSTILE = {
    "alg_none": "alg",
    "hs256": "alg",
    "hs256_public_key": "alg",
    "no_event": "events",
    "wrong_event": "events",
    "with_nonce": "nonce",
    "wrong_aud": "aud",
    "missing_aud": "aud",
    "missing_azp": "azp",
    "wrong_azp": "azp",
    "wrong_iss": "iss",
    "missing_iss": "iss",
    "iss_without_slash": "iss-slash",
    "expired": "exp",
    "missing_exp": "exp",
    "missing_iat": "iat",
    "iat_future": "iat",
    "nbf_future": "nbf",
    "missing_jti": "jti",
    "missing_sub_and_sid": "sub",
    "bad_signature": "signature",
    "foreign_key": "signature",
    "crit": "crit",
    "typ_at_jwt": "typ",
    "oversize": "size",
}
#: Signed with keys that the issuer does not publish.
STRANGERS = ("kid_unknown", "weak_key", "jku", "embedded_jwk")


@pytest.fixture(scope="module")
def iam_config() -> dict[str, Any]:
    return {"end_session": True, "backchannel_logout": True}


@pytest.fixture
def hub(hub: HubInTest) -> HubInTest:
    """To which every test is a new stranger."""
    hub.authenticator.runtime.limits["backchannel"]._buckets.clear()
    return hub


async def tell(hub: HubInTest, user: str = "alice", **body: Any) -> list[int]:
    """The IAM sends logout_tokens; the statuses, once the hub has done what follows.

    Of the session that the hub knows: of two logins within a second the IAM's
    "newest" may be the other.
    """
    if "sid" not in body and orm.User.find(hub.app.db, user) is not None:
        with suppress(ForeignAuthStateError):
            body["sid"] = (await hub.state(user)).sid
    told = (await hub.iam.control("POST", "backchannel_logout", {"user": user, **body})).json()
    await hub.authenticator.runtime.backchannel.finish()
    return [answer["status"] for answer in told["told"]]


def token(hub: HubInTest, user: str = "alice", sid: str = "", **changes: Any) -> str:
    """A logout_token that is not sent."""
    iam = hub.iam.server.request_callback.iam  # type: ignore[attr-defined]
    return logout_token(iam, CLIENT_ID, sub=iam.user(user).sub, sid=sid, **changes)


async def post(hub: HubInTest, **options: Any) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.post(f"{hub.url}hub/escape/backchannel_logout", **options)


async def last_sent(hub: HubInTest) -> str:
    """The logout_token that the IAM sent last."""
    found: str = (await hub.iam.control("GET", "issued")).json()["logout_tokens"][-1]
    return found


async def goes_on(hub: HubInTest, browser: Browser) -> bool:
    """Nothing of the person's sign-in has ended."""
    await hub.authenticator.runtime.backchannel.finish()
    state = await hub.state("alice")
    return (await browser.get("hub/home")).status_code == 200 and bool(state.refresh_token)


def log_of(hub: HubInTest) -> str:
    return "\n".join(record.getMessage() for record in hub.app.records)


@pytest_asyncio.fixture(loop_scope="module")
async def session(hub: HubInTest, alice: Browser) -> AsyncIterator[Session]:
    await alice.login()
    yield Session(hub, await spawn(hub, alice))


async def test_a_logout_at_the_issuer_ends_the_sign_in_and_no_server(
    hub: HubInTest, alice: Browser, session: Session
) -> None:
    before = await hub.state("alice")
    assert await tell(hub) == [200]
    after = await hub.state("alice")
    assert (await hub.iam.refresh(before.refresh_token)).status_code == 400
    assert after.refresh_token is None
    assert after.login_token is None
    assert after.id_token is None
    assert not after.exchanged
    body = refused(await session.ask(), 409, "needs_login")
    assert body["wipe"] is True
    assert body["reference"] == "logged-out-at-issuer"
    assert "ESCAPE IAM" in body["message"]
    assert (await alice.get("hub/home")).status_code == 302
    assert hub.user("alice").spawners[""].active
    assert "event=logout user=alice audience=- outcome=ok reference=back-channel" in log_of(hub)


async def test_a_login_afterwards_gives_the_running_session_its_tokens_again(
    hub: HubInTest, alice: Browser, session: Session
) -> None:
    await tell(hub)
    await alice.login()
    assert (await session.ask()).status_code == 200


async def test_the_answer_is_empty_and_nobody_keeps_it(hub: HubInTest) -> None:
    answer = await post(hub, data={"logout_token": token(hub)})
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize("what", [*HOSTILE, *STRANGERS])
async def test_a_hostile_logout_token_ends_nothing(
    hub: HubInTest, alice: Browser, what: str
) -> None:
    await alice.login()
    assert await tell(hub, hostile=what) == [400]
    assert await goes_on(hub, alice)
    refusals = [line for line in log_of(hub).splitlines() if "Back-channel logout refused" in line]
    assert len(refusals) == 1
    reason = f"[logout-token-{HOSTILE[what]}]" if what in HOSTILE else "[jwks-"
    assert reason in refusals[0]


async def test_a_refusal_says_so_as_the_standard_wants_it_and_quotes_nothing(
    hub: HubInTest,
) -> None:
    hostile = token(hub, mutations="wrong_event")
    answer = await post(hub, data={"logout_token": hostile})
    assert answer.status_code == 400
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.json()["error"] == "invalid_request"
    for part in hostile.split("."):
        assert part not in answer.text + log_of(hub)


async def test_the_same_token_counts_once(hub: HubInTest, alice: Browser) -> None:
    await alice.login()
    assert await tell(hub, times=3) == [200, 400, 400]
    await alice.login()
    assert (await post(hub, data={"logout_token": await last_sent(hub)})).status_code == 400
    assert await goes_on(hub, alice)


async def test_a_token_without_a_person_means_the_session_of_the_issuer(
    hub: HubInTest, alice: Browser
) -> None:
    await alice.login()
    bob = Browser(hub)
    await bob.login("bob")
    assert await tell(hub, hostile="missing_sub") == [200]
    assert not await goes_on(hub, alice)
    assert (await bob.get("hub/home")).status_code == 200
    assert (await hub.state("bob")).refresh_token
    await bob.client.aclose()


async def test_a_token_without_a_session_means_the_person(hub: HubInTest, alice: Browser) -> None:
    await alice.login()
    assert await tell(hub, sid=False) == [200]
    assert not await goes_on(hub, alice)


async def test_of_another_session_of_the_person_only_browsers_are_signed_out(
    hub: HubInTest, alice: Browser, session: Session
) -> None:
    assert await tell(hub, sid="an-earlier-session") == [200]
    assert (await alice.get("hub/home")).status_code == 302
    assert (await session.ask()).status_code == 200
    assert (await hub.state("alice")).refresh_token


async def test_a_session_of_another_person_is_not_enough(hub: HubInTest, alice: Browser) -> None:
    await alice.login()
    bob = Browser(hub)
    await bob.login("bob")
    sid = (await hub.state("alice")).sid
    assert await tell(hub, "bob", sid=sid) == [200]
    assert await goes_on(hub, alice)
    await bob.client.aclose()


async def test_who_never_signed_in_here_is_no_error(hub: HubInTest) -> None:
    assert await tell(hub, "bob") == [200]


async def test_a_renamed_user_is_found(hub: HubInTest, alice: Browser) -> None:
    await alice.login()
    hub.user("alice").name = "alicia"
    hub.app.db.commit()
    assert await tell(hub, sid=False) == [200]
    assert (await hub.state("alicia")).refresh_token is None
    assert (await alice.get("hub/home")).status_code == 302


async def test_a_login_after_the_token_was_made_goes_on(
    fresh_hub: HubInTest, fresh_alice: Browser
) -> None:
    old = token(fresh_hub)
    fresh_hub.clock.shift = fresh_hub.iam.shift = 100
    await fresh_alice.login()
    assert (await post(fresh_hub, data={"logout_token": old})).status_code == 200
    assert await goes_on(fresh_hub, fresh_alice)


async def test_browsers_of_servers_are_signed_out_and_api_tokens_are_kept(
    hub: HubInTest, alice: Browser, session: Session
) -> None:
    user = hub.user("alice")
    browsers = user.new_api_token(client_id="jupyterhub-user-alice", session_id="s", scopes=[])
    script = user.new_api_token(note="a script of alice's", scopes=[])
    await tell(hub)
    assert orm.APIToken.find(hub.app.db, browsers) is None
    assert orm.APIToken.find(hub.app.db, script) is not None
    assert orm.APIToken.find(hub.app.db, session.token) is not None


async def test_with_shutdown_on_logout_servers_stop(
    hub: HubInTest, alice: Browser, session: Session
) -> None:
    hub.settings["shutdown_on_logout"] = True
    try:
        assert await tell(hub) == [200]
    finally:
        hub.settings["shutdown_on_logout"] = False
    assert not hub.user("alice").active
    refused(await session.ask(), 401, "unauthorized")


async def test_revocation_can_be_switched_off(hub: HubInTest, alice: Browser) -> None:
    hub.authenticator.revoke_on_logout = False
    await alice.login()
    before = await hub.state("alice")
    await tell(hub)
    assert (await hub.state("alice")).refresh_token is None
    assert (await hub.iam.refresh(before.refresh_token)).status_code == 200


async def test_state_of_another_authenticator_is_no_obstacle(
    hub: HubInTest, alice: Browser
) -> None:
    await alice.login()
    await hub.user("alice").save_auth_state({"access_token": "x"})
    assert await tell(hub) == [200]
    assert (await alice.get("hub/home")).status_code == 302


async def sign_out_at_issuer(hub: HubInTest, browser: Browser) -> None:
    """What the browser does with the page after the hub's logout; the IAM then tells the hub."""
    page = await browser.get("hub/logout")
    fields = dict(re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', unescape(page.text)))
    assert (await browser.client.post(f"{hub.iam.url}end_session", data=fields)).status_code == 303
    await hub.authenticator.runtime.backchannel.finish()


async def test_a_logout_that_began_here_does_not_come_back_to_end_what_it_left(
    hub: HubInTest, alice: Browser, session: Session
) -> None:
    await sign_out_at_issuer(hub, alice)
    assert (await post(hub, data={"logout_token": await last_sent(hub)})).status_code == 400
    assert (await session.ask()).status_code == 200
    # That is so once: an administrator of the issuer can end it later on.
    assert await tell(hub) == [200]
    refused(await session.ask(), 409, "needs_login")


async def test_who_signed_in_again_meanwhile_can_be_logged_out(
    hub: HubInTest, alice: Browser, session: Session
) -> None:
    await alice.get("hub/logout")  # and the browser never comes to the issuer
    await alice.login()
    assert await tell(hub, sid=False) == [200]
    refused(await session.ask(), 409, "needs_login")


async def test_a_logout_that_left_nothing_may_come_back(hub: HubInTest, alice: Browser) -> None:
    await alice.login()
    await sign_out_at_issuer(hub, alice)
    assert (await hub.state("alice")).refresh_token is None


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"data": {"logout_token": ""}},
        {"data": {"logout_token": "a.b.c"}},
        {"data": {"logout_token": "\u00fcnicode"}},
        {"json": {"logout_token": "TOKEN"}},
        {"params": {"logout_token": "TOKEN"}},
        {"data": {"logout_token": ["TOKEN", "TOKEN"]}},
        {"content": b"\xff\xfe", "headers": {"Content-Type": "application/x-www-form-urlencoded"}},
        {"headers": {"Cookie": "x=y", "Origin": "https://attacker.invalid"}},
    ],
)
async def test_what_is_no_form_with_one_token_is_refused(
    hub: HubInTest, alice: Browser, options: dict[str, Any]
) -> None:
    await alice.login()

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: filled(v) for k, v in value.items()}
        if isinstance(value, list):
            return [filled(v) for v in value]
        return token(hub) if value == "TOKEN" else value

    answer = await post(hub, **filled(options))
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"] == "invalid_request"
    assert await goes_on(hub, alice)


async def test_a_page_cannot_be_used_to_look_at_the_endpoint(hub: HubInTest) -> None:
    async with httpx.AsyncClient() as client:
        answer = await client.get(f"{hub.url}hub/escape/backchannel_logout")
    assert answer.status_code == 405


async def test_who_sends_rubbish_is_told_to_wait_and_the_issuer_may_send_a_thousand(
    fresh_hub: HubInTest,
) -> None:
    hub = fresh_hub
    good = [await post(hub, data={"logout_token": token(hub)}) for _ in range(30)]
    assert {answer.status_code for answer in good} == {200}
    bad = [await post(hub, data={"logout_token": "a.b.c"}) for _ in range(25)]
    assert [answer.status_code for answer in bad] == [400] * 20 + [429] * 5
    assert int(bad[-1].headers["Retry-After"]) >= 1
    assert (await post(hub, data={"logout_token": token(hub)})).status_code == 429
    hub.clock.shift = hub.iam.shift = 10
    assert (await post(hub, data={"logout_token": token(hub)})).status_code == 200


async def test_strangers_make_the_hub_fetch_keys_once_a_minute_for_all_of_them(
    fresh_hub: HubInTest, fresh_alice: Browser
) -> None:
    await fresh_alice.login()

    async def fetches() -> int:
        found: int = (await fresh_hub.iam.counters())["requests"].get("jwk", 0)
        return found

    before = await fetches()
    for _ in range(8):
        hostile = token(fresh_hub, mutations="kid_unknown")
        assert (await post(fresh_hub, data={"logout_token": hostile})).status_code == 400
    assert await fetches() == before + 1


async def test_without_the_issuers_keys_nobody_is_logged_out(
    fresh_hub: HubInTest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("escape_hub.hub.backchannel.PATIENCE", 0.3)
    for mode in ("503", "hang"):
        await fresh_hub.iam.faults(jwk={"mode": mode})
        answer = await post(fresh_hub, data={"logout_token": token(fresh_hub)})
        assert answer.status_code == 400
        assert answer.json()["error"] == "temporarily_unavailable"
        fresh_hub.clock.shift += 6  # a failed fetch is not repeated at once
        fresh_hub.iam.shift += 6
    await fresh_hub.iam.faults()
    fresh_hub.authenticator.issuer_client._keys._keys._flight.cancel()


async def test_the_endpoint_can_be_switched_off(tmp_path: Path) -> None:
    def change(c: Any) -> None:
        c.EscapeAuthenticator.backchannel_logout = False

    async with hub_in_test(tmp_path, config=change) as hub:
        answer = await post(hub, data={"logout_token": token(hub)})
        assert answer.status_code in {403, 404}
        assert not len(hub.authenticator.runtime.backchannel._seen)

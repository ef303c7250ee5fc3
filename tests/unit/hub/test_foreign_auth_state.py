"""What another authenticator left behind, or nobody can read: a login mends it, nothing breaks."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from cryptography.fernet import Fernet
from jupyterhub import crypto

from tests.fakes.iam_peer import Peer
from tests.harness.processes import free_port
from tests.unit.hub.browser import Browser
from tests.unit.hub.conftest import assert_nothing_broke
from tests.unit.hub.in_process import HubInTest, hub_config, iam_client, running
from tests.unit.hub.sessions import Session, refused, spawn

pytestmark = pytest.mark.asyncio(loop_scope="module")

CLAIMS = {"sub": "a-subject", "preferred_username": "alice", "groups": ["escape"]}
#: What each kind of hub stores, encrypted by JupyterHub under the hub's own key.
STORED: dict[str, Any] = {
    # swan-cern's KeyCloakAuthenticator: the exchanged tokens beside the login's.
    "swan": {
        "access_token": "header.payload.signature",
        "refresh_token": "header.payload.signature",
        "exchanged_tokens": {"eos-service": "h.p.s", "rucio": "h.p.s"},
        "oauth_user": CLAIMS,
        "scope": ["openid", "profile"],
    },
    # oauthenticator's GenericOAuthenticator 17.
    "generic": {
        "access_token": "opaque",
        "refresh_token": "opaque",
        "id_token": "header.payload.signature",
        "scope": ["openid"],
        "token_response": {"access_token": "opaque", "expires_in": 3600},
        "oauth_user": CLAIMS,
        "generic_user": CLAIMS,
    },
    "generic without anything": {"access_token": None, "oauth_user": None, "scope": None},
    "an empty object": {},
    "a list": ["access_token"],
    "a text": "access_token",
    "a number": 7,
    "a later version of ours": {"escape_hub": {"version": 99, "generation": 5}},
    "ours without its parts": {"escape_hub": {"version": 1}},
    "ours with wrong parts": {
        "access_token": 7,
        "refresh_token": ["x"],
        "scope": 3,
        "oauth_user": "alice",
        "escape_hub": {
            "version": 1,
            "generation": "many",
            "issuer": None,
            "subject": {},
            "login_at": [],
            "checked_at": "never",
            "exchanged": {"rucio": "token"},
            "failures": {"rucio": {"unheard": "of"}},
            "needs_login": {"what": 1},
        },
    },
}


def under(key: bytes, text: bytes) -> bytes:
    return Fernet(base64.urlsafe_b64encode(key)).encrypt(text)


#: Bytes of the database that JupyterHub's own key does not decrypt to an object.
BYTES: dict[str, Callable[[bytes], bytes]] = {
    "under a key that is lost": lambda key: under(b"x" * 32, json.dumps(STORED["swan"]).encode()),
    "no ciphertext": lambda key: b"garbage",
    "nothing at all": lambda key: b"",
    "no JSON": lambda key: under(key, b"\xff{"),
}


@pytest_asyncio.fixture(loop_scope="module", params=[*STORED, *BYTES])
async def left(hub: HubInTest, alice: Browser, request: Any) -> AsyncIterator[str]:
    """Alice has a cookie and a running server, and something foreign is stored for her."""
    hub.authenticator.runtime.limits["renew"]._buckets.clear()
    await alice.login()
    hub.session = Session(hub, await spawn(hub, alice))  # type: ignore[attr-defined]
    await put(hub, request.param)
    yield request.param


async def put(hub: HubInTest, what: str) -> None:
    user = hub.user("alice")
    if what in STORED:
        await user.save_auth_state(STORED[what])
    else:
        user.orm_user.encrypted_auth_state = BYTES[what](crypto.CryptKeeper.instance().keys[0])
        hub.app.db.commit()
    user._auth_refreshed = None


async def test_pages_lead_to_the_login_sessions_hear_of_it_and_a_login_mends_it(
    hub: HubInTest, alice: Browser, left: str
) -> None:
    session: Session = hub.session  # type: ignore[attr-defined]
    body = refused(await session.ask(), 409, "needs_login")
    assert body["wipe"] is False
    for method, path in (("GET", "escape/status"), ("POST", "escape/renew")):
        answer = await alice.api(method, path)
        assert answer.status_code == 200, answer.text
        assert answer.json()["state"] == "sign_in"
        assert all(row["expires_at"] is None for row in answer.json()["audiences"])
    for page in ("hub/home", "hub/spawn", "hub/token", "hub/", "hub/home"):
        hub.user("alice")._auth_refreshed = None
        answer = await alice.get(page)
        assert answer.status_code == 302, (page, answer.text)
        assert "/hub/login" in (await alice.page(answer)).url.path
    assert not [record.getMessage() for record in hub.app.records if record.exc_info]
    assert (await alice.login()).status_code == 303
    assert (await alice.get("hub/home")).status_code == 200
    state = await hub.state("alice")
    assert state.refresh_token
    assert state.exchanged["rucio"].value
    stored = await hub.user("alice").get_auth_state()
    assert not {"exchanged_tokens", "token_response", "generic_user"} & set(stored)
    assert (await session.ask()).status_code == 200


async def test_what_others_do_with_the_user_is_no_internal_error_nor_is_a_logout(
    hub: HubInTest, alice: Browser, left: str
) -> None:
    hub.authenticator.admin_users = {"bob"}
    bob = Browser(hub)
    await bob.login("bob")
    await bob.get("hub/home")
    assert (await bob.api("GET", "users/alice")).status_code == 200
    assert (await bob.api("DELETE", "users/alice/server")).status_code in {202, 204}
    started = await bob.api("POST", "users/alice/server", json={})
    assert started.status_code < 500, started.text
    await hub.authenticator.broker.forget("alice", reason=None)
    with pytest.raises(Exception, match="sign in again|no sign-in"):
        await hub.authenticator.broker.renew_due("alice")
    assert (await alice.get("hub/logout")).status_code in {200, 302}
    assert (await alice.get("hub/home")).status_code == 302
    await bob.client.aclose()
    hub.authenticator.admin_users = set()


async def test_a_hub_that_takes_over_starts_with_all_of_it(tmp_path: Path) -> None:
    """A server runs, its owner's state is SWAN's: the hub starts, renews nothing, says sign in."""
    port = free_port()
    async with Peer(client=iam_client(port)) as iam:
        config = hub_config(iam, port, tmp_path)
        config.JupyterHub.cleanup_servers = False
        async with running(config, iam, port) as hub:
            alice = Browser(hub)
            await alice.login()
            token = await spawn(hub, alice)
            await put(hub, "swan")
        async with running(config, iam, port) as hub:
            assert hub.user("alice").active
            refused(await Session(hub, token).ask(), 409, "needs_login")
            assert (await alice.get("hub/home")).status_code == 302
            await alice.login()
            assert (await Session(hub, token).ask()).status_code == 200
            assert_nothing_broke(hub)
            await hub.user("alice").stop()
        await alice.client.aclose()

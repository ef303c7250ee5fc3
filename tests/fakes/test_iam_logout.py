"""RP-initiated and back-channel logout of the development IAM."""

from __future__ import annotations

import asyncio
from typing import Any

import jwt
import pytest
import tornado.netutil
import tornado.web
from tornado.httpserver import HTTPServer

from escape_hub.demo.iam.config import CLIENT_ID, CLIENT_SECRET, ClientConfig
from tests.fakes.iam_peer import CALLBACK, Peer, good

AFTER = "http://127.0.0.1:9/hub/login"
EVENT = "http://schemas.openid.net/event/backchannel-logout"


class Receiver:
    """A client's back-channel endpoint that keeps what it gets."""

    def __init__(self) -> None:
        self.tokens: asyncio.Queue[str] = asyncio.Queue()

    async def __aenter__(self) -> Receiver:
        tokens = self.tokens

        class Logout(tornado.web.RequestHandler):
            async def post(self) -> None:
                tokens.put_nowait(self.get_body_argument("logout_token"))
                self.set_status(204)

        sockets = tornado.netutil.bind_sockets(0, "127.0.0.1")
        self.uri = f"http://127.0.0.1:{sockets[0].getsockname()[1]}/logout"
        self.server = HTTPServer(tornado.web.Application([("/logout", Logout)]))
        self.server.add_sockets(sockets)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.stop()
        await self.server.close_all_connections()

    def client(self) -> ClientConfig:
        """A client whose back-channel address this is."""
        return ClientConfig(
            CLIENT_SECRET,
            (CALLBACK,),
            post_logout_redirect_uris=(AFTER,),
            backchannel_logout_uri=self.uri,
        )


def unverified(token: str) -> dict[str, Any]:
    """The claims alone."""
    return dict(jwt.decode(token, options={"verify_signature": False}))


async def test_logout_is_switched_off_as_in_indigo_unless_configured() -> None:
    async with Peer() as iam:
        assert (await iam.http.get("end_session")).status_code == 404
        metadata = good(await iam.http.get(".well-known/openid-configuration"))
        assert "end_session_endpoint" not in metadata


async def test_a_logout_with_a_hint_signs_out_goes_back_and_tells_the_client() -> None:
    async with Receiver() as rp:
        switches = {"end_session": True, "backchannel_logout": True}
        async with Peer(client=rp.client(), **switches) as iam:
            reply = await iam.login()
            hint = {"id_token_hint": reply["id_token"], "client_id": CLIENT_ID}
            query = hint | {"post_logout_redirect_uri": AFTER, "state": "s"}
            done = await iam.http.get("end_session", params=query)
            assert done.status_code == 303 and done.headers["Location"] == f"{AFTER}?state=s"
            assert "Password" in (await iam.authorize()).text
            token = rp.tokens.get_nowait()
            claims = unverified(token)
            assert jwt.get_unverified_header(token)["typ"] == "logout+jwt"
            assert claims["events"] == {EVENT: {}} and "nonce" not in claims
            assert claims["aud"] == CLIENT_ID and claims["exp"] - claims["iat"] == 120
            assert claims["sid"] == unverified(reply["id_token"])["sid"]
            # An offline token outlives the logout: the client revokes it itself.
            good(await iam.refresh(reply["refresh_token"]))


async def test_a_logout_without_a_hint_asks_the_person_first() -> None:
    async with Peer(end_session=True) as iam:
        await iam.sign_in()
        page = await iam.http.get("end_session")
        assert "Sign out?" in page.text
        assert (await iam.authorize()).status_code == 303
        key = page.text.split('name="key" value="')[1].split('"')[0]
        forged = await iam.http.post("end_session", data={"key": "guess"})
        assert "Sign out?" in forged.text
        done = await iam.http.post("end_session", data={"key": key})
        assert "signed out" in done.text
        assert "Password" in (await iam.authorize()).text


@pytest.mark.parametrize(
    "query",
    [
        {"post_logout_redirect_uri": "https://attacker.invalid/", "client_id": CLIENT_ID},
        {"post_logout_redirect_uri": AFTER},
        {"id_token_hint": "garbage"},
    ],
)
async def test_a_logout_leads_to_registered_addresses_only(query: dict[str, str]) -> None:
    async with Receiver() as rp, Peer(client=rp.client(), end_session=True) as iam:
        page = await iam.http.get("end_session", params=query)
        assert page.status_code == 400 and "Location" not in page.headers


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("no_event", lambda c: "events" not in c),
        ("wrong_event", lambda c: EVENT not in c["events"]),
        ("with_nonce", lambda c: "nonce" in c),
        ("wrong_iss", lambda c: c["iss"].startswith("https://attacker")),
        ("wrong_aud", lambda c: c["aud"] != CLIENT_ID),
        ("missing_jti", lambda c: "jti" not in c),
        ("missing_sub_and_sid", lambda c: not {"sub", "sid"} & c.keys()),
    ],
)
async def test_logout_tokens_can_be_hostile(name: str, wrong: Any) -> None:
    async with Receiver() as rp, Peer(client=rp.client()) as iam:
        await iam.login()
        body = {"user": "alice", "hostile": name}
        told = good(await iam.control("POST", "backchannel_logout", body))["told"]
        assert told == [{"client": CLIENT_ID, "status": 204}]
        assert wrong(unverified(rp.tokens.get_nowait()))


async def test_a_logout_token_can_be_replayed_and_leave_out_the_session() -> None:
    async with Receiver() as rp, Peer(client=rp.client()) as iam:
        await iam.login()
        body = {"user": "alice", "times": 2, "sid": False}
        await iam.control("POST", "backchannel_logout", body)
        first, second = rp.tokens.get_nowait(), rp.tokens.get_nowait()
        assert first == second and "sid" not in unverified(first)
        assert first in good(await iam.control("GET", "issued"))["logout_tokens"]


async def test_a_client_that_does_not_answer_is_reported_and_holds_nothing_up() -> None:
    client = ClientConfig(CLIENT_SECRET, (CALLBACK,), backchannel_logout_uri="http://127.0.0.1:9/")
    async with Peer(client=client) as iam:
        told = good(await iam.control("POST", "backchannel_logout", {"user": "alice"}))["told"]
        assert told[0]["status"] == 0 and told[0]["error"]

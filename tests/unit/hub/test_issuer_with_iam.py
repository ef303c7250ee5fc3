"""The issuer's client against the development IAM: every grant, every hostile token.

Names in comments are those of the OpenID Foundation's tests of relying parties.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from escape_hub.clock import SystemClock
from escape_hub.core.audiences import Audience
from escape_hub.core.exchange import TokenReply
from escape_hub.core.oidc import code_challenge
from escape_hub.demo.iam import faults, hostile
from escape_hub.demo.iam.app import make_app
from escape_hub.demo.iam.config import CLIENT_ID, CLIENT_SECRET, ClientConfig, IamConfig
from escape_hub.demo.iam.handlers_logout import logout_token
from escape_hub.demo.iam.service import Iam
from escape_hub.demo.iam.state import SigningKey
from escape_hub.errors import (
    EscapeHubError,
    InvalidTokenError,
    IssuerMisconfiguredError,
    IssuerUnavailableError,
    LoginRequiredError,
    UserActionRequiredError,
)
from escape_hub.hub.issuer import Issuer
from escape_hub.settings import IssuerSettings

SIGNING_KEY = SigningKey.new()  # one for all tests: making it takes longer than most of them
CALLBACK = "http://127.0.0.1:8000/hub/oauth_callback"
SCOPE = "openid profile offline_access"
RUCIO = Audience("rucio", "rucio", "openid profile", "rucio.token")
EOS = Audience("eos", "eos-eulake", "openid", "eos.token", "eos", "EOS", "iam.example/userinfo")


@dataclass
class World:
    """A development IAM, our client of it, and a browser."""

    iam: Iam
    issuer: Issuer
    settings: IssuerSettings
    browser: httpx.AsyncClient

    def fault(self, **raw: Any) -> None:
        self.iam.faults = faults.merge(self.iam.faults, raw)

    async def login(self, user: str = "alice") -> tuple[TokenReply, str]:
        """Sign in as a person would; the reply and the nonce."""
        verifier, nonce = secrets.token_urlsafe(48), secrets.token_urlsafe(16)
        url = await self.issuer.authorization_url(
            CALLBACK, SCOPE, "state-1", nonce, code_challenge(verifier)
        )
        form = {"username": user, "password": user}
        page = await self.browser.post(url.replace("/authorize?", "/login?"), data=form)
        while page.status_code == 303 and not page.headers["Location"].startswith(CALLBACK):
            page = await self.browser.get(page.headers["Location"])
        query = parse_qs(urlsplit(page.headers["Location"]).query)
        assert query["state"] == ["state-1"]
        return await self.issuer.redeem_code(query["code"][0], CALLBACK, verifier), nonce

    async def identity(self) -> dict[str, Any]:
        """Claims of a whole login, as the hub checks them."""
        reply, nonce = await self.login()
        assert reply.id_token is not None
        claims = await self.issuer.verify_id_token(reply.id_token, nonce=nonce)
        await self.issuer.userinfo(reply.access_token.value, subject=claims["sub"])
        return claims

    async def refresh_token(self) -> str:
        reply, _ = await self.login()
        assert reply.refresh_token is not None
        return reply.refresh_token


@pytest.fixture
async def world(caplog: pytest.LogCaptureFixture) -> AsyncIterator[World]:
    caplog.set_level(logging.DEBUG)
    (socket,) = bind_sockets(0, "127.0.0.1")
    port = socket.getsockname()[1]
    client = ClientConfig(CLIENT_SECRET, redirect_uris=(CALLBACK,))
    clock = SystemClock()
    app = make_app(
        IamConfig(port=port, clients={CLIENT_ID: client}, end_session=True),
        now=clock.now,
        signing_key=SIGNING_KEY,
    )
    server = HTTPServer(app)
    server.add_socket(socket)
    settings = IssuerSettings(
        issuer=f"http://127.0.0.1:{port}/",
        client_id=CLIENT_ID,
        client_secret=CLIENT_SECRET,
        total_timeout=5.0,
        trust_env=False,
    )
    issuer = Issuer(settings, clock=clock)
    async with httpx.AsyncClient(trust_env=False) as browser:
        yield World(app.iam, issuer, settings, browser)
    await issuer.aclose()
    server.stop()
    await server.close_all_connections()
    check_canaries(app.iam, caplog.get_records("call"))


def check_canaries(iam: Iam, records: list[logging.LogRecord]) -> None:
    """No secret that the IAM issued or saw is in our log, whatever a test did."""
    # httpx's own lines for the browser of these tests show the addresses it goes to.
    pages = ("/login?", "/authorize?", "/end_session?")
    messages = [record.getMessage() for record in records]
    ours = "\n".join(m for m in messages if not any(page in m for page in pages))
    for kind, values in iam.issued.to_json().items():
        assert [v for v in values if v in ours] == [], kind
    assert CLIENT_SECRET not in ours


async def test_the_canaries_find_a_leak(world: World) -> None:
    reply, _ = await world.login()
    for leak in (reply.access_token.value, reply.refresh_token, reply.id_token, CLIENT_SECRET):
        record = logging.LogRecord("x", logging.DEBUG, "", 1, "sent %s", (leak,), None)
        with pytest.raises(AssertionError):
            check_canaries(world.iam, [record])


async def test_login_refresh_and_both_exchanges(world: World) -> None:
    claims = await world.identity()
    assert claims["preferred_username"] == "alice"
    reply, _ = await world.login()
    assert set(reply.scope) == set(SCOPE.split())
    assert reply.refresh_token is not None
    again = await world.issuer.refresh(reply.refresh_token)
    assert again.id_token is not None
    await world.issuer.verify_id_token(
        again.id_token, nonce=None, same_as=(claims["iss"], claims["sub"])
    )
    for audience in (RUCIO, EOS):
        token = await world.issuer.exchange(again.access_token.value, audience)
        assert token.lifetime == pytest.approx(3600, abs=2)
        assert (await world.issuer.userinfo(token.value))["sub"] == claims["sub"]


# Mutation of the id_token -> our code; None where the token is still good.
ID_TOKENS: dict[str, str | None] = {
    "wrong_iss": "id-token-iss",  # invalid-iss
    "iss_without_slash": "id-token-iss-slash",
    "missing_iss": "id-token-iss",
    "missing_sub": "id-token-sub",  # missing-sub
    "wrong_sub": "userinfo-sub",  # userinfo-invalid-sub, seen from the other side
    "wrong_aud": "id-token-aud",  # invalid-aud
    "missing_aud": "id-token-aud",  # missing-aud
    "several_aud": None,
    "missing_azp": "id-token-azp",
    "wrong_azp": "id-token-azp",
    "missing_iat": "id-token-iat",  # missing-iat
    "iat_future": "id-token-iat",
    "missing_exp": "id-token-exp",
    "expired": "id-token-exp",
    "nbf_future": "id-token-nbf",
    "wrong_nonce": "id-token-nonce",  # nonce-invalid
    "missing_nonce": "id-token-nonce",
    "kid_absent": None,  # kid-absent-single-jwks
    "kid_unknown": "jwks-unknown-kid",
    "alg_none": "id-token-alg",  # idtoken-sig-none
    "hs256": "id-token-alg",  # invalid-sig-hs256
    "hs256_public_key": "id-token-alg",
    "foreign_key": "id-token-signature",
    "es256": None,
    "bad_signature_es256": "id-token-signature",  # invalid-sig-es256
    "weak_key": "jwks-weak-key",
    "bad_signature": "id-token-signature",  # invalid-sig-rs256
    "crit": "id-token-crit",
    "typ_at_jwt": "id-token-typ",
    "typ_logout_jwt": "id-token-typ",
    "typ_jwt": None,
    "jku": "jwks-unknown-kid",
    "embedded_jwk": "jwks-unknown-kid",
    "oversize": "token-reply",
}
LOGOUT_ONLY = {"no_event", "wrong_event", "with_nonce", "missing_jti", "missing_sub_and_sid"}


def test_every_hostile_token_that_the_iam_knows_is_in_the_table() -> None:
    assert set(ID_TOKENS) | LOGOUT_ONLY == set(hostile.TOKEN_MUTATIONS)


@pytest.mark.parametrize(("mutation", "code"), ID_TOKENS.items(), ids=ID_TOKENS)
async def test_hostile_id_tokens(world: World, mutation: str, code: str | None) -> None:
    world.fault(hostile={"id_token": mutation})
    if code is None:
        await world.identity()
        return
    with pytest.raises(EscapeHubError) as caught:
        await world.identity()
    assert caught.value.code == code


async def test_kid_absent_multiple_jwks(world: World) -> None:
    world.iam.rotate_keys(keep_old=True)
    world.fault(hostile={"id_token": "kid_absent"})
    with pytest.raises(InvalidTokenError) as caught:
        await world.identity()
    assert caught.value.code == "jwks-ambiguous"


# refresh-token-invalid-issuer, refresh-token-invalid-sub.
@pytest.mark.parametrize(
    ("mutation", "code"), [("wrong_iss", "id-token-iss"), ("wrong_sub", "id-token-identity")]
)
async def test_hostile_id_tokens_of_a_refresh(world: World, mutation: str, code: str) -> None:
    claims = await world.identity()
    world.fault(hostile={"refresh_id_token": mutation})
    reply = await world.issuer.refresh(await world.refresh_token())
    assert reply.id_token is not None
    with pytest.raises(InvalidTokenError) as caught:
        await world.issuer.verify_id_token(
            reply.id_token, nonce=None, same_as=(claims["iss"], claims["sub"])
        )
    assert caught.value.code == code


@pytest.mark.parametrize("how", ["other", "absent"])
async def test_hostile_userinfo(world: World, how: str) -> None:
    world.fault(hostile={"userinfo_sub": how})
    with pytest.raises(InvalidTokenError) as caught:
        await world.identity()
    assert caught.value.code == "userinfo-sub"


@pytest.mark.parametrize(
    ("mutation", "code"),
    [
        ("wrong_iss", "exchange-iss"),
        ("iss_without_slash", "exchange-iss"),
        ("wrong_aud", "exchange-aud"),
        ("missing_aud", "exchange-aud"),
        ("missing_exp", "exchange-exp"),
        ("expired", "exchange-exp"),
    ],
)
async def test_hostile_exchanged_tokens(world: World, mutation: str, code: str) -> None:
    reply, _ = await world.login()
    world.fault(hostile={"exchanged_token": mutation})
    with pytest.raises(IssuerMisconfiguredError, match="'rucio'") as caught:
        await world.issuer.exchange(reply.access_token.value, RUCIO)
    assert caught.value.code == code


@pytest.mark.parametrize("mutation", hostile.REPLY_MUTATIONS)
async def test_hostile_token_replies(world: World, mutation: str) -> None:
    token = await world.refresh_token()
    world.fault(hostile={"token_reply": mutation})
    harmless = {"no_id_token", "no_refresh_token", "no_expires_in", "expires_in_string"}
    try:
        reply = await world.issuer.refresh(token)
    except IssuerUnavailableError as error:
        assert mutation not in harmless
        assert error.maybe_processed
    except IssuerMisconfiguredError as error:
        assert error.code == "token-type"
        assert mutation in {"no_token_type", "token_type_mac"}
    else:
        assert mutation in harmless
        assert reply.access_token.lifetime == (300 if mutation == "no_expires_in" else 3600)


async def test_discovery_issuer_mismatch(world: World) -> None:
    await world.refresh_token()
    for issuer, code in [
        ("https://attacker.invalid/", "discovery-issuer"),
        (world.settings.issuer.rstrip("/"), "discovery-issuer-slash"),
    ]:
        world.fault(hostile={"discovery_issuer": issuer})
        other = Issuer(world.settings, clock=SystemClock())
        with pytest.raises(IssuerMisconfiguredError) as caught:
            await other.metadata()
        assert caught.value.code == code
        await other.aclose()


@pytest.mark.parametrize("keep_old", [True, False])
async def test_signing_key_rotation(world: World, keep_old: bool) -> None:
    await world.identity()
    world.iam.rotate_keys(keep_old=keep_old)  # and just-before-signing: nothing is cached of it
    await world.identity()


@pytest.mark.parametrize("dialect", ["iam-new", "iam-old", "keycloak"])
class TestRefusals:
    """The same answer to each trouble, whatever words the issuer has for it."""

    async def test_a_dead_refresh_token_wants_a_login(self, world: World, dialect: str) -> None:
        token = await world.refresh_token()
        world.iam.revoke_user("alice")
        world.fault(dialect=dialect)
        with pytest.raises(LoginRequiredError) as caught:
            await world.issuer.refresh(token)
        assert not caught.value.confirm

    async def test_a_spent_refresh_token_wants_a_login(self, world: World, dialect: str) -> None:
        token = await world.refresh_token()
        world.fault(dialect=dialect, refresh_rotation=True)
        assert (await world.issuer.refresh(token)).refresh_token != token
        with pytest.raises(LoginRequiredError):
            await world.issuer.refresh(token)

    async def test_a_suspended_user_is_told(self, world: World, dialect: str) -> None:
        token = await world.refresh_token()
        world.fault(dialect=dialect, suspended=["alice"])
        with pytest.raises(LoginRequiredError) as caught:
            await world.issuer.refresh(token)
        assert caught.value.code == "user-suspended"

    async def test_a_suspended_users_exchange_logs_nobody_out(
        self, world: World, dialect: str
    ) -> None:
        reply, _ = await world.login()
        world.fault(dialect=dialect, suspended=["alice"])
        for fresh, kind in [(True, IssuerMisconfiguredError), (False, IssuerUnavailableError)]:
            with pytest.raises(kind) as caught:
                await world.issuer.exchange(reply.access_token.value, RUCIO, subject_fresh=fresh)
            assert caught.value.code == "exchange-subject-refused"

    async def test_an_unsigned_policy_is_shown(self, world: World, dialect: str) -> None:
        reply, _ = await world.login()
        assert reply.refresh_token is not None
        world.fault(dialect=dialect, aup_unsigned=["alice"])
        with pytest.raises(UserActionRequiredError, match="alice needs to sign AUP"):
            await world.issuer.refresh(reply.refresh_token)
        with pytest.raises(UserActionRequiredError):
            await world.issuer.exchange(reply.access_token.value, RUCIO)
        world.fault(aup_unsigned=[])
        await world.issuer.refresh(reply.refresh_token)

    async def test_a_rotated_client_secret_logs_nobody_out(
        self, world: World, dialect: str
    ) -> None:
        reply, _ = await world.login()
        assert reply.refresh_token is not None
        world.fault(dialect=dialect, invalid_client=True)
        for call in (
            world.issuer.refresh(reply.refresh_token),
            world.issuer.exchange(reply.access_token.value, RUCIO),
            world.issuer.redeem_code("c", CALLBACK, "v"),
            world.issuer.revoke(reply.refresh_token),
        ):
            with pytest.raises(IssuerMisconfiguredError):
                await call

    async def test_a_refused_audience_is_named(self, world: World, dialect: str) -> None:
        reply, _ = await world.login()
        world.fault(dialect=dialect, refuse_audience=["rucio"])
        with pytest.raises(IssuerMisconfiguredError, match="audience 'rucio'"):
            await world.issuer.exchange(reply.access_token.value, RUCIO)
        assert await world.issuer.exchange(reply.access_token.value, EOS)

    async def test_no_error_repeats_a_token(self, world: World, dialect: str) -> None:
        """MITREid echoes them whole."""
        reply, _ = await world.login()
        assert reply.refresh_token is not None
        world.iam.revoke_user("alice")
        world.fault(dialect=dialect)
        for call, secret in [
            (world.issuer.refresh(reply.refresh_token), reply.refresh_token),
            (world.issuer.exchange(reply.access_token.value, RUCIO), reply.access_token.value),
            (world.issuer.userinfo(reply.access_token.value), reply.access_token.value),
        ]:
            with pytest.raises(EscapeHubError) as caught:
                await call
            told = f"{caught.value!r} {vars(caught.value)}"
            assert not any(secret[i : i + 8] in told for i in range(len(secret) - 7))


async def test_a_lost_reply_is_told_and_the_rotated_token_is_indeed_spent(world: World) -> None:
    token = await world.refresh_token()
    world.fault(refresh_rotation=True, token={"mode": "lost_reply", "times": 1})
    with pytest.raises(IssuerUnavailableError) as caught:
        await world.issuer.refresh(token)
    assert caught.value.maybe_processed
    with pytest.raises(LoginRequiredError):
        await world.issuer.refresh(token)


@pytest.mark.parametrize("endpoint", ["token", "userinfo", "jwk", "discovery", "revoke"])
@pytest.mark.parametrize("mode", ["500", "502", "503", "504", "429", "drop", "garbage", "hang"])
async def test_any_endpoint_may_fail_and_comes_back(world: World, endpoint: str, mode: str) -> None:
    reply, nonce = await world.login()
    assert reply.refresh_token is not None
    assert reply.id_token is not None
    patience = 1.5 if mode == "hang" else 5.0
    issuer = Issuer(replace(world.settings, total_timeout=patience), clock=SystemClock())
    calls = {
        "token": lambda: issuer.refresh(reply.refresh_token or ""),
        "userinfo": lambda: issuer.userinfo(reply.access_token.value),
        "jwk": lambda: issuer.verify_id_token(reply.id_token or "", nonce=nonce),
        "discovery": lambda: issuer.metadata(),
        "revoke": lambda: issuer.revoke(reply.refresh_token or ""),
    }
    if endpoint != "discovery":
        await issuer.metadata()
    world.fault(**{endpoint: {"mode": mode, "retry_after": 7}})
    if (endpoint, mode) == ("revoke", "garbage"):
        await calls[endpoint]()  # any 200 is a success (RFC 7009 section 2.2)
    else:
        with pytest.raises(IssuerUnavailableError) as caught:
            await calls[endpoint]()
        if mode in ("429", "503"):
            assert caught.value.retry_after == 7
    world.fault(**{endpoint: {"mode": "none"}})
    if endpoint in ("token", "userinfo", "revoke"):  # the others remember a failure for 5 s
        await calls[endpoint]()
    await issuer.aclose()


LOGOUT_TOKENS: dict[str, str | None] = {
    "": None,  # back-channel
    "typ_jwt": None,
    "alg_none": "logout-token-alg",  # back-channel-alg-none
    "hs256": "logout-token-alg",  # back-channel-wrong-alg
    "no_event": "logout-token-events",
    "wrong_event": "logout-token-events",
    "with_nonce": "logout-token-nonce",
    "wrong_aud": "logout-token-aud",
    "wrong_iss": "logout-token-iss",
    "missing_jti": "logout-token-jti",
    "missing_sub_and_sid": "logout-token-sub",
    "missing_iat": "logout-token-iat",
    "expired": "logout-token-exp",
    "typ_at_jwt": "logout-token-typ",
    "bad_signature": "logout-token-signature",
    "kid_unknown": "jwks-unknown-kid",
    "oversize": "logout-token-size",
}


@pytest.mark.parametrize(("mutation", "code"), LOGOUT_TOKENS.items(), ids=LOGOUT_TOKENS)
async def test_logout_tokens(world: World, mutation: str, code: str | None) -> None:
    token = logout_token(world.iam, CLIENT_ID, sub="s", sid="i", mutations=mutation or None)
    if code is None:
        assert (await world.issuer.verify_logout_token(token))["sub"] == "s"
        return
    with pytest.raises(InvalidTokenError) as caught:
        await world.issuer.verify_logout_token(token)
    assert caught.value.code == code


async def test_a_revoked_refresh_token_is_dead(world: World) -> None:
    token = await world.refresh_token()
    assert await world.issuer.revoke(token)
    with pytest.raises(LoginRequiredError):
        await world.issuer.refresh(token)


async def test_logging_out_at_the_issuer(world: World) -> None:
    reply, _ = await world.login()
    url = await world.issuer.end_session_url(reply.id_token, None, "st-1")
    assert url is not None
    assert (await world.browser.get(url)).status_code == 200

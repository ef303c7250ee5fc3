"""The issuer's client against a real server on loopback: requests, refusals, lost replies."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import datetime as dt
import gzip
import json
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from email.utils import format_datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from escape_hub.core.audiences import Audience
from escape_hub.core.oidc import code_challenge
from escape_hub.core.tokens import AccessToken
from escape_hub.errors import (
    EscapeHubError,
    InvalidTokenError,
    IssuerMisconfiguredError,
    IssuerUnavailableError,
    LoginRequiredError,
    SettingsError,
    UserActionRequiredError,
)
from escape_hub.hub.issuer import DISCOVERY_PATIENCE, METADATA_TTL, Issuer
from escape_hub.hub.issuer_http import MAX_REPLY
from escape_hub.settings import IssuerSettings
from tests.fakes.clock import FakeClock, settle
from tests.fakes.fuzz import fuzz
from tests.fakes.peer import Answer, Peer, Request
from tests.fakes.signing import CLIENT, claims, ec_key, jwk, rsa_key, signed

SECRET = "s3cret&of the=hub"
RUCIO = Audience("rucio", "rucio", "openid profile", "rucio.token")
DISCOVERY = "/.well-known/openid-configuration"
TOKENS = {"access_token": "at-1", "token_type": "Bearer", "expires_in": 3600}
EXCHANGED = {**TOKENS, "issued_token_type": "urn:ietf:params:oauth:token-type:access_token"}


def document(peer: Peer, **changed: Any) -> dict[str, Any]:
    made = {
        "issuer": f"{peer.url}/",
        "authorization_endpoint": f"{peer.url}/authorize",
        "token_endpoint": f"{peer.url}/token",
        "jwks_uri": f"{peer.url}/jwk",
        "userinfo_endpoint": f"{peer.url}/userinfo",
        "revocation_endpoint": f"{peer.url}/revoke",
        **changed,
    }
    return {k: v for k, v in made.items() if v is not None}


def settings(peer: Peer, **changed: Any) -> IssuerSettings:
    made: dict[str, Any] = {
        "issuer": f"{peer.url}/",
        "client_id": CLIENT,
        "client_secret": SECRET,
        "total_timeout": 5.0,
        **changed,
    }
    return IssuerSettings(**made)


@pytest.fixture
async def peer() -> AsyncIterator[Peer]:
    async with Peer() as peer:
        peer.routes[DISCOVERY] = Answer(json=document(peer))
        peer.routes["/token"] = Answer(json=TOKENS)
        peer.routes["/jwk"] = Answer(json={"keys": [jwk(rsa_key())]})
        peer.routes["/userinfo"] = Answer(json={"sub": "alice-sub"})
        peer.routes["/revoke"] = Answer()
        yield peer


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def make(peer: Peer, clock: FakeClock) -> AsyncIterator[Callable[..., Issuer]]:
    made: list[Issuer] = []

    def build(**changed: Any) -> Issuer:
        made.append(Issuer(settings(peer, **changed), clock=clock))
        return made[-1]

    yield build
    for issuer in made:
        await issuer.aclose()


@pytest.fixture
def issuer(make: Callable[..., Issuer]) -> Issuer:
    return make()


class TestDiscovery:
    async def test_is_lazy_and_happens_once(self, peer: Peer, issuer: Issuer) -> None:
        assert peer.requests == []
        await asyncio.gather(*(issuer.metadata() for _ in range(20)))
        assert peer.count(DISCOVERY) == 1

    async def test_a_hub_starts_while_the_issuer_is_down(
        self, peer: Peer, issuer: Issuer, clock: FakeClock
    ) -> None:
        good = peer.routes[DISCOVERY]
        peer.routes[DISCOVERY] = Answer(503, headers={"Retry-After": "7"})
        for _ in range(5):
            with pytest.raises(IssuerUnavailableError) as caught:
                await issuer.refresh("rt")
            assert caught.value.code == "discovery-failed"
            assert caught.value.retry_after == 7
            assert not caught.value.maybe_processed
        assert peer.count(DISCOVERY) == 1
        peer.routes[DISCOVERY] = good
        await clock.advance(DISCOVERY_PATIENCE + 1)
        assert (await issuer.refresh("rt")).access_token.value == "at-1"

    async def test_old_metadata_serves_while_the_issuer_is_down(
        self, peer: Peer, issuer: Issuer, clock: FakeClock
    ) -> None:
        await issuer.metadata()
        peer.routes[DISCOVERY] = Answer(503)
        await clock.advance(METADATA_TTL * 1000)
        assert (await issuer.metadata()).token_endpoint == f"{peer.url}/token"

    async def test_another_issuer_is_refused(self, peer: Peer, issuer: Issuer) -> None:
        peer.routes[DISCOVERY] = Answer(json=document(peer, issuer="https://other.example.org/"))
        with pytest.raises(IssuerMisconfiguredError) as caught:
            await issuer.metadata()
        assert caught.value.code == "discovery-issuer"

    async def test_the_slash_is_told_and_expected_issuer_helps(
        self, peer: Peer, make: Callable[..., Issuer]
    ) -> None:
        with pytest.raises(IssuerMisconfiguredError) as caught:
            await make(issuer=peer.url).metadata()
        assert caught.value.code == "discovery-issuer-slash"
        found = await make(issuer=peer.url, expected_issuer=f"{peer.url}/").metadata()
        assert found.token_issuer == f"{peer.url}/"

    @pytest.mark.parametrize("body", [b"<html>maintenance</html>", b"", b"[" * 100_000, b"\xff"])
    async def test_garbage_is_an_outage(self, peer: Peer, issuer: Issuer, body: bytes) -> None:
        peer.routes[DISCOVERY] = Answer(body=body)
        with pytest.raises(IssuerUnavailableError):
            await issuer.metadata()

    async def test_no_redirect_is_followed(self, peer: Peer, issuer: Issuer) -> None:
        peer.routes[DISCOVERY] = Answer(302, headers={"Location": f"{peer.url}/elsewhere"})
        with pytest.raises(IssuerUnavailableError):
            await issuer.metadata()
        assert peer.count("/elsewhere") == 0


class TestUrls:
    async def test_the_authorization_request_carries_everything(self, issuer: Issuer) -> None:
        challenge = code_challenge("v" * 43)
        url = await issuer.authorization_url(
            redirect_uri="https://hub/cb",
            scope=["openid", "offline_access"],
            state="st-1",
            nonce="n-1",
            code_challenge=challenge,
            extra={"prompt": "consent"},
        )
        query = {k: v[0] for k, v in parse_qs(urlsplit(url).query).items()}
        assert query == {
            "response_type": "code",
            "client_id": CLIENT,
            "redirect_uri": "https://hub/cb",
            "scope": "openid offline_access",
            "state": "st-1",
            "nonce": "n-1",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            "prompt": "consent",
        }

    @pytest.mark.parametrize("name", ["code_challenge_method", "state", "nonce", "redirect_uri"])
    async def test_an_operators_parameter_replaces_none_of_ours(
        self, issuer: Issuer, name: str
    ) -> None:
        with pytest.raises(SettingsError, match=name):
            await issuer.authorization_url("u", "openid", "s", "n", "c", {name: "plain"})

    async def test_log_out_at_the_issuer(self, peer: Peer, make: Callable[..., Issuer]) -> None:
        assert await make().end_session_url("idt") is None
        end = f"{peer.url}/end?theme=dark"
        peer.routes[DISCOVERY] = Answer(json=document(peer, end_session_endpoint=end))
        url = await make().end_session_url("idt", "https://hub/out", "st-1")
        assert url is not None
        assert url.startswith(f"{end}&")
        assert parse_qs(urlsplit(url).query) == {
            "theme": ["dark"],
            "id_token_hint": ["idt"],
            "client_id": [CLIENT],
            "post_logout_redirect_uri": ["https://hub/out"],
            "state": ["st-1"],
        }


class TestRequests:
    async def test_client_secret_basic_is_form_encoded(self, peer: Peer, issuer: Issuer) -> None:
        await issuer.refresh("rt-1")
        request = peer.requests[-1]
        _, _, encoded = request.headers["authorization"].partition(" ")
        assert base64.b64decode(encoded) == b"escape-hub:s3cret%26of+the%3Dhub"
        assert request.form == {"grant_type": "refresh_token", "refresh_token": "rt-1"}

    async def test_client_secret_post(self, peer: Peer, make: Callable[..., Issuer]) -> None:
        await make(client_auth="client_secret_post").refresh("rt-1")
        request = peer.requests[-1]
        assert "authorization" not in request.headers
        assert request.form["client_id"] == CLIENT
        assert request.form["client_secret"] == SECRET

    async def test_a_code_is_redeemed(self, peer: Peer, issuer: Issuer, clock: FakeClock) -> None:
        peer.routes["/token"] = Answer(json={**TOKENS, "refresh_token": "rt", "id_token": "i.d.t"})
        reply = await issuer.redeem_code("code-1", "https://hub/cb", "verifier")
        assert reply.access_token == AccessToken("at-1", clock.now() + 3600, clock.now())
        assert (reply.refresh_token, reply.id_token) == ("rt", "i.d.t")
        assert peer.requests[-1].form["code_verifier"] == "verifier"

    async def test_an_exchange(self, peer: Peer, issuer: Issuer, clock: FakeClock) -> None:
        peer.routes["/token"] = Answer(json=EXCHANGED)
        token = await issuer.exchange("subject", RUCIO)
        assert token == AccessToken("at-1", clock.now() + 3600, clock.now())
        assert peer.requests[-1].form["audience"] == "rucio"

    async def test_a_life_counts_from_the_request(
        self, peer: Peer, issuer: Issuer, clock: FakeClock
    ) -> None:
        await issuer.metadata()
        answer = Answer(json=TOKENS, hold=asyncio.Event())
        peer.routes["/token"] = answer
        asked_at = clock.now()
        peer.arrived.clear()
        call = asyncio.create_task(issuer.refresh("rt"))
        await peer.arrived.wait()
        await clock.advance(20)
        assert answer.hold is not None
        answer.hold.set()
        assert (await call).access_token.obtained_at == asked_at

    async def test_userinfo_by_bearer_header(self, peer: Peer, issuer: Issuer) -> None:
        assert await issuer.userinfo("at-1", subject="alice-sub") == {"sub": "alice-sub"}
        request = peer.requests[-1]
        assert (request.method, request.path) == ("GET", "/userinfo")
        assert request.headers["authorization"] == "Bearer at-1"

    async def test_revocation(self, peer: Peer, make: Callable[..., Issuer]) -> None:
        assert await make().revoke("rt-1") is True
        assert peer.requests[-1].form == {"token": "rt-1", "token_type_hint": "refresh_token"}
        peer.routes[DISCOVERY] = Answer(json=document(peer, revocation_endpoint=None))
        assert await make().revoke("rt-1") is False

    async def test_one_connection_serves_many_calls(self, peer: Peer, issuer: Issuer) -> None:
        for _ in range(10):
            await issuer.refresh("rt")
        assert peer.connections == 1

    async def test_one_users_cookie_is_not_sent_for_another(
        self, peer: Peer, issuer: Issuer
    ) -> None:
        peer.routes["/token"] = Answer(json=TOKENS, headers={"Set-Cookie": "JSESSIONID=1; Path=/"})
        await issuer.refresh("rt-alice")
        await issuer.refresh("rt-bob")
        assert "cookie" not in peer.requests[-1].headers


Call = Callable[[Issuer], Awaitable[Any]]
CALLS: dict[str, tuple[str, Call]] = {
    "refresh": ("/token", lambda issuer: issuer.refresh("rt-secret-1")),
    "code": ("/token", lambda issuer: issuer.redeem_code("code-secret", "u", "verifier-secret")),
    "exchange": ("/token", lambda issuer: issuer.exchange("subject-secret", RUCIO)),
    "userinfo": ("/userinfo", lambda issuer: issuer.userinfo("at-secret-1")),
    "revoke": ("/revoke", lambda issuer: issuer.revoke("rt-secret-1")),
}
EVERY_CALL = pytest.mark.parametrize(("path", "call"), CALLS.values(), ids=CALLS)


class TestFailures:
    @EVERY_CALL
    async def test_a_reply_that_never_came(
        self, peer: Peer, issuer: Issuer, path: str, call: Call
    ) -> None:
        peer.routes[path] = Answer(silent=True)
        with pytest.raises(IssuerUnavailableError) as caught:
            await call(issuer)
        assert caught.value.code == "issuer-lost"
        assert caught.value.maybe_processed is (path != "/userinfo")

    @EVERY_CALL
    async def test_a_reply_that_broke_off(
        self, peer: Peer, issuer: Issuer, path: str, call: Call
    ) -> None:
        peer.routes[path] = Answer(json=TOKENS, cut=10)
        with pytest.raises(IssuerUnavailableError) as caught:
            await call(issuer)
        assert caught.value.maybe_processed is (path != "/userinfo")

    async def test_an_issuer_that_hangs(self, peer: Peer, make: Callable[..., Issuer]) -> None:
        issuer = make(total_timeout=1.5)
        await issuer.metadata()
        for path, _ in CALLS.values():
            peer.routes[path] = Answer(json=TOKENS, hold=asyncio.Event())
        errors = await asyncio.gather(
            *(call(issuer) for _, call in CALLS.values()), return_exceptions=True
        )
        for name, error in zip(CALLS, errors, strict=True):
            assert isinstance(error, IssuerUnavailableError)
            assert error.code == "issuer-timeout"
            assert error.maybe_processed is (name != "userinfo")

    async def test_nothing_is_spent_when_discovery_hangs_or_breaks(
        self, peer: Peer, make: Callable[..., Issuer]
    ) -> None:
        """The refresh token was not sent yet: nobody may take it for spent."""
        for answer in (Answer(hold=asyncio.Event()), Answer(silent=True)):
            peer.routes[DISCOVERY] = answer
            with pytest.raises(IssuerUnavailableError) as caught:
                await make(total_timeout=0.3).refresh("rt")
            assert not caught.value.maybe_processed
        assert peer.count("/token") == 0

    @EVERY_CALL
    async def test_a_connection_that_is_refused_was_not_processed(
        self, peer: Peer, issuer: Issuer, path: str, call: Call, free_port: int
    ) -> None:
        there = f"http://127.0.0.1:{free_port}"
        peer.routes[DISCOVERY] = Answer(
            json=document(
                peer,
                token_endpoint=f"{there}/token",
                userinfo_endpoint=f"{there}/userinfo",
                revocation_endpoint=f"{there}/revoke",
            )
        )
        with pytest.raises(IssuerUnavailableError) as caught:
            await call(issuer)
        assert caught.value.code == "issuer-unreachable"
        assert not caught.value.maybe_processed

    @EVERY_CALL
    async def test_no_redirect_is_followed(
        self, peer: Peer, issuer: Issuer, path: str, call: Call
    ) -> None:
        for status in (301, 302, 303, 307, 308):
            peer.routes[path] = Answer(status, headers={"Location": f"{peer.url}/elsewhere"})
            with pytest.raises(IssuerUnavailableError) as caught:
                await call(issuer)
            assert caught.value.code == "issuer-redirect"
        assert peer.count("/elsewhere") == 0

    @EVERY_CALL
    async def test_an_endless_reply_is_cut_off(
        self, peer: Peer, issuer: Issuer, path: str, call: Call
    ) -> None:
        peer.routes[path] = Answer(body=b" " * (MAX_REPLY + 1))
        with pytest.raises(IssuerUnavailableError) as caught:
            await call(issuer)
        assert caught.value.code == "issuer-garbage"

    @EVERY_CALL
    async def test_a_compressed_reply_is_not_unpacked(
        self, peer: Peer, issuer: Issuer, path: str, call: Call
    ) -> None:
        bomb = gzip.compress(bytes(10_000_000))
        peer.routes[path] = Answer(body=bomb, headers={"Content-Encoding": "gzip"})
        with pytest.raises(IssuerUnavailableError) as caught:
            await call(issuer)
        assert caught.value.code == "issuer-garbage"
        assert peer.requests[-1].headers["accept-encoding"] == "identity"

    async def test_a_drip_does_not_outlive_the_total(
        self, peer: Peer, make: Callable[..., Issuer]
    ) -> None:
        """The limit is on the whole call: each byte in time is not enough."""
        stop = asyncio.Event()

        async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while not stop.is_set() and not writer.is_closing():
                writer.write(b" ")
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stop.wait(), 0.05)
            writer.close()

        server = await asyncio.start_server(drip, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        slow = make(issuer=f"http://127.0.0.1:{port}/", total_timeout=0.4)
        started = asyncio.get_running_loop().time()
        with pytest.raises(IssuerUnavailableError) as caught:
            await slow.metadata()
        assert caught.value.code == "issuer-timeout"
        assert asyncio.get_running_loop().time() - started < 20
        stop.set()
        server.close()
        await server.wait_closed()

    @pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408])
    async def test_a_troubled_issuer_is_an_outage(
        self, peer: Peer, issuer: Issuer, status: int
    ) -> None:
        peer.routes["/token"] = Answer(status, body=b"no", headers={"Retry-After": "120"})
        with pytest.raises(IssuerUnavailableError) as caught:
            await issuer.refresh("rt")
        assert caught.value.retry_after == 120
        assert caught.value.maybe_processed is (status in (502, 504))

    async def test_retry_after_can_be_a_date(
        self, peer: Peer, issuer: Issuer, clock: FakeClock
    ) -> None:
        then = dt.datetime.fromtimestamp(clock.now() + 90, dt.UTC)
        for value, seconds in [
            (format_datetime(then, usegmt=True), 90),
            (format_datetime(then - dt.timedelta(hours=1), usegmt=True), 0),
            ("soon", None),
            ("-5", None),
            ("9" * 400, 999_999_999),
        ]:
            peer.routes["/token"] = Answer(503, headers={"Retry-After": value})
            with pytest.raises(IssuerUnavailableError) as caught:
                await issuer.refresh("rt")
            assert caught.value.retry_after == seconds

    async def test_the_client_lives_on_after_failures(self, peer: Peer, issuer: Issuer) -> None:
        for answer in (Answer(silent=True), Answer(json=TOKENS, cut=3), Answer(503)):
            peer.routes["/token"] = answer
            with pytest.raises(IssuerUnavailableError):
                await issuer.refresh("rt")
        peer.routes["/token"] = Answer(json=TOKENS)
        assert (await issuer.refresh("rt")).access_token.value == "at-1"

    async def test_a_cancelled_call_is_cancelled(self, peer: Peer, issuer: Issuer) -> None:
        await issuer.metadata()
        peer.routes["/token"] = Answer(json=TOKENS, hold=asyncio.Event())
        peer.arrived.clear()
        call = asyncio.create_task(issuer.refresh("rt"))
        await peer.arrived.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


def refusal(status: int, error: str, description: str = "") -> Answer:
    return Answer(status, json={"error": error, "error_description": description})


class TestRefusals:
    @pytest.mark.parametrize(
        ("answer", "kind"),
        [
            (refusal(400, "invalid_grant"), LoginRequiredError),
            (refusal(401, "invalid_token"), LoginRequiredError),
            (refusal(400, "invalid_grant", "User x needs to sign AUP"), UserActionRequiredError),
            (refusal(401, "invalid_client"), IssuerMisconfiguredError),
            (refusal(400, "brand_new"), LoginRequiredError),
            (Answer(400, body=b"<html>"), IssuerUnavailableError),
        ],
    )
    async def test_of_a_refresh(
        self, peer: Peer, issuer: Issuer, answer: Answer, kind: type[EscapeHubError]
    ) -> None:
        peer.routes["/token"] = answer
        with pytest.raises(kind):
            await issuer.refresh("rt")

    async def test_of_an_exchange_names_the_audience(self, peer: Peer, issuer: Issuer) -> None:
        peer.routes["/token"] = refusal(400, "invalid_client", "Audience not found")
        with pytest.raises(IssuerMisconfiguredError, match="audience 'rucio'"):
            await issuer.exchange("s", RUCIO)

    async def test_of_an_old_subject_wants_a_refresh(self, peer: Peer, issuer: Issuer) -> None:
        peer.routes["/token"] = refusal(400, "invalid_grant", "Invalid subject token")
        with pytest.raises(IssuerUnavailableError):
            await issuer.exchange("s", RUCIO, subject_fresh=False)

    async def test_of_userinfo(self, peer: Peer, issuer: Issuer) -> None:
        peer.routes["/userinfo"] = Answer(401)
        with pytest.raises(IssuerUnavailableError):
            await issuer.userinfo("at")
        peer.routes["/userinfo"] = Answer(json={"sub": "bob-sub"})
        with pytest.raises(InvalidTokenError):
            await issuer.userinfo("at", subject="alice-sub")
        peer.routes["/userinfo"] = Answer(body=b"a.signed.one")
        with pytest.raises(IssuerUnavailableError):
            await issuer.userinfo("at")

    async def test_of_an_issuer_without_userinfo(self, peer: Peer, issuer: Issuer) -> None:
        peer.routes[DISCOVERY] = Answer(json=document(peer, userinfo_endpoint=None))
        with pytest.raises(IssuerMisconfiguredError):
            await issuer.userinfo("at")

    @EVERY_CALL
    async def test_no_secret_is_in_an_error_or_a_log(
        self,
        peer: Peer,
        issuer: Issuer,
        path: str,
        call: Call,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.DEBUG)

        def echo(request: Request) -> Answer:
            text = f"bad: {request.body.decode()} {json.dumps(request.headers)}"
            said = {"error": "invalid_request", "error_description": text}
            challenge = {"WWW-Authenticate": f'Bearer error_description="{request.headers}"'}
            return Answer(400, json=said, headers=challenge)

        peer.routes[path] = echo
        with pytest.raises(EscapeHubError) as caught:
            await call(issuer)
        told = f"{caught.value!r} {vars(caught.value)} {caplog.text}"
        secrets = ("rt-secret-1", "code-secret", "verifier-secret", "subject-secret")
        for secret in (*secrets, "at-secret-1", SECRET, "s3cret", "czNjcmV0"):
            assert secret not in told
        assert caught.value.__cause__ is None


class TestTokens:
    @pytest.fixture
    def now(self, clock: FakeClock) -> float:
        return clock.now()

    def token(self, peer: Peer, now: float, **changed: Any) -> dict[str, Any]:
        made = {"iss": f"{peer.url}/", "iat": now, "exp": now + 600, **changed}
        return claims(**made)

    async def test_a_good_id_token(self, peer: Peer, issuer: Issuer, now: float) -> None:
        good = self.token(peer, now)
        assert await issuer.verify_id_token(signed(good), nonce="n-1") == good
        assert peer.count("/jwk") == 1

    async def test_a_broken_rule(self, peer: Peer, issuer: Issuer, now: float) -> None:
        with pytest.raises(InvalidTokenError) as caught:
            await issuer.verify_id_token(signed(self.token(peer, now)), nonce="n-2")
        assert caught.value.code == "id-token-nonce"

    async def test_of_another_person_after_a_refresh(
        self, peer: Peer, issuer: Issuer, now: float
    ) -> None:
        token = signed(self.token(peer, now, sub="bob-sub", nonce=None))
        with pytest.raises(InvalidTokenError) as caught:
            await issuer.verify_id_token(token, nonce=None, same_as=(f"{peer.url}/", "alice-sub"))
        assert caught.value.code == "id-token-identity"

    async def test_expected_issuer_is_what_tokens_say(
        self, peer: Peer, make: Callable[..., Issuer], now: float
    ) -> None:
        token = signed(self.token(peer, now, iss=peer.url))
        with pytest.raises(InvalidTokenError) as caught:
            await make().verify_id_token(token, nonce="n-1")
        assert caught.value.code == "id-token-iss-slash"
        await make(expected_issuer=peer.url).verify_id_token(token, nonce="n-1")

    async def test_a_rotated_key_is_fetched(self, peer: Peer, issuer: Issuer, now: float) -> None:
        good = self.token(peer, now)
        await issuer.verify_id_token(signed(good), nonce="n-1")
        peer.routes["/jwk"] = Answer(json={"keys": [jwk(rsa_key("k2"), "k2")]})
        await issuer.verify_id_token(signed(good, key=rsa_key("k2"), kid="k2"), nonce="n-1")
        assert peer.count("/jwk") == 2

    @pytest.mark.parametrize("kid", [None, "k1"])
    async def test_a_rotated_key_without_a_new_name_is_fetched(
        self, peer: Peer, issuer: Issuer, now: float, kid: str | None
    ) -> None:
        good = self.token(peer, now)
        await issuer.verify_id_token(signed(good, kid=kid), nonce="n-1")
        peer.routes["/jwk"] = Answer(json={"keys": [jwk(rsa_key("k2"), kid)]})
        await issuer.verify_id_token(signed(good, key=rsa_key("k2"), kid=kid), nonce="n-1")

    async def test_a_forged_signature_stays_one(
        self, peer: Peer, issuer: Issuer, now: float
    ) -> None:
        with pytest.raises(InvalidTokenError) as caught:
            await issuer.verify_id_token(
                signed(self.token(peer, now), key=rsa_key("attacker")), nonce="n-1"
            )
        assert caught.value.code == "id-token-signature"
        assert peer.count("/jwk") == 2

    async def test_signed_content_that_is_no_object(self, peer: Peer, issuer: Issuer) -> None:
        with pytest.raises(InvalidTokenError) as caught:
            await issuer.verify_id_token(signed([1]), nonce="n-1")  # type: ignore[arg-type]
        assert caught.value.code == "id-token-form"
        assert peer.count("/jwk") == 1

    async def test_only_allowed_algorithms(
        self, peer: Peer, make: Callable[..., Issuer], now: float
    ) -> None:
        peer.routes["/jwk"] = Answer(json={"keys": [jwk(ec_key())]})
        token = signed(self.token(peer, now), key=ec_key(), alg="ES256")
        await make().verify_id_token(token, nonce="n-1")
        with pytest.raises(InvalidTokenError) as caught:
            await make(signing_algorithms=("RS256",)).verify_id_token(token, nonce="n-1")
        assert caught.value.code == "id-token-alg"
        assert peer.count("/jwk") == 1

    def logout(self, peer: Peer, now: float, **changed: Any) -> dict[str, Any]:
        events = {"http://schemas.openid.net/event/backchannel-logout": {}}
        return self.token(peer, now, nonce=None, events=events, jti="j-1", **changed)

    @pytest.mark.parametrize("typ", ["logout+jwt", "JWT", None])
    async def test_a_good_logout_token(
        self, peer: Peer, issuer: Issuer, now: float, typ: str | None
    ) -> None:
        good = self.logout(peer, now)
        assert await issuer.verify_logout_token(signed(good, typ=typ)) == good

    async def test_an_id_token_is_no_logout_token(
        self, peer: Peer, issuer: Issuer, now: float
    ) -> None:
        with pytest.raises(InvalidTokenError) as caught:
            await issuer.verify_logout_token(signed(self.token(peer, now)))
        assert caught.value.code == "logout-token-jti"

    async def test_a_logout_token_is_no_id_token(
        self, peer: Peer, issuer: Issuer, now: float
    ) -> None:
        token = signed(self.logout(peer, now), typ="logout+jwt")
        with pytest.raises(InvalidTokenError) as caught:
            await issuer.verify_id_token(token, nonce=None)
        assert caught.value.code == "id-token-typ"

    async def test_strangers_posts_cost_two_fetches_at_most(
        self, peer: Peer, issuer: Issuer, now: float
    ) -> None:
        for n in range(20):
            forged = signed(
                self.logout(peer, now), key=rsa_key("attacker"), kid="k1" if n % 2 else f"x{n}"
            )
            with pytest.raises(InvalidTokenError):
                await issuer.verify_logout_token(forged)
        assert peer.count("/jwk") == 2

    async def test_keys_serve_through_an_outage(
        self, peer: Peer, issuer: Issuer, clock: FakeClock
    ) -> None:
        good = self.token(peer, clock.now())
        await issuer.verify_id_token(signed(good), nonce="n-1")
        peer.routes["/jwk"] = Answer(503)
        await clock.advance(7 * 3600)
        later = self.token(peer, clock.now())
        await issuer.verify_id_token(signed(later), nonce="n-1")
        await settle()

    async def test_without_keys_a_token_cannot_be_judged(
        self, peer: Peer, issuer: Issuer, now: float
    ) -> None:
        peer.routes["/jwk"] = Answer(503)
        with pytest.raises(IssuerUnavailableError) as caught:
            await issuer.verify_id_token(signed(self.token(peer, now)), nonce="n-1")
        assert caught.value.code == "jwks-failed"


def authority(directory: Path) -> tuple[str, ssl.SSLContext]:
    """A self-signed certificate for 127.0.0.1: its file, and a server's context."""
    import ipaddress

    key = ec_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    certificate, private = directory / "ca.pem", directory / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, private)
    return str(certificate), context


class TestNetwork:
    async def test_a_ca_file_is_needed_and_enough(self, tmp_path: Path, clock: FakeClock) -> None:
        ca_file, context = authority(tmp_path)
        async with Peer(context) as peer:
            peer.routes[DISCOVERY] = Answer(json=document(peer))
            without = Issuer(settings(peer), clock=clock)
            with pytest.raises(IssuerMisconfiguredError, match="ca_file") as caught:
                await without.metadata()
            assert caught.value.code == "issuer-tls"
            await without.aclose()
            issuer = Issuer(settings(peer, ca_file=ca_file), clock=clock)
            assert (await issuer.metadata()).issuer == f"{peer.url}/"
            await issuer.aclose()

    async def test_a_bad_ca_file_is_told_at_start(
        self, tmp_path: Path, make: Callable[..., Issuer]
    ) -> None:
        (tmp_path / "bad.pem").write_text("no certificate")
        for path in (tmp_path / "missing.pem", tmp_path / "bad.pem"):
            with pytest.raises(SettingsError, match="ca_file"):
                make(ca_file=str(path))

    async def test_every_call_goes_through_the_proxy(self, peer: Peer, clock: FakeClock) -> None:
        peer.routes["iam.example.org:443"] = Answer(503)
        issuer = Issuer(
            settings(peer, issuer="https://iam.example.org/", proxy=peer.url), clock=clock
        )
        with pytest.raises(IssuerUnavailableError) as caught:
            await issuer.metadata()
        await issuer.aclose()
        assert [(r.method, r.path) for r in peer.requests] == [("CONNECT", "iam.example.org:443")]
        assert not caught.value.maybe_processed  # the proxy's CONNECT is no request to the issuer

    async def test_the_environments_proxy_is_used_unless_told_otherwise(
        self, peer: Peer, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("HTTPS_PROXY", peer.url)
        peer.routes["iam.example.org:443"] = Answer(503)
        issuer = Issuer(settings(peer, issuer="https://iam.example.org/"), clock=clock)
        with pytest.raises(IssuerUnavailableError):
            await issuer.metadata()
        await issuer.aclose()
        assert peer.count("iam.example.org:443") == 1

    async def test_loopback_is_never_sent_to_a_proxy(
        self,
        peer: Peer,
        make: Callable[..., Issuer],
        free_port: int,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        nowhere = f"http://127.0.0.1:{free_port}"
        monkeypatch.setenv("HTTP_PROXY", nowhere)
        monkeypatch.setenv("ALL_PROXY", nowhere)
        await make().metadata()
        await make(proxy=nowhere).metadata()


@pytest.fixture
async def free_port() -> int:
    """A port where nobody listens."""
    server = await asyncio.start_server(lambda r, w: None, "127.0.0.1", 0)
    port: int = server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()
    return port


@fuzz
@given(
    st.sampled_from(sorted(CALLS)),
    st.sampled_from([200, 200, 302, 400, 401, 403, 404, 429, 500, 503]),
    st.binary(max_size=60) | st.sampled_from([b"{}", b"[]", b'{"error":"invalid_grant"}']),
    st.sampled_from([{}, {"Retry-After": "x"}, {"Content-Encoding": "br"}]),
)
def test_whatever_the_issuer_answers_only_our_errors_come_out(
    name: str, status: int, body: bytes, headers: dict[str, str]
) -> None:
    async def run() -> None:
        path, call = CALLS[name]
        async with Peer() as peer:
            peer.routes[DISCOVERY] = Answer(json=document(peer))
            peer.routes[path] = Answer(status, body=body, headers=headers)
            issuer = Issuer(settings(peer, trust_env=False), clock=FakeClock())
            try:
                await call(issuer)
            except EscapeHubError:
                pass
            finally:
                await issuer.aclose()

    asyncio.run(run())

"""Requests to the token endpoint and the replies that are taken."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escape_hub.core import exchange
from escape_hub.core.audiences import Audience
from escape_hub.core.tokens import AccessToken
from escape_hub.errors import EscapeHubError, IssuerMisconfiguredError, IssuerUnavailableError
from tests.fakes.fuzz import JSON, fuzz
from tests.fakes.signing import ISSUER, NOW, assembled

RUCIO = Audience("rucio", "rucio", "openid profile", "rucio.token")
ACCESS = "urn:ietf:params:oauth:token-type:access_token"
JWT = "urn:ietf:params:oauth:token-type:jwt"
GOOD = {
    "access_token": "at-1",
    "token_type": "Bearer",
    "expires_in": 3600,
    "refresh_token": "rt-1",
    "id_token": "a.b.c",
    "scope": "openid offline_access",
}


def body(base: dict[str, Any], **changed: Any) -> bytes:
    return json.dumps({k: v for k, v in {**base, **changed}.items() if v is not None}).encode()


def parse(raw: bytes | None = None, **changed: Any) -> exchange.TokenReply:
    return exchange.parse_token_reply(body(GOOD, **changed) if raw is None else raw, now=NOW)


def jwt(**changed: Any) -> str:
    made = {"iss": ISSUER, "sub": "a", "aud": "rucio", "exp": NOW + 3600, **changed}
    return assembled({"alg": "RS256"}, {k: v for k, v in made.items() if v is not None}, b"sig")


def parse_exchange(raw: bytes | None = None, **changed: Any) -> AccessToken:
    made = {**GOOD, "access_token": jwt(), "issued_token_type": ACCESS, "refresh_token": None}
    return exchange.parse_exchange_reply(
        body(made, **changed) if raw is None else raw,
        now=NOW,
        audience=RUCIO,
        issuer=ISSUER,
        skew=60,
    )


class TestRequests:
    def test_basic_credentials_are_form_encoded_before_base64(self) -> None:
        value = exchange.basic_credentials("id:1 é", "a%b+c&d")
        scheme, _, encoded = value.partition(" ")
        assert scheme == "Basic"
        assert base64.b64decode(encoded) == b"id%3A1+%C3%A9:a%25b%2Bc%26d"

    def test_a_code_is_redeemed_with_its_verifier(self) -> None:
        assert exchange.code_request("c", "https://hub/cb", "v") == {
            "grant_type": "authorization_code",
            "code": "c",
            "redirect_uri": "https://hub/cb",
            "code_verifier": "v",
        }

    def test_a_refresh_asks_for_nothing_more(self) -> None:
        assert exchange.refresh_request("r") == {
            "grant_type": "refresh_token",
            "refresh_token": "r",
        }

    def test_an_exchange_names_one_audience_and_its_scope(self) -> None:
        form = exchange.exchange_request("s", RUCIO)
        assert form == {
            "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
            "subject_token": "s",
            "subject_token_type": ACCESS,
            "requested_token_type": ACCESS,
            "audience": "rucio",
            "scope": "openid profile",
        }


class TestTokenReply:
    def test_a_good_one_is_read(self) -> None:
        reply = parse()
        assert reply.access_token == AccessToken("at-1", NOW + 3600, NOW)
        assert (reply.refresh_token, reply.id_token) == ("rt-1", "a.b.c")
        assert reply.scope == ("openid", "offline_access")

    def test_it_shows_no_secret(self) -> None:
        for secret in ("at-1", "rt-1", "a.b.c"):
            assert secret not in repr(parse()) + str(parse())

    @pytest.mark.parametrize(
        ("changed", "lifetime"),
        [
            ({"expires_in": "3600"}, 3600),
            ({"expires_in": 20.5}, 20.5),
            ({"expires_in": None}, exchange.DEFAULT_LIFETIME),
            ({"expires_in": 10**300}, exchange.LONGEST_LIFETIME),
            ({"token_type": "bearer"}, 3600),
        ],
    )
    def test_the_life_is_expires_in(self, changed: dict[str, Any], lifetime: float) -> None:
        assert parse(**changed).access_token.lifetime == lifetime

    def test_what_may_be_missing(self) -> None:
        reply = parse(refresh_token=None, id_token=None, scope=None)
        assert (reply.refresh_token, reply.id_token, reply.scope) == (None, None, ())

    @pytest.mark.parametrize(
        "changed",
        [
            {"access_token": None},
            {"access_token": ""},
            {"access_token": 7},
            {"access_token": "two words"},
            {"access_token": "line\n"},
            {"access_token": "é"},
            {"access_token": "x" * 20_000},
            {"refresh_token": ""},
            {"refresh_token": ["r"]},
            {"refresh_token": "r\n"},
            {"id_token": {}},
            {"expires_in": 0},
            {"expires_in": -5},
            {"expires_in": "soon"},
            {"expires_in": "-5"},
            {"expires_in": True},
            {"expires_in": []},
        ],
    )
    def test_one_that_cannot_be_used_is_a_lost_reply(self, changed: dict[str, Any]) -> None:
        with pytest.raises(IssuerUnavailableError) as caught:
            parse(**changed)
        assert caught.value.code == "token-reply"
        assert caught.value.maybe_processed

    @pytest.mark.parametrize("raw", [b"", b"[]", b"\xff", b"<html>", b"[" * 100_000, b"NaN"])
    def test_one_that_cannot_be_read_is_a_lost_reply(self, raw: bytes) -> None:
        with pytest.raises(IssuerUnavailableError) as caught:
            parse(raw)
        assert caught.value.maybe_processed
        with pytest.raises(IssuerUnavailableError):
            parse_exchange(raw)

    def test_not_a_number_is_no_life(self) -> None:
        with pytest.raises(IssuerUnavailableError):
            parse(b'{"access_token":"a","token_type":"Bearer","expires_in":NaN}')

    @pytest.mark.parametrize("kind", [None, "mac", "DPoP", "N_A", 7])
    def test_only_bearer_tokens_are_taken(self, kind: object) -> None:
        with pytest.raises(IssuerMisconfiguredError) as caught:
            parse(token_type=kind)
        assert caught.value.code == "token-type"

    @fuzz
    @given(st.dictionaries(st.sampled_from([*GOOD]), JSON) | st.none(), st.binary(max_size=30))
    def test_whatever_comes_only_our_errors_come_out(
        self, changed: dict[str, Any] | None, raw: bytes
    ) -> None:
        try:
            if changed is None:
                parse(raw)
            else:
                assert parse(**changed).access_token.lifetime > 0
        except EscapeHubError:
            pass


class TestExchangeReply:
    def test_a_jwt_for_the_audience_is_taken(self) -> None:
        token = parse_exchange()
        assert token == AccessToken(jwt(), NOW + 3600, NOW)

    @pytest.mark.parametrize(
        "changed",
        [
            {"issued_token_type": JWT},
            {"token_type": "N_A"},
            {"token_type": "bearer"},
            {"access_token": jwt(aud=["other", "rucio"])},
            {"access_token": "opaque"},
            {"access_token": "no.jwt.either"},
            {"access_token": "two.dots."},
        ],
    )
    def test_all_that_the_standard_allows_is_taken(self, changed: dict[str, Any]) -> None:
        assert parse_exchange(**changed).lifetime == 3600

    @pytest.mark.parametrize(
        ("changed", "code"),
        [
            ({"issued_token_type": None}, "exchange-type"),
            ({"issued_token_type": "urn:ietf:params:oauth:token-type:id_token"}, "exchange-type"),
            ({"issued_token_type": [ACCESS]}, "exchange-type"),
            ({"token_type": None}, "token-type"),
            ({"token_type": "mac"}, "token-type"),
            ({"access_token": jwt(iss="https://attacker.example.org/")}, "exchange-iss"),
            ({"access_token": jwt(iss=None)}, "exchange-iss"),
            ({"access_token": jwt(aud="other")}, "exchange-aud"),
            ({"access_token": jwt(aud=["other"])}, "exchange-aud"),
            ({"access_token": jwt(aud=None)}, "exchange-aud"),
            ({"access_token": jwt(exp=None)}, "exchange-exp"),
            ({"access_token": jwt(exp="soon")}, "exchange-exp"),
            ({"access_token": jwt(exp=NOW - 60)}, "exchange-exp"),
            ({"access_token": jwt(exp=float("inf"))}, "exchange-exp"),
            ({"access_token": jwt(exp=10**400)}, "exchange-exp"),
        ],
    )
    def test_what_is_refused_names_the_audience(self, changed: dict[str, Any], code: str) -> None:
        with pytest.raises(IssuerMisconfiguredError, match="audience 'rucio'") as caught:
            parse_exchange(**changed)
        assert caught.value.code == code

    def test_an_issuer_without_the_slash_is_another_issuer(self) -> None:
        with pytest.raises(IssuerMisconfiguredError):
            parse_exchange(access_token=jwt(iss=ISSUER.rstrip("/")))

    def test_a_jwt_that_ends_before_expires_in_is_not_trusted_longer(self) -> None:
        assert parse_exchange(access_token=jwt(exp=NOW + 600)).expires_at == NOW + 600

    def test_clocks_that_differ_a_little_change_nothing(self) -> None:
        assert parse_exchange(access_token=jwt(exp=NOW + 3550)).expires_at == NOW + 3600
        assert parse_exchange(access_token=jwt(exp=NOW + 9999)).expires_at == NOW + 3600

    @fuzz
    @given(
        st.dictionaries(st.sampled_from(["iss", "aud", "exp"]), JSON),
        st.dictionaries(st.sampled_from(["issued_token_type", "token_type", "expires_in"]), JSON),
    )
    def test_whatever_comes_only_our_errors_come_out(
        self, claims: dict[str, Any], changed: dict[str, Any]
    ) -> None:
        try:
            assert parse_exchange(access_token=jwt(**claims), **changed).value
        except EscapeHubError:
            pass

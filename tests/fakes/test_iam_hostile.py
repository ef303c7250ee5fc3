"""Hostile answers are what their names say, judged by a library, not by the IAM's own code."""

from __future__ import annotations

import base64
import hmac
from typing import Any

import jwt
import pytest

from escape_hub.demo.iam import hostile
from escape_hub.demo.iam.config import CLIENT_ID
from tests.fakes.iam_peer import Peer, callback, good


async def parts(iam: Peer) -> tuple[dict[str, Any], dict[str, Any], bool]:
    """Header, claims, and whether the signature fits a key of the published set."""
    token = (await iam.login())["id_token"]
    header = jwt.get_unverified_header(token)
    claims = dict(jwt.decode(token, options={"verify_signature": False}))
    fits = False
    for key in jwt.PyJWKSet.from_dict(good(await iam.http.get("jwk"))).keys:
        try:
            off = {k: False for k in ("verify_exp", "verify_aud", "verify_iat", "verify_nbf")}
            jwt.decode(token, key, algorithms=[key.algorithm_name], options=off)  # type: ignore[arg-type]
            fits = True
        except jwt.InvalidTokenError:
            continue
    return header, claims, fits


CHANGED_CLAIM = {
    "wrong_iss": "iss",
    "iss_without_slash": "iss",
    "missing_iss": "iss",
    "missing_sub": "sub",
    "wrong_sub": "sub",
    "wrong_aud": "aud",
    "missing_aud": "aud",
    "several_aud": "aud",
    "missing_azp": "aud",
    "wrong_azp": "azp",
    "missing_iat": "iat",
    "iat_future": "iat",
    "missing_exp": "exp",
    "expired": "exp",
    "nbf_future": "nbf",
    "wrong_nonce": "nonce",
    "missing_nonce": "nonce",
    "oversize": "padding",
    "missing_jti": "jti",
}
CHANGED_HEADER = {
    "kid_absent": "kid",
    "kid_unknown": "kid",
    "crit": "crit",
    "typ_at_jwt": "typ",
    "typ_logout_jwt": "typ",
    "typ_jwt": "typ",
}
BAD_SIGNATURE = {
    "alg_none",
    "hs256",
    "hs256_public_key",
    "foreign_key",
    "bad_signature",
    "bad_signature_es256",
    "jku",
    "embedded_jwk",
}
GOOD_SIGNATURE_OF_AN_EXTRA_KEY = {"es256", "weak_key"}
LOGOUT_ONLY = {"no_event", "wrong_event", "with_nonce", "missing_sub_and_sid"}


def test_every_mutation_is_tested_here() -> None:
    tested = {*CHANGED_CLAIM, *CHANGED_HEADER, *BAD_SIGNATURE, *GOOD_SIGNATURE_OF_AN_EXTRA_KEY}
    assert tested | LOGOUT_ONLY == set(hostile.TOKEN_MUTATIONS)


@pytest.mark.parametrize("name", sorted(CHANGED_CLAIM))
async def test_a_changed_claim_is_well_signed(name: str) -> None:
    async with Peer() as iam:
        _, normal, _ = await parts(iam)
        await iam.faults(hostile={"id_token": name})
        _, claims, fits = await parts(iam)
        claim = CHANGED_CLAIM[name]
        if name.startswith("missing") and name != "missing_azp":
            assert claim in normal and claim not in claims
        else:
            assert claims[claim] != normal.get(claim)
        assert fits


async def test_the_times_of_hostile_tokens_are_off_by_an_hour() -> None:
    async with Peer() as iam:
        for name, claim, sign in (("expired", "exp", -1), ("nbf_future", "nbf", 1)):
            await iam.faults(hostile={"id_token": name})
            _, claims, _ = await parts(iam)
            assert claims[claim] - claims["iat"] == sign * 3600


@pytest.mark.parametrize("name", sorted(CHANGED_HEADER))
async def test_a_changed_header_is_well_signed_too(name: str) -> None:
    async with Peer() as iam:
        normal, _, _ = await parts(iam)
        await iam.faults(hostile={"id_token": name})
        header, _, fits = await parts(iam)
        assert header.get(CHANGED_HEADER[name]) != normal.get(CHANGED_HEADER[name])
        assert fits or name == "crit"  # PyJWT refuses an unknown crit before the signature


@pytest.mark.parametrize("name", sorted(BAD_SIGNATURE))
async def test_a_forged_token_fits_no_published_key(name: str) -> None:
    async with Peer() as iam:
        await iam.faults(hostile={"id_token": name})
        _, claims, fits = await parts(iam)
        assert not fits and claims["nonce"] == "the-nonce"


async def test_hs256_is_signed_with_the_client_secret_as_an_attacker_would() -> None:
    async with Peer() as iam:
        await iam.faults(hostile={"id_token": "hs256"})
        message, _, signature = (await iam.login())["id_token"].rpartition(".")
        secret = iam.config.clients[CLIENT_ID].secret
        expected = hmac.digest(secret.encode(), message.encode(), "sha256")
        assert base64.urlsafe_b64decode(signature + "=") == expected


async def test_the_weak_key_is_published_and_has_1024_bits() -> None:
    async with Peer() as iam:
        await iam.faults(hostile={"id_token": "weak_key"})
        keys = {k["kid"]: k for k in good(await iam.http.get("jwk"))["keys"]}
        assert len(keys) == 2 and len(keys["weak"]["n"]) == 171  # base64url of 128 bytes
        token = (await iam.login())["id_token"]
        assert jwt.get_unverified_header(token)["kid"] == "weak"


async def test_an_es256_token_verifies_with_the_published_key() -> None:
    async with Peer() as iam:
        await iam.faults(hostile={"id_token": "es256"})
        header, _, fits = await parts(iam)
        assert header["alg"] == "ES256" and fits


async def test_mutations_can_be_combined() -> None:
    async with Peer() as iam:
        await iam.faults(hostile={"id_token": ["wrong_iss", "kid_absent"]})
        header, claims, fits = await parts(iam)
        assert "kid" not in header and claims["iss"] != iam.url and fits


async def test_a_refreshed_id_token_can_be_hostile_while_the_first_is_good() -> None:
    async with Peer() as iam:
        await iam.faults(hostile={"refresh_id_token": "wrong_sub"})
        reply = await iam.login()
        fresh = good(await iam.refresh(reply["refresh_token"]))["id_token"]
        subs = [
            jwt.decode(token, options={"verify_signature": False})["sub"]
            for token in (reply["id_token"], fresh)
        ]
        assert subs[0] != subs[1] == "someone-else"
        await iam.faults(hostile={"refresh_id_token": "absent"})
        assert "id_token" not in good(await iam.refresh(reply["refresh_token"]))


async def test_an_exchanged_token_can_be_for_somebody_else() -> None:
    async with Peer() as iam:
        await iam.faults(hostile={"exchanged_token": "wrong_aud"})
        subject = (await iam.login())["access_token"]
        token = good(await iam.exchange(subject))["access_token"]
        assert jwt.decode(token, options={"verify_signature": False})["aud"] == "other-client"


@pytest.mark.parametrize("name", sorted(set(hostile.TOKEN_MUTATIONS) - LOGOUT_ONLY))
async def test_no_hostile_token_upsets_the_iam_itself(name: str) -> None:
    async with Peer() as iam:
        subject = (await iam.login())["access_token"]
        await iam.faults(hostile={"exchanged_token": name, "id_token": name})
        answer = await iam.exchange(subject, audience="rucio")
        assert answer.status_code == 200
        for token in (answer.json()["access_token"], (await iam.login())["id_token"]):
            assert (await iam.userinfo(token)).status_code in (200, 401)


@pytest.mark.parametrize("name", sorted(hostile.REPLY_MUTATIONS))
async def test_a_token_reply_can_break_each_rule_of_its_form(name: str) -> None:
    async with Peer() as iam:
        token = (await iam.login())["refresh_token"]
        normal = good(await iam.refresh(token))
        await iam.faults(hostile={"token_reply": name})
        answer = (await iam.refresh(token)).json()
        if name == "not_an_object":
            assert isinstance(answer, list)
            return
        fixed = ("refresh_token", "token_type", "expires_in")
        same = normal.keys() == answer.keys() and all(normal[k] == answer[k] for k in fixed)
        token_is_good = str(answer.get("access_token")).count(".") == 2 and (
            "\n" not in str(answer["access_token"])
        )
        assert not (same and token_is_good)


async def test_userinfo_can_name_another_subject_or_none() -> None:
    async with Peer() as iam:
        token = (await iam.login())["access_token"]
        await iam.faults(hostile={"userinfo_sub": "other"})
        assert good(await iam.userinfo(token))["sub"] == "someone-else"
        await iam.faults(hostile={"userinfo_sub": "absent"})
        assert "sub" not in good(await iam.userinfo(token))


async def test_discovery_can_claim_another_issuer_and_other_members() -> None:
    async with Peer() as iam:
        changes = {"discovery_issuer": "https://x.invalid", "metadata": {"jwks_uri": None, "a": 1}}
        await iam.faults(hostile=changes)
        found = good(await iam.http.get(".well-known/openid-configuration"))
        assert found["issuer"] == "https://x.invalid" and found["a"] == 1
        assert "jwks_uri" not in found


async def test_a_callback_can_come_with_another_state_or_none() -> None:
    async with Peer() as iam:
        await iam.faults(hostile={"callback_state": "other"})
        assert callback(await iam.sign_in())["state"] == "not-the-state"
        await iam.faults(hostile={"callback_state": "absent"})
        assert "state" not in callback(await iam.authorize())

"""Token exchange (RFC 8693) by INDIGO IAM's rules."""

from __future__ import annotations

from typing import Any

import jwt
import pytest

from escape_hub.demo.iam.config import CLIENT_ID, CLIENT_SECRET, ClientConfig
from tests.fakes.iam_peer import CALLBACK, Peer, good, refusal


def unverified(token: str) -> dict[str, Any]:
    """The claims; the signature is checked elsewhere."""
    return dict(jwt.decode(token, options={"verify_signature": False}))


async def test_an_exchanged_token_is_for_its_audience_and_names_who_acts() -> None:
    async with Peer() as iam:
        subject = (await iam.login())["access_token"]
        reply = good(await iam.exchange(subject))
        assert reply["issued_token_type"].endswith(":jwt") and reply["expires_in"] == 3600
        assert "refresh_token" not in reply
        claims = unverified(reply["access_token"])
        assert claims["aud"] == "rucio" and claims["act"] == {"sub": CLIENT_ID}
        assert claims["scope"] == reply["scope"] == "openid profile"
        assert claims["sub"] == unverified(subject)["sub"]
        assert good(await iam.userinfo(reply["access_token"]))["preferred_username"] == "alice"


async def test_an_exchange_of_an_exchanged_token_keeps_the_chain_of_actors() -> None:
    async with Peer() as iam:
        first = good(await iam.exchange((await iam.login())["access_token"]))
        second = good(await iam.exchange(first["access_token"], audience="eos-eulake"))
        act = unverified(second["access_token"])["act"]
        assert act == {"sub": CLIENT_ID, "act": {"sub": CLIENT_ID}}


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"scope": None}, (400, "invalid_request")),
        ({"scope": "openid offline_access"}, (403, "access_denied")),
        ({"scope": "openid admin"}, (400, "invalid_scope")),
        ({"subject_token": None}, (400, "invalid_request")),
        ({"subject_token_type": None}, (400, "invalid_request")),
        ({"actor_token": "x"}, (400, "invalid_request")),
        (
            {"requested_token_type": "urn:ietf:params:oauth:token-type:refresh_token"},
            (400, "invalid_request"),
        ),
    ],
)
async def test_an_exchange_against_the_rules_is_refused(
    changes: dict[str, str | None], answer: tuple[int, str]
) -> None:
    async with Peer() as iam:
        subject = (await iam.login())["access_token"]
        # As a keyword it would clash with the helper's own parameter.
        if "subject_token" in changes:
            assert refusal(await iam.exchange("")) == answer
        else:
            assert refusal(await iam.exchange(subject, **changes)) == answer


@pytest.mark.parametrize(
    ("dialect", "answer"),
    [
        ("iam-new", (400, "invalid_grant")),
        ("iam-old", (401, "invalid_token")),
        ("keycloak", (400, "invalid_request")),
    ],
)
async def test_the_subject_must_be_a_living_access_token_of_ours(
    dialect: str, answer: tuple[int, str]
) -> None:
    async with Peer(dialect=dialect) as iam:
        reply = await iam.login()
        for wrong in ("garbage", reply["id_token"], reply["access_token"][:-4] + "AAAA"):
            assert refusal(await iam.exchange(wrong)) == answer
        iam.shift = 3700
        assert refusal(await iam.exchange(reply["access_token"])) == answer


async def test_any_audience_is_good_unless_the_configuration_lists_them() -> None:
    async with Peer() as iam:
        good(await iam.exchange((await iam.login())["access_token"], audience="anything"))
    async with Peer(audiences=("rucio",)) as iam:
        subject = (await iam.login())["access_token"]
        good(await iam.exchange(subject))
        refused = await iam.exchange(subject, audience="anything")
        assert refusal(refused) == (403, "access_denied")
    async with Peer(audiences=("rucio",), dialect="keycloak") as iam:
        subject = (await iam.login())["access_token"]
        assert good(await iam.exchange(subject))["issued_token_type"].endswith(":access_token")
        refused = await iam.exchange(subject, audience="anything")
        assert refusal(refused) == (400, "invalid_client")


async def test_one_audience_can_be_refused_while_the_other_is_served() -> None:
    async with Peer() as iam:
        subject = (await iam.login())["access_token"]
        await iam.faults(refuse_audience=["rucio"])
        assert refusal(await iam.exchange(subject)) == (403, "access_denied")
        good(await iam.exchange(subject, audience="eos-eulake"))
        await iam.faults(refuse_audience=["rucio"], refuse_audience_error="invalid_target")
        assert refusal(await iam.exchange(subject)) == (400, "invalid_target")


async def test_a_client_without_the_grant_is_refused_as_indigo_does() -> None:
    client = ClientConfig(CLIENT_SECRET, (CALLBACK,), grants=("authorization_code",))
    async with Peer(client=client) as iam:
        subject = (await iam.login())["access_token"]
        assert refusal(await iam.exchange(subject)) == (401, "invalid_client")

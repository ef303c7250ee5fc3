"""The token endpoint, userinfo, introspection and revocation of the development IAM."""

from __future__ import annotations

import asyncio
from urllib.parse import quote_plus

import jwt
import pytest

from escape_hub.demo.iam.config import CLIENT_ID, ClientConfig
from tests.fakes.iam_peer import AUTH, CALLBACK, SCOPE, Peer, good, refusal


async def claims_of(iam: Peer, token: str, audience: str | None = None) -> dict[str, object]:
    """Verify a token with the published keys, by a library that knows nothing of the IAM."""
    keys = jwt.PyJWKSet.from_dict(good(await iam.http.get("jwk")))
    key = keys[jwt.get_unverified_header(token)["kid"]]
    off = {"verify_aud": audience is not None}
    return dict(
        jwt.decode(token, key, ["RS256"], audience=audience, issuer=iam.url, options=off)  # type: ignore[arg-type]
    )


async def test_a_login_gives_tokens_that_verify_with_the_published_keys() -> None:
    async with Peer() as iam:
        reply = await iam.login()
        assert reply["token_type"] == "Bearer" and reply["expires_in"] == 3600
        assert reply["scope"] == SCOPE
        identity = await claims_of(iam, reply["id_token"], CLIENT_ID)
        assert identity["nonce"] == "the-nonce"
        assert identity["groups"] == ["escape", "escape/cms"]
        access = await claims_of(iam, reply["access_token"])
        assert access["sub"] == identity["sub"] and "aud" not in access
        assert "." not in reply["refresh_token"]


async def test_no_token_is_cached_on_the_way() -> None:
    async with Peer() as iam:
        answer = await iam.redeem(await iam.code())
        assert answer.headers["Cache-Control"] == "no-store"


async def test_without_offline_access_there_is_no_refresh_token() -> None:
    async with Peer() as iam:
        assert "refresh_token" not in await iam.login(scope="openid profile")


async def test_without_openid_there_is_no_id_token_and_no_userinfo() -> None:
    async with Peer() as iam:
        reply = await iam.login(scope="profile")
        assert "id_token" not in reply
        assert refusal(await iam.userinfo(reply["access_token"])) == (403, "insufficient_scope")


async def test_a_code_works_once_and_its_second_use_ends_what_came_of_the_first() -> None:
    async with Peer() as iam:
        code = await iam.code()
        reply = good(await iam.redeem(code))
        assert refusal(await iam.redeem(code)) == (400, "invalid_grant")
        assert not await iam.active(reply["access_token"])
        assert refusal(await iam.refresh(reply["refresh_token"])) == (400, "invalid_grant")


async def test_a_code_lives_sixty_seconds() -> None:
    async with Peer() as iam:
        code = await iam.code()
        iam.shift = 59
        good(await iam.redeem(code))
        code = await iam.code()
        iam.shift = 59 + 61
        assert refusal(await iam.redeem(code)) == (400, "invalid_grant")


@pytest.mark.parametrize("changes", [{"code_verifier": "w" * 43}, {"redirect_uri": CALLBACK + "/"}])
async def test_a_code_is_refused_with_the_wrong_companions_and_is_then_spent(
    changes: dict[str, str],
) -> None:
    async with Peer() as iam:
        code = await iam.code()
        assert refusal(await iam.redeem(code, **changes)) == (400, "invalid_grant")
        assert refusal(await iam.redeem(code)) == (400, "invalid_grant")


async def test_a_code_without_its_verifier_is_an_invalid_request() -> None:
    async with Peer() as iam:
        code = await iam.code()
        assert refusal(await iam.redeem(code, code_verifier="")) == (400, "invalid_request")


async def test_a_client_proves_itself_in_the_header_or_in_the_body_but_not_in_both() -> None:
    odd = "se cret+%:ü"
    async with Peer(client=ClientConfig(odd, (CALLBACK,))) as iam:
        form = {"grant_type": "refresh_token", "refresh_token": "none"}
        encoded = (quote_plus(CLIENT_ID), quote_plus(odd))
        post = {"client_id": CLIENT_ID, "client_secret": odd}
        dead = (400, "invalid_grant")
        assert refusal(await iam.post_token(encoded, **form)) == dead
        assert refusal(await iam.post_token(None, **form, **post)) == dead
        assert refusal(await iam.post_token((CLIENT_ID, odd), **form)) == (401, "invalid_client")
        both = await iam.post_token(encoded, **form, **post)
        assert refusal(both) == (400, "invalid_request")
        nobody = await iam.post_token(None, **form)
        assert refusal(nobody) == (401, "invalid_client")
        assert "Basic" in nobody.headers["WWW-Authenticate"]


async def test_requests_that_are_not_good_forms_are_refused() -> None:
    async with Peer() as iam:
        as_json = await iam.http.post("token", json={"grant_type": "refresh_token"}, auth=AUTH)
        assert refusal(as_json) == (400, "invalid_request")
        kind = {"Content-Type": "application/x-www-form-urlencoded"}
        body = b"grant_type=refresh_token&grant_type=password"
        twice = await iam.http.post("token", content=body, headers=kind, auth=AUTH)
        assert refusal(twice) == (400, "invalid_request")
        other = await iam.post_token(grant_type="password")
        assert refusal(other) == (400, "unsupported_grant_type")


async def test_without_rotation_the_same_refresh_token_serves_for_ever() -> None:
    async with Peer() as iam:
        reply = await iam.login()
        first = good(await iam.refresh(reply["refresh_token"]))
        second = good(await iam.refresh(reply["refresh_token"]))
        assert first["refresh_token"] == second["refresh_token"] == reply["refresh_token"]
        assert first["access_token"] != second["access_token"]
        assert "nonce" not in await claims_of(iam, first["id_token"], CLIENT_ID)


async def test_with_rotation_a_replay_is_refused_and_the_winner_lives_on() -> None:
    async with Peer(refresh_rotation=True) as iam:
        reply = await iam.login()
        winner = good(await iam.refresh(reply["refresh_token"]))
        assert winner["refresh_token"] != reply["refresh_token"]
        assert refusal(await iam.refresh(reply["refresh_token"])) == (400, "invalid_grant")
        assert await iam.active(winner["access_token"])
        good(await iam.refresh(winner["refresh_token"]))


async def test_with_kill_family_a_replay_ends_the_winner_and_its_exchanges_too() -> None:
    async with Peer(refresh_rotation=True, refresh_reuse="kill_family") as iam:
        reply = await iam.login()
        winner = good(await iam.refresh(reply["refresh_token"]))
        rucio = good(await iam.exchange(winner["access_token"]))
        assert refusal(await iam.refresh(reply["refresh_token"])) == (400, "invalid_grant")
        for dead in (winner["access_token"], rucio["access_token"], winner["refresh_token"]):
            assert not await iam.active(dead)
        assert refusal(await iam.refresh(winner["refresh_token"])) == (400, "invalid_grant")


async def test_two_refreshes_at_once_with_rotation_have_one_winner() -> None:
    async with Peer(refresh_rotation=True) as iam:
        token = (await iam.login())["refresh_token"]
        await iam.faults(refresh_rotation=True, delay=0.05)
        answers = await asyncio.gather(*(iam.refresh(token) for _ in range(5)))
        assert sorted(a.status_code for a in answers) == [200, 400, 400, 400, 400]
        counters = await iam.counters()
        assert counters["max_concurrent_refresh"] == 5
        assert counters["max_concurrent_refresh_by_user"] == {"alice": 5}
        assert counters["users"]["alice"]["refresh_token"] == {"ok": 1, "invalid_grant": 4}


async def test_a_refresh_may_narrow_the_scope_and_never_widen_it() -> None:
    async with Peer() as iam:
        token = (await iam.login(scope="openid profile offline_access"))["refresh_token"]
        assert good(await iam.refresh(token, scope="openid"))["scope"] == "openid"
        wider = await iam.refresh(token, scope="openid email")
        assert refusal(wider) == (400, "invalid_scope")


async def test_a_refresh_takes_an_audience_as_indigo_does() -> None:
    async with Peer() as iam:
        token = (await iam.login())["refresh_token"]
        reply = good(await iam.refresh(token, audience="rucio"))
        assert (await claims_of(iam, reply["access_token"], "rucio"))["aud"] == "rucio"


async def test_tokens_die_at_the_end_of_their_life_which_can_be_changed_while_running() -> None:
    async with Peer() as iam:
        reply = await iam.login()
        await iam.faults(access_token_lifetime=20, refresh_token_lifetime=100)
        short = good(await iam.refresh(reply["refresh_token"]))
        assert short["expires_in"] == 20
        iam.shift = 19
        assert await iam.active(short["access_token"])
        iam.shift = 21.5
        assert not await iam.active(short["access_token"])
        assert refusal(await iam.userinfo(short["access_token"])) == (401, "invalid_token")
        assert await iam.active(reply["access_token"])


@pytest.mark.parametrize(
    ("dialect", "answer"),
    [
        ("iam-new", (400, "invalid_grant")),
        ("iam-old", (401, "invalid_token")),
        ("keycloak", (400, "invalid_grant")),
    ],
)
async def test_a_dead_refresh_token_is_refused_in_the_dialect(
    dialect: str, answer: tuple[int, str]
) -> None:
    async with Peer(dialect=dialect) as iam:
        token = (await iam.login())["refresh_token"]
        await iam.control("POST", "revoke_user", {"user": "alice"})
        refused = await iam.refresh(token)
        assert refusal(refused) == answer
        # MITREid writes the token into the text: a client must scrub it.
        assert (token in refused.text) == (dialect == "iam-old")


async def test_userinfo_tells_what_the_scope_allows() -> None:
    async with Peer() as iam:
        token = (await iam.login(scope="openid"))["access_token"]
        assert good(await iam.userinfo(token)).keys() == {"sub"}
        token = (await iam.login("bob"))["access_token"]
        person = good(await iam.userinfo(token))
        assert person["preferred_username"] == "bob" and person["groups"] == ["escape"]
        assert person["email"] == "bob@example.org"


async def test_an_id_token_or_a_missing_token_opens_no_userinfo() -> None:
    async with Peer() as iam:
        reply = await iam.login()
        assert refusal(await iam.userinfo(reply["id_token"])) == (401, "invalid_token")
        nothing = await iam.http.get("userinfo")
        assert nothing.status_code == 401 and "error" not in nothing.headers["WWW-Authenticate"]


async def test_introspection_is_for_clients_only() -> None:
    async with Peer() as iam:
        token = (await iam.login())["access_token"]
        answer = await iam.http.post("introspect", data={"token": token})
        assert refusal(answer) == (401, "invalid_client")
        told = good(await iam.http.post("introspect", data={"token": token}, auth=AUTH))
        assert told["active"] and told["username"] == "alice" and told["client_id"] == CLIENT_ID
        assert not await iam.active("garbage")


async def test_a_revoked_access_token_dies_alone_and_a_refresh_token_takes_all_along() -> None:
    async with Peer() as iam:
        reply = await iam.login()
        fresh = good(await iam.refresh(reply["refresh_token"]))
        await iam.http.post("revoke", data={"token": reply["access_token"]}, auth=AUTH)
        assert not await iam.active(reply["access_token"])
        assert await iam.active(fresh["access_token"])
        gone = {"token": reply["refresh_token"], "token_type_hint": "refresh_token"}
        assert (await iam.http.post("revoke", data=gone, auth=AUTH)).status_code == 200
        assert not await iam.active(fresh["access_token"])
        assert refusal(await iam.refresh(reply["refresh_token"])) == (400, "invalid_grant")
        unknown = await iam.http.post("revoke", data={"token": "unknown"}, auth=AUTH)
        assert unknown.status_code == 200

"""The control API: faults, counters, keys, and the list of issued secrets."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.fakes.iam_peer import Peer, callback, good, refusal


async def test_the_control_api_answers_only_who_carries_its_header() -> None:
    async with Peer() as iam:
        for path in ("faults", "counters", "issued"):
            assert (await iam.http.get(f"dev/{path}")).status_code == 403
        assert (await iam.http.post("dev/rotate_keys")).status_code == 403


async def test_another_name_that_leads_here_is_refused() -> None:
    async with Peer() as iam:
        answer = await iam.http.get("authorize", headers={"Host": "attacker.invalid"})
        assert answer.status_code == 403


@pytest.mark.parametrize("mode", ["500", "502", "503", "504", "429"])
async def test_a_status_fault_answers_with_it_and_counts_it(mode: str) -> None:
    async with Peer() as iam:
        token = (await iam.login())["refresh_token"]
        await iam.faults(token={"mode": mode, "retry_after": 7})
        answer = await iam.refresh(token)
        assert answer.status_code == int(mode) and answer.headers["Retry-After"] == "7"
        counters = await iam.counters()
        assert counters["grants"]["refresh_token"] == {f"fault:{mode}": 1}
        await iam.faults()
        good(await iam.refresh(token))


async def test_a_redirect_leads_to_another_origin_that_counts_who_follows() -> None:
    async with Peer() as iam:
        token = (await iam.login())["refresh_token"]
        await iam.faults(token={"mode": "307"})
        answer = await iam.refresh(token)
        assert answer.status_code == 307
        assert answer.headers["Location"] == f"http://localhost:{iam.config.port}/caught"
        await iam.http.post(answer.headers["Location"], data={"refresh_token": token})
        assert (await iam.counters())["requests"]["caught"] == 1


async def test_the_way_a_client_proves_who_it_is_is_counted() -> None:
    async with Peer() as iam:
        await iam.refresh((await iam.login())["refresh_token"])
        await iam.http.post("token", data={"client_id": "escape-hub", "client_secret": "wrong"})
        assert (await iam.counters())["client_auth"] == {"basic": 2, "post": 1}


async def test_garbage_is_a_success_that_nobody_can_parse() -> None:
    async with Peer() as iam:
        token = (await iam.login())["refresh_token"]
        await iam.faults(token={"mode": "garbage"})
        answer = await iam.refresh(token)
        assert answer.status_code == 200
        with pytest.raises(ValueError):
            answer.json()


async def test_a_hanging_request_ends_with_its_client_and_is_counted() -> None:
    async with Peer() as iam:
        token = (await iam.login())["refresh_token"]
        await iam.faults(token={"mode": "hang"})
        with pytest.raises(httpx.ReadTimeout):
            await iam.http.post(
                "token",
                data={"grant_type": "refresh_token", "refresh_token": token},
                timeout=httpx.Timeout(5, read=0.2),
            )
        # The IAM sees the closed connection a moment later; each question gives it a turn.
        for _ in range(100):
            if found := (await iam.counters())["grants"].get("refresh_token"):
                break
        assert found == {"fault:hang": 1}


async def test_a_lost_reply_was_processed_and_a_dropped_request_was_not() -> None:
    async with Peer(refresh_rotation=True) as iam:
        token = (await iam.login())["refresh_token"]
        await iam.control("PATCH", "faults", {"token": {"mode": "drop"}})
        with pytest.raises(httpx.RemoteProtocolError):
            await iam.refresh(token)
        await iam.control("PATCH", "faults", {"token": {"mode": "none"}})
        token = good(await iam.refresh(token))["refresh_token"]
        await iam.control("PATCH", "faults", {"token": {"mode": "lost_reply"}})
        with pytest.raises(httpx.RemoteProtocolError):
            await iam.refresh(token)
        await iam.control("PATCH", "faults", {"token": {"mode": "none"}})
        assert refusal(await iam.refresh(token)) == (400, "invalid_grant")
        assert (await iam.counters())["users"]["alice"]["refresh_token"] == {
            "fault:drop": 1,
            "ok": 1,
            "lost_reply": 1,
            "invalid_grant": 1,
        }


async def test_a_fault_can_hit_one_grant_type_and_a_number_of_times() -> None:
    async with Peer() as iam:
        reply = await iam.login()
        await iam.faults(token={"mode": "503", "grant": "token-exchange", "times": 1})
        good(await iam.refresh(reply["refresh_token"]))
        assert (await iam.exchange(reply["access_token"])).status_code == 503
        good(await iam.exchange(reply["access_token"]))


@pytest.mark.parametrize(
    ("endpoint", "path"),
    [
        ("userinfo", "userinfo"),
        ("jwk", "jwk"),
        ("discovery", ".well-known/openid-configuration"),
        ("authorize", "authorize"),
    ],
)
async def test_every_endpoint_can_fail_alone(endpoint: str, path: str) -> None:
    async with Peer() as iam:
        await iam.faults(**{endpoint: {"mode": "503"}})
        assert (await iam.http.get(path)).status_code == 503
        await iam.faults(**{endpoint: {"mode": "lost_reply"}})
        with pytest.raises(httpx.RemoteProtocolError):
            await iam.http.get(path)


async def test_an_unsigned_policy_refuses_and_leaves_the_refresh_token_good() -> None:
    async with Peer(refresh_rotation=True) as iam:
        reply = await iam.login()
        await iam.faults(aup_unsigned=["alice"], refresh_rotation=True)
        refused = await iam.refresh(reply["refresh_token"])
        assert refusal(refused) == (400, "invalid_grant")
        text = "User alice needs to sign AUP for this organization in order to proceed."
        assert refused.json()["error_description"] == text
        assert refusal(await iam.exchange(reply["access_token"])) == (400, "invalid_grant")
        await iam.faults()
        good(await iam.refresh(reply["refresh_token"]))


async def test_a_suspended_user_is_refused_and_the_others_are_not() -> None:
    async with Peer() as iam:
        alice, bob = await iam.login("alice"), await iam.login("bob")
        await iam.faults(suspended=["alice"])
        assert refusal(await iam.refresh(alice["refresh_token"])) == (401, "unauthorized")
        assert refusal(await iam.exchange(alice["access_token"])) == (401, "unauthorized")
        assert refusal(await iam.userinfo(alice["access_token"])) == (401, "invalid_token")
        good(await iam.refresh(bob["refresh_token"]))
        await iam.faults()
        good(await iam.refresh(alice["refresh_token"]))


async def test_a_client_that_lost_its_secret_is_refused_and_tokens_survive_it() -> None:
    async with Peer() as iam:
        reply = await iam.login()
        await iam.faults(invalid_client=True)
        assert refusal(await iam.refresh(reply["refresh_token"])) == (401, "invalid_client")
        await iam.faults()
        good(await iam.refresh(reply["refresh_token"]))


async def test_groups_and_subject_of_a_user_can_change_while_running() -> None:
    async with Peer() as iam:
        reply = await iam.login()
        before = good(await iam.userinfo(reply["access_token"]))
        await iam.faults(users={"alice": {"groups": ["other"]}})
        assert good(await iam.userinfo(reply["access_token"]))["groups"] == ["other"]
        await iam.faults(users={"alice": {"sub": "another-alice"}})
        assert refusal(await iam.userinfo(reply["access_token"])) == (401, "invalid_token")
        fresh = await iam.login()
        assert good(await iam.userinfo(fresh["access_token"]))["sub"] == "another-alice"
        assert before["sub"] != "another-alice"


async def test_put_sets_exactly_the_given_faults_and_patch_adds_to_them() -> None:
    async with Peer(access_token_lifetime=90) as iam:
        await iam.faults(delay=0.5)
        shown = good(await iam.control("PATCH", "faults", {"invalid_client": True}))
        assert shown["delay"] == 0.5 and shown["invalid_client"] is True
        shown = good(await iam.control("PUT", "faults", {"suspended": ["bob"]}))
        assert shown["delay"] == 0 and shown["suspended"] == ["bob"]
        assert shown["access_token_lifetime"] == 90
        shown = good(await iam.control("DELETE", "faults"))
        assert shown["suspended"] == []
        assert shown == good(await iam.control("GET", "faults"))


@pytest.mark.parametrize(
    "body",
    [
        {"tokne": {}},
        {"token": {"mode": "explode"}},
        {"token": {"mode": "503", "grant": "password"}},
        {"token": {"times": -1}},
        {"token": "503"},
        {"delay": "long"},
        {"delay": -1},
        {"refuse_audience": "rucio"},
        {"invalid_client": 1},
        {"refresh_reuse": "maybe"},
        {"dialect": "esperanto"},
        {"users": {"alice": {"shoe_size": 42}}},
        {"hostile": {"id_token": "rude"}},
        {"hostile": {"unknown": "x"}},
    ],
)
async def test_a_mistaken_fault_is_refused_and_changes_nothing(body: dict[str, Any]) -> None:
    async with Peer() as iam:
        await iam.faults(delay=0.5)
        answer = await iam.control("PUT", "faults", body | {"suspended": ["bob"]})
        assert answer.status_code == 400 and next(iter(body)) in answer.json()["error"]
        shown = good(await iam.control("GET", "faults"))
        assert shown["delay"] == 0.5 and shown["suspended"] == []


async def test_a_rotated_key_is_published_at_once_and_the_old_one_may_stay_or_go() -> None:
    async with Peer() as iam:
        token = (await iam.login())["access_token"]
        await iam.control("POST", "rotate_keys")
        assert len(good(await iam.http.get("jwk"))["keys"]) == 2
        assert await iam.active(token)
        await iam.control("POST", "rotate_keys", {"keep_old": False})
        assert len(good(await iam.http.get("jwk"))["keys"]) == 1
        assert not await iam.active(token)


async def test_every_secret_that_was_issued_or_seen_is_listed() -> None:
    async with Peer(refresh_rotation=True) as iam:
        code = callback(await iam.sign_in())["code"]
        cookie = iam.http.cookies["escape-dev-iam-session"]
        reply = good(await iam.redeem(code))
        fresh = good(await iam.refresh(reply["refresh_token"]))
        rucio = good(await iam.exchange(fresh["access_token"]))
        listed = good(await iam.control("GET", "issued"))
        assert listed["codes"] == [code] and listed["session_cookies"] == [cookie]
        assert listed["code_verifiers"] == [iam.verifier]
        access = [r["access_token"] for r in (reply, fresh, rucio)]
        assert listed["access_tokens"] == access
        assert listed["refresh_tokens"] == [r["refresh_token"] for r in (reply, fresh)]
        assert listed["id_tokens"] == [r["id_token"] for r in (reply, fresh)]


async def test_counters_start_again_from_nothing() -> None:
    async with Peer() as iam:
        await iam.refresh((await iam.login())["refresh_token"])
        before = await iam.counters()
        assert before["grants"] == {"authorization_code": {"ok": 1}, "refresh_token": {"ok": 1}}
        assert before["requests"]["token"] == 2
        await iam.control("POST", "counters/reset")
        after = await iam.counters()
        assert after["grants"] == after["users"] == after["requests"] == {}


async def test_tokens_for_a_benchmark_come_without_a_browser() -> None:
    async with Peer() as iam:
        minted = good(await iam.control("POST", "mint", {"user": "bob"}))
        good(await iam.refresh(minted["refresh_token"]))
        good(await iam.exchange(minted["access_token"]))
        nobody = await iam.control("POST", "mint", {"user": "nobody"})
        assert nobody.status_code == 400

"""The everyday life of a sign-in: login, renewal, renew now, logout."""

from __future__ import annotations

import asyncio
import logging

import pytest

from escape_hub.core.auth_state import ForeignAuthStateError, NeedsLogin
from escape_hub.core.renewal import RenewalPolicy
from escape_hub.core.status import State
from escape_hub.errors import IssuerMisconfiguredError, NotAllowedError
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import FakeIssuer, unavailable
from tests.fakes.rig import Rig

SIGNED_OUT = NeedsLogin("signed-out", "you signed out", 0.0, wipe=True)


@pytest.fixture
def rig() -> Rig:
    return Rig()


async def expired(rig: Rig) -> None:
    """Alice is signed in, and all her tokens are dead."""
    await rig.login()
    await rig.clock.advance(3700)


# -- login -----------------------------------------------------------------------------------


async def test_a_login_exchanges_every_audience_and_stores_nothing_itself(rig):
    state = await rig.begin()
    assert rig.are_good(state)
    assert state.failures == {}
    assert rig.store.states == {}
    assert rig.store.saves == 0


async def test_an_audience_that_refuses_at_login_stops_neither_the_login_nor_the_other(rig):
    rig.issuer.refuse["rucio"] = IssuerMisconfiguredError("not allowed", code="exchange-denied")
    state = await rig.begin()
    assert rig.are_good(state, ["eos"])
    assert state.failures["rucio"].kind == "operator"
    assert rig.broker.status(state).audiences["rucio"].state is State.REFUSED


async def test_a_login_does_not_wait_long_for_an_audience_and_the_renewal_makes_up_for_it(rig):
    reply = rig.issuer.sign_in("alice")
    rig.issuer.hang = True
    before = rig.clock.now()
    state = await rig.clock.run(
        rig.broker.begin("alice", reply, issuer="i", subject="alice", claims={})
    )
    assert rig.clock.now() - before == rig.policy.login_patience
    assert state.exchanged == {}
    assert {f.code for f in state.failures.values()} == {"exchange-late"}
    rig.issuer.hang = False
    rig.store.states["alice"] = state
    assert rig.are_good(await rig.renew())


async def test_a_login_lies_above_anything_a_renewal_in_flight_may_store(rig):
    first = await rig.login()
    for _ in range(3):
        await rig.clock.advance(3700)
        await rig.renew()
    second = await rig.begin()
    assert second.generation > rig.stored().generation + 100
    third = await rig.begin()  # two tabs at once: the second is not stored yet
    assert third.generation > second.generation > first.generation


async def test_a_login_heals_whatever_is_stored(rig):
    class Foreign(type(rig.store)):
        async def load(self, user):
            raise ForeignAuthStateError("of another authenticator")

    other = Rig(store=Foreign())
    assert (await other.begin()).generation > 0


# -- renewal ---------------------------------------------------------------------------------


async def test_a_renewal_takes_one_refresh_one_exchange_each_and_one_look_at_userinfo(rig):
    await expired(rig)
    rig.issuer.calls.clear()
    state = await rig.renew()
    assert rig.are_good(state)
    assert state == rig.stored()
    assert rig.issuer.calls == {"refresh": 1, "exchange": 2, "userinfo": 1}


async def test_a_renewal_takes_two_round_trips():
    clock = FakeClock()
    rig = Rig(clock=clock, issuer=FakeIssuer(clock, latency=0.02))
    await expired(rig)
    before = clock.now()
    await rig.renew()
    assert clock.now() - before == pytest.approx(0.04)


async def test_nothing_is_asked_of_the_issuer_while_the_tokens_suffice(rig):
    await rig.login()
    rig.issuer.calls.clear()
    await rig.renew()
    assert not rig.issuer.calls


async def test_the_rotated_refresh_token_is_stored_before_anything_is_exchanged(rig):
    await expired(rig)
    seen = []
    original = rig.issuer.exchange

    async def exchange(*args, **kwargs):
        seen.append(rig.issuer.is_current(rig.stored().refresh_token))
        return await original(*args, **kwargs)

    rig.issuer.exchange = exchange
    await rig.renew()
    assert seen == [True, True]


async def test_a_reply_without_a_refresh_token_keeps_the_old_one():
    clock = FakeClock()
    rig = Rig(clock=clock, issuer=FakeIssuer(clock, rotation=False))
    await expired(rig)
    original = rig.issuer.refresh

    async def refresh(token):
        from dataclasses import replace

        return replace(await original(token), refresh_token=None)

    rig.issuer.refresh = refresh
    before = rig.stored().refresh_token
    await rig.renew()
    assert rig.stored().refresh_token == before
    await rig.clock.advance(3700)
    assert rig.are_good(await rig.renew())


async def test_one_stale_audience_is_exchanged_with_the_living_login_token(rig):
    rig.issuer.fail("exchange", unavailable())
    state = await rig.login()
    assert len(state.exchanged) == 1
    await rig.clock.advance(6)
    rig.issuer.calls.clear()
    assert rig.are_good(await rig.renew())
    assert rig.issuer.calls == {"exchange": 1}


async def test_a_subject_token_that_the_issuer_killed_early_is_refreshed_before_judging(rig):
    state = await rig.login()
    rig.issuer._access.pop(state.login_token.value)
    rig.store.states["alice"] = state.next(exchanged={})
    state = await rig.renew()
    assert rig.are_good(state)
    assert state.failures == {}
    assert rig.issuer.calls["refresh"] == 1
    assert not rig.broker.admission.breaker._in_a_row  # an answer is no outage


async def test_renew_now_gives_new_tokens_and_spends_no_refresh_token_without_need(rig):
    before = await rig.login()
    await rig.clock.advance(60)
    after = await rig.renew(force=True)
    assert rig.are_good(after)
    for name in ("eos", "rucio"):
        assert after.exchanged[name].value != before.exchanged[name].value
    assert rig.issuer.calls["refresh"] == 0


async def test_the_minimum_life_asked_for_is_given(rig):
    await rig.login()
    await rig.clock.advance(2000)
    assert (await rig.renew(min_valid_period=1700)).exchanged["eos"].remaining(
        rig.clock.now()
    ) > 1700
    calls = rig.issuer.calls.total()
    await rig.renew(min_valid_period=10**6)
    await rig.renew(min_valid_period=10**6)
    assert rig.issuer.calls.total() == calls


async def test_whose_token_dies_first_is_renewed_first_when_there_is_a_queue():
    clock = FakeClock()
    rig = Rig(RenewalPolicy(rate=0.5, burst=4), clock=clock, issuer=FakeIssuer(clock))
    for user in ("bob", "bob2", "alice"):
        await rig.login(user)
        await clock.advance(200)
    await clock.advance(3700)
    asking = [
        asyncio.ensure_future(rig.broker.renew(u, patience=60)) for u in ("bob", "alice", "bob2")
    ]
    await clock.advance(9)
    assert [rig.are_good(rig.stored(u)) for u in ("bob", "bob2", "alice")] == [True, True, False]
    await clock.advance(9)
    assert rig.are_good(rig.stored("alice"))
    await asyncio.gather(*asking)


async def test_one_audience_alone_can_be_asked_for(rig):
    await rig.login()
    await rig.clock.advance(60)
    before = rig.stored()
    after = await rig.renew(force=True, audiences=["rucio"])
    assert after.exchanged["eos"] == before.exchanged["eos"]
    assert after.exchanged["rucio"] != before.exchanged["rucio"]


async def test_a_third_audience_needs_no_code(rig):
    from escape_hub.core.audiences import Audience

    rig.broker._parts.audiences["third"] = Audience("third", "third", "openid", "third.token")
    await rig.login()
    assert set(rig.stored().exchanged) == {"eos", "rucio", "third"}


async def test_nothing_stored_is_said_so(rig):
    with pytest.raises(LookupError):
        await rig.renew("nobody")
    with pytest.raises(LookupError):
        await rig.renew_due("nobody")


async def test_what_is_not_ours_is_said_so():
    class Foreign(Rig().store.__class__):
        async def load(self, user):
            raise ForeignAuthStateError("of another authenticator")

    with pytest.raises(ForeignAuthStateError):
        await Rig(store=Foreign()).renew()


async def test_the_refreshed_id_token_must_be_of_the_same_person(rig):
    rig.issuer.with_id_token = True
    await expired(rig)
    original = rig.issuer.refresh

    async def refresh(token):
        from dataclasses import replace

        return replace(await original(token), id_token="id-token-of-bob")

    rig.issuer.refresh = refresh
    before = rig.stored()
    state = await rig.renew()
    assert state.failures[""].code == "id-token-identity"
    assert state.exchanged == before.exchanged
    assert state.login_token == before.login_token
    # The rotated refresh token is of the same sign-in and must not be lost.
    assert rig.issuer.is_current(rig.stored().refresh_token)


async def test_a_new_id_token_is_kept_for_the_logout_and_its_claims_count(rig):
    rig.issuer.with_id_token = True
    await expired(rig)
    state = await rig.renew()
    assert state.id_token == "id-token-of-alice"
    assert state.claims["from_id_token"] is True
    assert "exp" not in state.claims


# -- who may stay ----------------------------------------------------------------------------


def needs_group(user, claims):
    if "escape" not in claims.get("groups", []):
        raise NotAllowedError("you are in none of the groups: escape", code="not-allowed")


async def test_fresh_claims_are_stored_at_each_renewal():
    rig = Rig(authorize=needs_group)
    rig.issuer.claims["alice"] = {"groups": ["escape", "escape/cms"]}
    await expired(rig)
    state = await rig.renew()
    assert state.claims["groups"] == ["escape", "escape/cms"]
    assert state.checked_at == rig.clock.now()


async def test_who_left_the_last_allowed_group_loses_everything_at_once():
    rig = Rig(authorize=needs_group)
    await expired(rig)
    rig.issuer.claims["alice"] = {"groups": []}
    state = await rig.renew()
    await rig.clock.advance(1)
    assert state.needs_login.wipe
    assert "groups: escape" in state.needs_login.message
    assert (state.exchanged, state.login_token, state.refresh_token) == ({}, None, None)
    assert rig.stored() == state
    assert len(rig.issuer.revoked) == 1
    assert not rig.issuer.is_current(rig.issuer.revoked[0])


async def test_a_group_claim_that_vanishes_does_not_live_on():
    rig = Rig(authorize=needs_group)
    rig.issuer.claims["alice"] = {"groups": ["escape"]}
    await expired(rig)
    await rig.renew()
    rig.issuer.claims["alice"] = {}
    await rig.clock.advance(3700)
    assert (await rig.renew()).needs_login.wipe


async def test_userinfo_away_keeps_the_claims_and_costs_no_token():
    rig = Rig(authorize=needs_group)
    rig.issuer.claims["alice"] = {"groups": ["escape"]}
    await expired(rig)
    before = (await rig.renew()).claims
    await rig.clock.advance(3700)
    rig.issuer.fail("userinfo", unavailable())
    state = await rig.renew()
    assert rig.are_good(state)
    assert state.claims == before
    assert state.needs_login is None


async def test_who_is_blocked_loses_access_also_while_userinfo_fails():
    blocked: set[str] = set()

    def rules(user, claims):
        if user in blocked or "escape" not in claims["groups"]:
            raise NotAllowedError(f"{user} is blocked", code="blocked")

    rig = Rig(authorize=rules)
    rig.issuer.claims["alice"] = {"groups": ["escape"]}
    await expired(rig)
    await rig.renew()
    blocked.add("alice")
    await rig.clock.advance(3700)
    rig.issuer.fail("userinfo", unavailable())
    needs = (await rig.renew()).needs_login
    assert (needs.code, needs.wipe) == ("blocked", True)


async def test_an_authorization_may_be_asynchronous():
    async def refuse(user, claims):
        await asyncio.sleep(0)
        raise NotAllowedError(f"{user} is blocked")

    rig = Rig(authorize=refuse)
    await expired(rig)
    assert (await rig.renew()).needs_login.message == "alice is blocked"


async def test_a_bug_in_the_authorization_loses_no_token(caplog):
    def broken(user, claims):
        raise KeyError("sec" + "ret")  # the traceback shows this line, not its value

    rig = Rig(authorize=broken)
    await expired(rig)
    assert rig.are_good(await rig.renew())
    assert "KeyError" in caplog.text
    assert "secret" not in caplog.text


async def test_twelve_hours_are_the_longest_without_a_look_at_the_person():
    clock = FakeClock()
    policy = RenewalPolicy(max_session_age=90 * 86400)
    issuer = FakeIssuer(clock, lifetime=30 * 86400)
    asked = []
    rig = Rig(policy, clock=clock, issuer=issuer, authorize=lambda u, c: asked.append(clock.now()))
    await rig.login()
    rig.users = ["alice"]
    await rig.service.start()
    await clock.advance(5 * 86400)
    await clock.run(rig.service.stop())
    gaps = [b - a for a, b in zip(asked, asked[1:], strict=False)]
    assert max(gaps) <= 12 * 3600 + 60
    assert issuer.calls["refresh"] == 0


async def test_a_sign_in_ends_after_seven_days(rig):
    await rig.login()
    for _ in range(7 * 24 + 1):
        await rig.clock.advance(3600)
        state = await rig.renew()
    await rig.clock.advance(1)
    assert state.needs_login.code == "session-age"
    assert not state.needs_login.wipe
    assert state.refresh_token is None
    assert rig.issuer.revoked


# -- logout ----------------------------------------------------------------------------------


async def test_forgetting_clears_every_token_and_revokes_the_refresh_token(rig):
    state = await rig.login()
    await rig.clock.run(rig.broker.forget("alice", reason=SIGNED_OUT))
    left = rig.stored()
    assert left.needs_login == SIGNED_OUT
    assert left.generation == state.generation + 1
    assert rig.issuer.revoked == [state.refresh_token]
    assert not any(secret in str(left.to_dict()) for secret in rig.issuer.secrets)


async def test_forgetting_does_not_wait_for_an_issuer_that_hangs(rig):
    await rig.login()
    rig.issuer.hang = True
    before = rig.clock.now()
    await rig.clock.run(rig.broker.forget("alice", reason=SIGNED_OUT))
    assert rig.clock.now() - before <= 5
    assert rig.stored().needs_login == SIGNED_OUT
    await rig.clock.advance(60)


async def test_forgetting_somebody_unknown_does_nothing(rig):
    await rig.clock.run(rig.broker.forget("nobody", reason=SIGNED_OUT))
    assert rig.store.states == {}


async def test_a_login_after_a_logout_starts_afresh(rig):
    await rig.login()
    await rig.clock.run(rig.broker.forget("alice", reason=SIGNED_OUT))
    state = await rig.login()
    assert state.needs_login is None
    assert rig.are_good(await rig.renew())


# -- who reads along -------------------------------------------------------------------------


async def test_every_login_exchange_and_renewal_leaves_an_audit_line_without_a_secret(rig, caplog):
    caplog.set_level(logging.INFO, "escape_hub.audit")
    await expired(rig)
    await rig.renew()
    await rig.clock.run(rig.broker.forget("alice", reason=SIGNED_OUT))
    lines = [r.getMessage() for r in caplog.records if r.name == "escape_hub.audit"]
    assert "event=login user=alice audience=- outcome=ok reference=-" in lines
    assert lines.count("event=exchange user=alice audience=eos outcome=ok reference=-") == 2
    assert "event=renewal user=alice audience=refresh outcome=ok reference=-" in lines
    assert "event=forget user=alice audience=- outcome=ok reference=signed-out" in lines
    assert not any(secret in caplog.text for secret in rig.issuer.secrets)


async def test_a_user_name_cannot_forge_an_audit_line(caplog):
    from escape_hub.hub.audit import Audit

    caplog.set_level(logging.INFO, "escape_hub.audit")
    Audit().record("login", "bob\nevent=login user=root", "ok")
    assert "\n" not in caplog.records[0].getMessage()


async def test_outcomes_are_counted_by_audience(rig):
    rig.issuer.refuse["rucio"] = IssuerMisconfiguredError("no", code="exchange-denied")
    await expired(rig)
    await rig.renew()
    assert rig.metric("renewals_total", audience="eos", outcome="ok") == 2
    assert rig.metric("renewals_total", audience="rucio", outcome="operator") == 2
    assert rig.metric("renewals_total", audience="refresh", outcome="ok") == 1
    assert rig.metric("idp_inflight") == 0

"""The service keeps every running session fresh, and survives whatever one user's renewal does."""

from __future__ import annotations

import asyncio
import logging

import pytest

from escape_hub.core.auth_state import ForeignAuthStateError, NeedsLogin
from escape_hub.core.renewal import RenewalPolicy
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import FakeIssuer
from tests.fakes.rig import FlakyStore, Rig

SIGNED_OUT = NeedsLogin("signed-out", "you signed out", 0.0, wipe=True)


async def running(rig: Rig, *users: str) -> None:
    """Each of ``users`` is signed in and has a session; the service runs."""
    for user in users:
        await rig.login(user)
    rig.users = list(users)
    await rig.service.start()
    await rig.clock.advance(0)


async def least_left(rig: Rig, seconds: float, step: float = 10.0, user: str = "alice") -> float:
    """Let time pass; the least life any of the user's tokens had left."""
    least = float("inf")
    for _ in range(int(seconds / step)):
        await rig.clock.advance(step)
        now = rig.clock.now()
        least = min(least, *(t.remaining(now) for t in rig.stored(user).exchanged.values()))
    return least


async def test_a_session_that_nobody_looks_at_stays_fresh_for_a_day():
    rig = Rig()
    await running(rig, "alice")
    assert await least_left(rig, 86400, step=60) > 890
    await rig.clock.run(rig.service.stop())
    assert rig.issuer.refused.total() == 0
    assert rig.issuer.calls["refresh"] <= 86400 / 2160 + 1


@pytest.mark.parametrize("life", [20, 30, 90, 600, 1000])
async def test_short_lives_are_kept_fresh_too_with_one_warning(life, caplog):
    clock = FakeClock()
    rig = Rig(clock=clock, issuer=FakeIssuer(clock, lifetime=life, latency=0.05))
    await running(rig, "alice")
    least = await least_left(rig, 40 * life, step=life / 40)
    assert least > 0.23 * life
    await clock.run(rig.service.stop())
    warnings = [r for r in caplog.records if "tokens that live" in r.getMessage()]
    assert len(warnings) == (1 if life < 600 else 0)


async def test_a_restart_takes_the_deadlines_from_what_is_stored():
    first = Rig()
    await running(first, "alice")
    await first.clock.advance(1800)
    await first.clock.run(first.service.stop())
    second = Rig(clock=first.clock, issuer=first.issuer, store=first.store)
    second.users = ["alice"]
    calls = first.issuer.calls.total()
    await second.service.start()
    await second.clock.advance(60)
    assert first.issuer.calls.total() == calls  # nothing was due yet
    assert await least_left(second, 7200, step=60) > 890
    await second.clock.run(second.service.stop())


async def test_after_a_long_downtime_the_most_urgent_go_first():
    clock = FakeClock()
    policy = RenewalPolicy(rate=4.0, burst=4.0)
    rig = Rig(policy, clock=clock, issuer=FakeIssuer(clock, latency=0.1))
    users = [f"user{i:02}" for i in range(40)]
    order = []
    original = rig.issuer.refresh

    async def refresh(token):
        order.append(next(u for u in users if rig.stored(u).refresh_token == token))
        return await original(token)

    rig.issuer.refresh = refresh
    for user in users:
        await rig.login(user)
        await clock.advance(10)
    await clock.advance(2700)
    rig.users = users[::-1]
    await rig.service.start()
    await clock.advance(120)
    await clock.run(rig.service.stop())
    assert len(order) == 40
    # The first few are admitted at once; from then on the queue is in order of expiry.
    assert order[1:] == sorted(order[1:])


async def test_a_new_session_is_scheduled_and_a_stopped_one_is_not_renewed_any_more():
    rig = Rig()
    await running(rig)
    await rig.login()
    rig.users = ["alice"]
    rig.service.schedule("alice")
    assert await least_left(rig, 7200, step=60) > 890
    rig.users = []
    rig.service.unschedule("alice")
    calls = rig.issuer.calls.total()
    await rig.clock.advance(7200)
    assert rig.issuer.calls.total() == calls
    await rig.clock.run(rig.service.stop())


async def test_a_session_that_was_never_announced_is_found():
    rig = Rig()
    await running(rig)
    await rig.login()
    rig.users = ["alice"]
    assert await least_left(rig, 7200, step=60) > 890
    await rig.clock.run(rig.service.stop())


async def test_a_session_whose_end_was_never_announced_is_dropped_but_not_while_it_starts():
    rig = Rig()
    await running(rig)
    await rig.login()
    rig.service.schedule("alice")
    await rig.clock.advance(301)
    assert rig.service.scheduled == {"alice"}
    await rig.clock.advance(301)
    assert rig.service.scheduled == frozenset()
    await rig.clock.run(rig.service.stop())


async def test_who_logs_in_again_is_renewed_again_without_a_new_session():
    rig = Rig()
    await running(rig, "alice")
    await rig.clock.run(rig.broker.forget("alice", reason=SIGNED_OUT))
    await rig.clock.advance(7200)
    assert rig.metric("needs_login_sessions") == 1
    await rig.login()
    rig.service.schedule("alice")
    assert await least_left(rig, 7200, step=60) > 890
    assert rig.metric("needs_login_sessions") == 0
    await rig.clock.run(rig.service.stop())


async def test_a_login_that_was_never_announced_is_seen_within_two_minutes():
    rig = Rig()
    await running(rig, "alice")
    await rig.clock.run(rig.broker.forget("alice", reason=SIGNED_OUT))
    await rig.clock.advance(7200)
    state = await rig.login()
    rig.store.states["alice"] = state.next(exchanged={})
    await rig.clock.advance(120)
    assert rig.are_good(rig.stored())
    await rig.clock.run(rig.service.stop())


async def test_a_session_without_a_sign_in_is_looked_at_again():
    rig = Rig()
    rig.users = ["alice"]
    await rig.service.start()
    await rig.clock.advance(600)
    assert rig.service.scheduled == {"alice"}
    await rig.login()
    await rig.clock.advance(120)
    assert await least_left(rig, 7200, step=60) > 890
    await rig.clock.run(rig.service.stop())


async def test_a_bug_in_one_users_renewal_stops_nobody_and_is_tried_again(caplog):
    class Broken(FlakyStore):
        wrong = True

        async def load(self, user):
            if user == "bob" and self.wrong:
                raise RuntimeError("secret")
            return await super().load(user)

    rig = Rig(store=Broken())
    await rig.login("alice")
    rig.store.wrong = False
    await rig.login("bob")
    rig.store.wrong = True
    rig.users = ["bob", "alice"]
    await rig.service.start()
    assert await least_left(rig, 7200, step=60) > 890
    assert "RuntimeError" in caplog.text
    rig.store.wrong = False
    await rig.clock.advance(120)
    assert rig.are_good(rig.stored("bob"))
    await rig.clock.run(rig.service.stop())


async def test_a_state_of_another_authenticator_stops_nobody():
    class Mixed(FlakyStore):
        async def load(self, user):
            if user == "bob":
                raise ForeignAuthStateError("of another authenticator")
            return await super().load(user)

    rig = Rig(store=Mixed())
    await rig.login("alice")
    rig.users = ["bob", "alice"]
    await rig.service.start()
    assert await least_left(rig, 7200, step=60) > 890
    await rig.clock.run(rig.service.stop())


async def test_the_loop_survives_a_hub_that_cannot_list_its_sessions(caplog):
    rig = Rig()
    await rig.login()
    rig.service.schedule("alice")

    def broken():
        raise RuntimeError

    rig.service._sessions = broken
    await rig.service.start()
    assert await least_left(rig, 7200, step=60) > 800
    assert "RuntimeError" in caplog.text
    await rig.clock.run(rig.service.stop())


async def test_stopping_lets_a_refresh_in_flight_finish_and_stores_its_fruit():
    clock = FakeClock()
    rig = Rig(clock=clock, issuer=FakeIssuer(clock, latency=0.3))
    await rig.login()
    await clock.advance(3000)
    rig.users = ["alice"]
    await rig.service.start()
    await clock.advance(0.1)
    await clock.run(rig.service.stop())
    assert rig.issuer.is_current(rig.stored().refresh_token)
    assert rig.are_good(rig.stored())


async def test_stopping_twice_or_before_starting_does_no_harm():
    rig = Rig()
    await rig.clock.run(rig.service.stop())
    await rig.service.start()
    await rig.service.start()
    await rig.clock.run(rig.service.stop())
    await rig.clock.run(rig.service.stop())


async def test_gauges_tell_how_the_sessions_stand():
    rig = Rig()
    await running(rig, "alice", "bob")
    await rig.clock.advance(1000)
    rig.service.fetched("alice")
    rig.service.fetched("bob")
    await rig.clock.advance(600)
    rig.service.fetched("alice")
    await rig.clock.advance(30)
    now = rig.clock.now()
    assert rig.metric("scheduled_sessions") == 2
    assert rig.metric("tokens", audience="eos", state="fresh") == 2
    assert rig.metric("tokens", audience="eos", state="late") == 0
    assert 1900 < rig.metric("token_min_remaining_seconds", audience="rucio") < 2100
    assert 590 < rig.metric("session_last_fetch_age_seconds") < 650
    assert now - rig.metric("scheduler_heartbeat_timestamp_seconds") <= 15
    await rig.clock.advance(7200)
    assert rig.metric("renewal_lag_seconds_count") >= 4
    assert rig.metric("renewal_lag_seconds_sum") < 10
    await rig.clock.run(rig.service.stop())


async def test_the_heart_beats_without_any_session_and_without_the_issuer():
    rig = Rig()
    rig.issuer.down = True
    await rig.service.start()
    for _ in range(10):
        await rig.clock.advance(16)
        assert rig.clock.now() - rig.metric("scheduler_heartbeat_timestamp_seconds") <= 15
    await rig.clock.run(rig.service.stop())


async def test_too_many_sessions_for_the_rate_are_told_to_the_operator(caplog):
    caplog.set_level(logging.WARNING)
    rig = Rig(RenewalPolicy(rate=0.003))
    await running(rig, "alice", "bob")
    await rig.clock.advance(60)
    assert sum("renewal_rate" in r.getMessage() for r in caplog.records) == 1
    await rig.clock.run(rig.service.stop())


async def test_who_waits_for_an_answer_does_not_wait_behind_a_thousand_scheduled_renewals():
    clock = FakeClock()
    rig = Rig(clock=clock, issuer=FakeIssuer(clock, latency=0.1))
    await rig.login("alice")
    first = await rig.login("user0")
    for i in range(1, 1000):  # as if each had signed in
        rig.store.states[f"user{i}"] = first
    await clock.advance(3700)
    rig.users = [f"user{i}" for i in range(1000)]
    await rig.service.start()
    await clock.advance(5)
    before = clock.now()
    assert rig.are_good(await rig.renew("alice"))
    assert clock.now() - before < 2
    await clock.run(rig.service.stop())


async def test_who_waits_for_an_answer_lifts_the_own_queued_renewal_to_the_front():
    clock = FakeClock()
    policy = RenewalPolicy(rate=0.5, burst=4)
    rig = Rig(policy, clock=clock, issuer=FakeIssuer(clock, latency=0.1))
    users = [f"user{i:02}" for i in range(8)]
    for user in users:
        await rig.login(user)
    await clock.advance(3700)
    rig.users = users
    await rig.service.start()
    await clock.advance(1)
    last = await clock.run(asyncio.wait_for(rig.broker.renew("user07"), None))
    assert rig.are_good(last)
    assert sum(rig.are_good(rig.stored(u)) for u in users) <= 3
    await clock.run(rig.service.stop())


async def test_a_login_while_the_renewal_queues_saves_the_older_refresh_token_from_being_spent():
    clock = FakeClock()
    rig = Rig(RenewalPolicy(rate=0.1, burst=4), clock=clock, issuer=FakeIssuer(clock))
    await rig.login("bob")
    old = await rig.login("alice")
    await clock.advance(3700)
    await rig.renew("bob")  # the bucket is empty now
    rig.users = ["alice"]
    await rig.service.start()
    await clock.advance(5)
    login = await rig.login("alice")
    await clock.advance(300)
    assert rig.stored("alice") == login
    assert rig.issuer.is_current(old.refresh_token)
    assert rig.issuer.calls["refresh"] == 1
    await clock.run(rig.service.stop())

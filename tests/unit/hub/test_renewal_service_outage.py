"""An issuer that is away: sessions go on, it is not pressed, and all is well soon after."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from escape_hub.core.renewal import may_go_on
from escape_hub.core.status import State
from escape_hub.errors import IssuerMisconfiguredError, UserActionRequiredError
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import FakeIssuer, unavailable
from tests.fakes.rig import Rig


class Session:
    """Asks the hub as a session's agent does, and keeps what it gets, as in a file."""

    def __init__(self, rig: Rig, user: str = "alice") -> None:
        self.rig, self.user = rig, user
        self.file = rig.stored(user).exchanged.get("eos")
        self.task = asyncio.ensure_future(self.run())

    async def run(self) -> None:
        rig = self.rig
        while True:
            state = await rig.broker.renew(self.user)
            token = state.exchanged.get("eos")
            if token is not None and token.is_valid(rig.clock.now()):
                self.file = token
            await rig.clock.sleep(rig.broker.next_poll(self.user, state))


async def rig_with_sessions(life: float, users: int = 1, **issuer) -> tuple[Rig, list[Session]]:
    clock = FakeClock()
    rig = Rig(clock=clock, issuer=FakeIssuer(clock, lifetime=life, latency=0.05, **issuer))
    rig.users = [f"user{i}" for i in range(users)]
    for user in rig.users:
        await rig.login(user)
    await rig.service.start()
    return rig, [Session(rig, user) for user in rig.users]


async def end(rig: Rig, sessions: list[Session]) -> None:
    for session in sessions:
        session.task.cancel()
    await rig.clock.run(rig.service.stop())


async def seconds_until_fresh(rig: Rig, sessions: list[Session], limit: int = 120) -> float:
    for second in range(limit * 2):
        now = rig.clock.now()
        if all(s.file.is_valid(now, 0.2 * s.file.lifetime) for s in sessions):
            return second / 2
        await rig.clock.advance(0.5)
    return float("inf")


@pytest.mark.parametrize("away", ["down", "hang"])
@pytest.mark.parametrize(
    ("life", "outage"),
    # Those at 35.9 return while three hang, and their failures open the breaker afterwards.
    [(20, 60), (90, 35.9), (90, 200), (90, 2000), (3600, 5000), (3600, 5007), (3600, 5011)],
)
@pytest.mark.parametrize("users", [1, 3])
async def test_every_file_is_fresh_at_most_35_s_after_the_issuers_return(away, life, outage, users):
    rig, sessions = await rig_with_sessions(life, users)
    await rig.clock.advance(1.5 * life)
    setattr(rig.issuer, away, True)
    await rig.clock.advance(outage)
    if away == "hang":  # nothing was processed: what hung until now still hangs to its end
        rig.issuer.hang = False
    else:
        rig.issuer.down = False
    assert await seconds_until_fresh(rig, sessions) <= 35
    assert all(rig.stored(u).needs_login is None for u in rig.users)
    assert rig.issuer.presented_at_once == 0
    await end(rig, sessions)


@pytest.mark.parametrize("away", ["down", "hang"])
async def test_an_outage_shorter_than_the_life_leaves_no_file_expired(away):
    rig, sessions = await rig_with_sessions(3600)
    await rig.clock.advance(2000)
    setattr(rig.issuer, away, True)
    for _ in range(90):
        await rig.clock.advance(10)
        assert sessions[0].file.is_valid(rig.clock.now())
    setattr(rig.issuer, away, False)
    for _ in range(60):
        await rig.clock.advance(10)
        assert sessions[0].file.is_valid(rig.clock.now(), 300)
    await end(rig, sessions)


async def test_a_long_outage_is_shown_as_late_and_logs_nobody_out():
    rig, sessions = await rig_with_sessions(3600)
    rig.issuer.down = True
    await rig.clock.advance(7200)
    state = await rig.clock.run(rig.broker.state("user0"))
    shown = rig.broker.status(state)
    assert shown.state is State.LATE
    assert shown.reference
    assert state.needs_login is None
    assert may_go_on(rig.policy, state, rig.clock.now())
    await end(rig, sessions)


async def test_an_issuer_that_is_down_is_probed_once_every_fifteen_seconds():
    rig, sessions = await rig_with_sessions(3600, users=30)
    rig.issuer.down = True
    await rig.clock.advance(4000)
    assert rig.metric("idp_circuit_open") == 1
    rig.issuer.times.clear()
    await rig.clock.advance(600)
    assert 35 <= len(rig.issuer.times) <= 2 * 41  # a probe may be two exchanges side by side
    assert all(b - a >= 14.9 or b - a < 0.1 for a, b in pairwise(rig.issuer.times))
    await end(rig, sessions)


async def test_a_single_session_probes_at_the_same_pace():
    rig, sessions = await rig_with_sessions(3600)
    rig.issuer.down = True
    await rig.clock.advance(4000)
    rig.issuer.times.clear()
    await rig.clock.advance(300)
    gaps = [b - a for a, b in pairwise(rig.issuer.times)]
    assert all(14.9 < gap < 15.5 or gap < 0.1 for gap in gaps)
    await end(rig, sessions)


async def test_one_good_probe_is_enough_for_all_who_are_late():
    rig, sessions = await rig_with_sessions(3600, users=4)
    for session in sessions:
        session.task.cancel()  # nobody asks: it is the service's to notice
    rig.issuer.down = True
    await rig.clock.advance(4000)
    rig.issuer.down = False
    while rig.broker.admission.breaker.is_open:
        await rig.clock.advance(0.1)
    await rig.clock.advance(3)
    assert all(rig.are_good(rig.stored(u)) for u in rig.users)
    await end(rig, sessions)


async def test_the_service_alone_renews_within_35_s_whoever_failed_as_the_issuer_came_back():
    rig, sessions = await rig_with_sessions(90, users=3)
    for session in sessions:
        session.task.cancel()
    await rig.clock.advance(135)
    rig.issuer.hang = True
    await rig.clock.advance(35.9)
    rig.issuer.hang = False
    await rig.clock.advance(35)
    assert all(rig.are_good(rig.stored(u)) for u in rig.users)
    await end(rig, sessions)


async def test_while_the_issuer_is_down_late_sessions_cost_the_hub_nothing():
    rig, sessions = await rig_with_sessions(3600, users=200)
    for session in sessions:
        session.task.cancel()
    rig.issuer.down = True
    await rig.clock.advance(5000)
    rig.store.loads = 0
    await rig.clock.advance(150)
    assert rig.store.loads < 100
    await end(rig, sessions)


async def test_after_a_long_outage_many_sessions_are_no_stampede():
    rig, sessions = await rig_with_sessions(900, users=60)
    rig.issuer.down = True
    await rig.clock.advance(1200)
    rig.issuer.down = False
    rig.issuer.times.clear()
    rig.issuer.most_in_flight = 0
    began = rig.clock.now()
    await rig.clock.advance(120)
    assert all(rig.are_good(rig.stored(u)) for u in rig.users)
    times = [t for t in rig.issuer.times if t < began + 120]
    for start in range(110):
        window = [t for t in times if began + start <= t < began + start + 10]
        assert len(window) <= rig.policy.burst + 10 * rig.policy.rate + 4
    assert rig.issuer.most_in_flight <= 32
    await end(rig, sessions)


async def test_failures_are_kept_for_five_seconds_whoever_asks():
    rig = Rig()
    await rig.login()
    await rig.clock.advance(3700)
    rig.issuer.down = True
    rig.issuer.calls.clear()
    for _ in range(40):
        await rig.clock.advance(0.1)
        await rig.renew()
        await rig.renew(force=True)
    assert rig.issuer.calls["refresh"] == 1


async def test_renew_now_tries_again_after_five_seconds_but_not_against_the_issuers_wish():
    rig = Rig()
    await rig.login()
    await rig.clock.advance(3700)
    rig.issuer.fail("refresh", unavailable("issuer-busy", retry_after=100.0))
    await rig.renew()
    await rig.clock.advance(99)
    await rig.renew(force=True)
    assert rig.issuer.calls["refresh"] == 1
    await rig.clock.advance(2)
    assert rig.are_good(await rig.renew(force=True))


async def test_the_issuers_wish_for_patience_is_followed_for_five_minutes_at_most():
    rig, sessions = await rig_with_sessions(3600)
    rig.issuer.fail("refresh", *[unavailable("issuer-busy", retry_after=86400.0)] * 2)
    await rig.clock.advance(2750)
    calls = rig.issuer.calls["refresh"]
    assert calls >= 1
    await rig.clock.advance(1000)
    assert rig.issuer.calls["refresh"] > calls
    assert rig.are_good(rig.stored("user0"))
    await end(rig, sessions)


async def test_while_the_breaker_is_open_an_answer_comes_at_once():
    rig, sessions = await rig_with_sessions(3600, users=10)
    rig.issuer.hang = True
    await rig.clock.advance(4000)
    before = rig.clock.now()
    for _ in range(20):
        await rig.renew("user5", force=True, patience=2)
    assert rig.clock.now() - before <= 2 * 2 + 0.1  # one of them may have been the probe
    await end(rig, sessions)


async def test_the_operators_mistake_logs_nobody_out_and_is_told_once_in_five_minutes(caplog):
    rig, sessions = await rig_with_sessions(3600, users=5)
    refused = IssuerMisconfiguredError("check client_secret", code="client-refused")
    original = rig.issuer.refresh

    async def refuse(token):
        raise refused

    rig.issuer.refresh = refuse
    await rig.clock.advance(2800)
    # The audit has its lines too, at a lower level.
    errors = [r.getMessage() for r in caplog.records if r.levelname == "ERROR"]
    told = [line for line in errors if "client-refused" in line]
    assert 1 <= len(told) <= 3
    state = rig.stored("user0")
    assert state.needs_login is None
    assert state.failures[""].kind == "operator"
    assert rig.broker.status(state).state is State.REFUSED
    assert not rig.broker.admission.breaker.is_open  # it does answer
    rig.issuer.refresh = original
    await rig.clock.advance(330)
    assert all(rig.are_good(rig.stored(u)) for u in rig.users)
    assert rig.stored("user0").failures == {}
    await end(rig, sessions)


async def test_one_audience_refused_for_good_costs_a_call_now_and_then_and_nobody_else():
    rig, sessions = await rig_with_sessions(3600)
    rig.issuer.refuse["rucio"] = IssuerMisconfiguredError("denied", code="exchange-denied")
    await rig.clock.advance(3 * 3600)
    state = rig.stored("user0")
    assert rig.are_good(state, ["eos"])
    assert state.failures["rucio"].code == "exchange-denied"
    assert rig.issuer.refused["exchange"] < 3 * 3600 / 100
    assert rig.issuer.calls["refresh"] < 10
    del rig.issuer.refuse["rucio"]
    await rig.clock.advance(301)
    assert rig.are_good(rig.stored("user0"))
    await end(rig, sessions)


async def test_an_unsigned_policy_keeps_the_refresh_token_and_heals_within_a_minute_of_signing():
    rig, sessions = await rig_with_sessions(3600)
    original = rig.issuer.refresh

    async def unsigned(token):
        raise UserActionRequiredError("sign the acceptable use policy", code="aup-unsigned")

    rig.issuer.refresh = unsigned
    await rig.clock.advance(3300)
    state = rig.stored("user0")
    shown = rig.broker.status(state)
    assert (shown.state, shown.message) == (State.SIGN_IN, "sign the acceptable use policy")
    assert rig.issuer.is_current(state.refresh_token)
    rig.issuer.refresh = original
    await rig.clock.advance(65)
    assert rig.are_good(rig.stored("user0"))
    await end(rig, sessions)


async def test_an_issuer_that_never_gave_a_refresh_token_serves_as_long_as_it_can(caplog):
    rig = Rig()
    await rig.login(offline=False)
    await rig.clock.advance(3000)
    assert rig.are_good(await rig.renew())
    await rig.clock.advance(700)
    state = await rig.renew(force=True)
    assert state.needs_login.code == "no-refresh-token"
    assert "offline_access" in caplog.text

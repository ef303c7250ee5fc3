"""Ten thousand sessions on simulated time: pace, freshness, and what an idle hub pays."""

from __future__ import annotations

import time
from bisect import bisect_left

import pytest

from escape_hub.core.auth_state import AuthState
from escape_hub.core.renewal import RenewalPolicy
from escape_hub.core.tokens import AccessToken
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import ISSUER, FakeIssuer
from tests.fakes.rig import EOS, RUCIO, Rig

HOUR = 3600.0


def sign_in_everybody(rig: Rig, count: int, spread: float) -> None:
    """``count`` people who logged in evenly over the last ``spread`` seconds."""
    now = rig.clock.now()
    for number in range(count):
        user = f"user{number}"
        at = now - spread * number / count
        reply = rig.issuer.sign_in(user)
        tokens = {
            a.name: AccessToken(f"first-{a.name}-{number}", at + HOUR, at) for a in (EOS, RUCIO)
        }
        rig.store.states[user] = AuthState(
            ISSUER,
            user,
            generation=1000,
            refresh_token=reply.refresh_token,
            login_token=AccessToken(reply.access_token.value, at + HOUR, at),
            exchanged=tokens,
            login_at=at,
            checked_at=at,
        )
        rig.users.append(user)


def samples(rig: Rig) -> list[float]:
    """Life left of every token of every session."""
    now = rig.clock.now()
    return [
        token.expires_at - now
        for state in rig.store.states.values()
        for token in state.exchanged.values()
    ]


def most_within(times: list[float], seconds: float) -> int:
    """The most calls within any window of ``seconds``."""
    return max(
        (bisect_left(times, at + seconds) - index for index, at in enumerate(times)), default=0
    )


@pytest.mark.parametrize(
    ("sessions", "rate", "hours"),
    [
        (1_000, 5.0, 6),  # at the default rate
        # 17 calls a second are needed: the operator raises the rate. Two renewals of each
        # session show it; `make bench` runs the same number for longer.
        (10_000, 20.0, 2),
    ],
)
async def test_sessions_stay_fresh_within_the_rate(sessions, rate, hours):
    clock = FakeClock()
    rig = Rig(RenewalPolicy(rate=rate), clock=clock, issuer=FakeIssuer(clock))
    rig.store.history = _Nothing()
    sign_in_everybody(rig, sessions, spread=0.6 * HOUR)
    await rig.service.start()
    left: list[float] = []
    for _ in range(hours * 6):
        await clock.advance(600)
        left += samples(rig)
    await clock.run(rig.service.stop())
    assert sum(one > 600 for one in left) >= 0.999 * len(left)
    assert min(left) > 0
    for seconds in (1, 10, 60):
        allowed = rig.policy.burst + rate * seconds
        assert most_within(rig.issuer.times, seconds) <= allowed + 4
    assert rig.issuer.most_in_flight <= 32
    assert rig.issuer.refused.total() == 0


class _Nothing(list):
    def append(self, item: object) -> None:
        """Keep nothing."""


async def test_a_cold_start_with_everybody_overdue_is_worked_off_within_the_window():
    """1,000 sessions, all due at once: 4,000 calls at 5 a second, and nobody's file expires."""
    clock = FakeClock()
    rig = Rig(clock=clock, issuer=FakeIssuer(clock, latency=0.2))
    rig.store.history = _Nothing()
    sign_in_everybody(rig, 1_000, spread=1.0)
    await clock.advance(0.74 * HOUR)
    await rig.service.start()
    least = float("inf")
    for _ in range(90):
        await clock.advance(10)
        least = min(least, min(samples(rig)))
    await clock.run(rig.service.stop())
    assert least > 0
    assert min(samples(rig)) > 0.7 * HOUR
    assert most_within(rig.issuer.times, 60) <= rig.policy.burst + 5 * 60 + 4


async def test_an_hour_in_which_nothing_is_due_costs_next_to_nothing():
    clock = FakeClock()
    rig = Rig(clock=clock, issuer=FakeIssuer(clock))
    now = clock.now()
    token = AccessToken("secret", now + 100 * HOUR, now)
    state = AuthState(
        ISSUER,
        "x",
        refresh_token="secret",
        login_token=token,
        exchanged={"eos": token, "rucio": token},
        login_at=now,
        checked_at=now,
    )
    rig.users = [f"user{n}" for n in range(10_000)]
    rig.store.states = dict.fromkeys(rig.users, state)
    await rig.service.start()
    await clock.advance(60)
    begun = time.process_time()
    await clock.advance(HOUR)
    spent = time.process_time() - begun
    await clock.run(rig.service.stop())
    assert not rig.issuer.calls
    assert spent < 20  # the whole test took 2 to 3 s, start included

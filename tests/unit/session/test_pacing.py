"""Waits on elapsed time, and what a clock that jumps does to them."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from escape_hub.session.pacing import HubTime, SessionClock, Waiter, backoff, spread
from tests.unit.session.peers import NOW, HandClock


def waiter(clock: HandClock) -> Waiter:
    return Waiter(clock)  # type: ignore[arg-type]


def test_a_wait_takes_the_seconds_it_was_given() -> None:
    clock = HandClock()
    before = clock.elapsed()
    assert waiter(clock).wait(61.5) == "passed"
    assert clock.elapsed() - before == 61.5


def test_a_jump_of_the_wall_clock_ends_a_wait_early() -> None:
    for jump in (+3600.0, -3600.0):
        clock = HandClock()
        before = clock.elapsed()
        clock.on_wait = lambda clock=clock, jump=jump: clock.set_wall(clock.wall() + jump)  # type: ignore[misc]
        assert waiter(clock).wait(600) == "jumped"
        assert clock.elapsed() - before <= 5


def test_a_small_correction_of_the_wall_clock_is_no_jump() -> None:
    clock = HandClock()
    corrections = iter([2.0, *[0.0] * 1000])
    clock.on_wait = lambda: clock.set_wall(clock.wall() + next(corrections))
    assert waiter(clock).wait(60) == "passed"


def test_a_machine_that_slept_past_the_end_does_not_wait_on() -> None:
    clock = HandClock()
    naps = iter([3600.0, *[0.0] * 1000])
    clock.on_wait = lambda: clock.move(next(naps))
    assert waiter(clock).wait(600) == "passed"


def test_waking_ends_the_wait_under_way_or_the_next_one_and_no_more() -> None:
    clock = HandClock()
    one = waiter(clock)
    one.wake()
    assert one.wait(60) == "woken"
    assert one.wait(60) == "passed"


def test_the_hubs_time_goes_on_by_elapsed_time_alone() -> None:
    clock = HandClock()
    time = HubTime(clock)  # type: ignore[arg-type]
    assert time.now() == NOW
    time.heard(5000.0)
    clock.move(10)
    clock.set_wall(1.0)
    time.heard(None)
    assert time.now() == 5010.0


def test_the_real_clock_moves_forward() -> None:
    clock = SessionClock()
    assert clock.elapsed() <= clock.elapsed()
    assert clock.wall() > NOW - 10 * 365 * 86400


@given(st.floats(0.001, 1e9), st.integers())
def test_the_next_poll_stays_within_its_bounds(seconds: float, seed: int) -> None:
    wait = spread(seconds, random.Random(seed))  # noqa: S311
    assert 1.8 <= wait <= 600
    if 2 <= seconds <= 600:
        assert 0.9 * seconds <= wait <= seconds


@given(st.integers(0, 10**6), st.integers())
def test_backoff_never_exceeds_half_a_minute(failures: int, seed: int) -> None:
    assert 1.0 <= backoff(failures, random.Random(seed)) <= 30.0  # noqa: S311

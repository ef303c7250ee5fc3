"""Backoff, bucket and breaker press the issuer no harder than they say."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escape_hub.core.renewal import CircuitBreaker, TokenBucket, backoff


def rng_of(seed: int) -> Random:
    return Random(seed)  # noqa: S311


@given(st.integers(1, 1000), st.integers())
def test_a_backoff_lies_between_two_and_thirty_seconds(attempt, seed):
    assert 2 <= backoff(attempt, rng_of(seed)) <= 30


def test_a_backoff_spreads_over_a_range_that_doubles():
    rng = rng_of(3)
    for attempt, ceiling in [(1, 4), (2, 8), (3, 16), (4, 30), (9, 30)]:
        waits = [backoff(attempt, rng) for _ in range(500)]
        assert max(waits) <= ceiling
        assert max(waits) > 0.95 * ceiling
        assert min(waits) < 2 + 0.1 * ceiling


def test_a_bucket_gives_its_burst_at_once_and_then_its_rate():
    bucket = TokenBucket(rate=5, burst=10, now=0.0)
    assert all(bucket.take(1, 0.0) for _ in range(10))
    assert not bucket.take(1, 0.0)
    assert bucket.wait(3, 0.0) == pytest.approx(0.6)
    assert bucket.take(3, 0.6)
    assert not bucket.take(1, 0.6)


def test_a_bucket_never_holds_more_than_its_burst():
    bucket = TokenBucket(rate=5, burst=10, now=0.0)
    assert bucket.level(1e6) == 10


def test_a_clock_that_goes_back_fills_no_bucket():
    bucket = TokenBucket(rate=5, burst=10, now=100.0)
    bucket.charge(10, 100.0)
    assert bucket.level(50.0) == 0
    assert bucket.level(100.0) == 0


def test_what_costs_more_than_the_burst_takes_a_full_bucket_and_leaves_a_debt():
    bucket = TokenBucket(rate=5, burst=10, now=0.0)
    assert bucket.take(25, 0.0)
    assert bucket.level(0.0) == -15
    assert bucket.wait(1, 0.0) == pytest.approx(16 / 5)


@given(st.lists(st.tuples(st.floats(0, 10), st.integers(1, 5)), max_size=60))
def test_over_any_time_a_bucket_gives_no_more_than_rate_times_time_and_a_burst(steps):
    bucket, now, taken = TokenBucket(rate=5, burst=20, now=0.0), 0.0, 0
    for wait, cost in steps:
        now += wait
        taken += cost if bucket.take(cost, now) else 0
    assert taken <= 20 + 5 * now + 1e-3


@given(st.floats(0.1, 50), st.integers(1, 30), st.integers(0, 60))
def test_waiting_as_long_as_told_is_always_enough(rate, cost, debt):
    bucket = TokenBucket(rate=rate, burst=20, now=1e6)
    bucket.charge(debt, 1e6)
    assert bucket.take(cost, 1e6 + bucket.wait(cost, 1e6))


def test_a_breaker_opens_at_the_fifth_failure_in_a_row():
    breaker = CircuitBreaker()
    assert [breaker.failed(0.0) for _ in range(5)] == [False] * 4 + [True]
    assert breaker.is_open


def test_an_answer_in_between_starts_the_count_anew():
    breaker = CircuitBreaker()
    for _ in range(4):
        breaker.failed(0.0)
    breaker.succeeded(20.0)
    assert not any(breaker.failed(30.0) for _ in range(4))
    assert not breaker.is_open


def opened(now: float = 0.0) -> CircuitBreaker:
    breaker = CircuitBreaker()
    for _ in range(5):
        breaker.failed(now)
    return breaker


def test_an_open_breaker_lets_one_probe_out_every_fifteen_seconds():
    breaker = opened()
    allowed = [t for t in range(61) if breaker.allow(float(t))]
    assert allowed == [15, 30, 45, 60]


def test_a_probe_that_hangs_holds_up_no_other():
    breaker = opened()
    assert breaker.allow(15.0)
    assert not breaker.allow(29.0)
    assert breaker.allow(30.0)


def test_a_failed_probe_leaves_the_breaker_open_and_opens_it_no_second_time():
    breaker = opened()
    assert breaker.allow(15.0)
    assert breaker.failed(16.0) is False
    assert breaker.is_open
    assert breaker.next_probe_at == 30


def test_a_call_that_hung_while_others_were_answered_does_not_count():
    breaker = CircuitBreaker()
    breaker.succeeded(20.0)
    assert not any(breaker.failed(10.0) for _ in range(9))
    assert not breaker.is_open


def test_a_breaker_opened_by_calls_that_hung_probes_at_once():
    breaker = opened(now=0.0)  # begun at 0, known to have failed 30 seconds later
    assert breaker.allow(30.0)
    assert not breaker.allow(31.0)


def test_a_good_probe_closes_the_breaker_and_starts_the_ramp():
    breaker = opened()
    assert breaker.limit == 32
    assert breaker.succeeded(20.0) is True
    assert not breaker.is_open
    assert breaker.allow(0.0)
    assert breaker.limit == 2
    for _ in range(100):
        assert breaker.succeeded(20.0) is False
    assert breaker.limit == 32

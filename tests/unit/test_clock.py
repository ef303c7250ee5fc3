"""The system's clock, and the simulated one that all other tests trust."""

from __future__ import annotations

import asyncio
import time

import pytest

from escape_hub.clock import SystemClock, done_within
from tests.fakes.clock import FakeClock, settle


def test_a_jump_of_the_wall_clock_does_not_move_the_system_clock(monkeypatch):
    clock = SystemClock()
    before = clock.now()
    wall = time.time()
    monkeypatch.setattr(time, "time", lambda: wall + 86_400)
    assert 0 <= clock.now() - before < 5


def test_the_system_clock_starts_at_the_wall_clock():
    assert abs(SystemClock().now() - time.time()) < 1


async def test_sleepers_wake_in_the_order_of_their_times_at_their_own_time():
    clock = FakeClock(100.0)
    seen = []

    async def sleeper(name, seconds):
        await clock.sleep(seconds)
        seen.append((name, clock.now()))

    tasks = [asyncio.create_task(sleeper(n, s)) for n, s in [("c", 9), ("a", 1), ("b", 5)]]
    await clock.advance(6)
    assert seen == [("a", 101.0), ("b", 105.0)]
    assert clock.now() == 106.0
    assert clock.sleeping == 1
    await clock.advance(3)
    assert seen[-1] == ("c", 109.0)
    await asyncio.gather(*tasks)


async def test_work_that_sleeps_again_and_again_goes_on_within_one_advance():
    clock = FakeClock(0.0)
    ticks = []

    async def ticker():
        while True:
            await clock.sleep(10)
            ticks.append(clock.now())

    task = asyncio.create_task(ticker())
    await clock.advance(35)
    assert ticks == [10, 20, 30]
    task.cancel()


async def test_settle_lets_a_long_chain_of_ready_callbacks_finish():
    depth = 0

    async def chain(left):
        nonlocal depth
        depth += 1
        await asyncio.sleep(0)
        if left:
            await asyncio.create_task(chain(left - 1))

    task = asyncio.create_task(chain(200))
    await settle()
    assert depth == 201
    await task


async def test_run_gives_the_result_and_lets_only_the_needed_time_pass():
    clock = FakeClock(0.0)

    async def work():
        await clock.sleep(7)
        return "done"

    assert await clock.run(work()) == "done"
    assert clock.now() == 7


async def test_run_refuses_work_that_no_passing_of_time_finishes():
    with pytest.raises(AssertionError, match="not done"):
        await FakeClock().run(asyncio.Event().wait())


async def test_waiting_with_a_limit_leaves_the_task_running():
    clock = FakeClock(0.0)
    task = asyncio.create_task(clock.sleep(10))
    assert await clock.run(done_within(clock, task, 3)) is False
    assert clock.now() == 3
    assert not task.done()
    assert await clock.run(done_within(clock, task, 30)) is True
    assert clock.now() == 10


async def test_a_sleep_that_is_not_positive_takes_no_time():
    clock = FakeClock(5.0)
    await clock.sleep(0)
    await clock.sleep(-1)
    assert clock.now() == 5.0
    await SystemClock().sleep(-1)

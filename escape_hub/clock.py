"""Time as an argument: what waits or judges a token's life asks a `Clock`.

Tests drive a clock of their own, so that no test ever sleeps.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from typing import Any, Protocol


class Clock(Protocol):
    """Seconds since the epoch, and a way to let some of them pass."""

    def now(self) -> float:
        """Seconds since the epoch; never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Return after ``seconds``; at once (but after a turn of the loop) when not positive."""


class SystemClock:
    """The wall clock at start plus the time elapsed since: a jump of the wall clock is not seen.

    Where the system has one, the elapsed time counts a suspended machine's sleep
    too (``CLOCK_BOOTTIME``): a token does not live longer because the lid was shut.
    """

    def __init__(self) -> None:
        self._offset = time.time() - _elapsed()

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._offset + _elapsed()

    async def sleep(self, seconds: float) -> None:
        """Wait on the event loop."""
        await asyncio.sleep(max(seconds, 0.0))


def _elapsed() -> float:
    if hasattr(time, "CLOCK_BOOTTIME"):
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


async def done_within(clock: Clock, task: asyncio.Future[Any], seconds: float) -> bool:
    """Wait for ``task``, ``seconds`` at most; whether it is done. It is never cancelled here."""
    if task.done():
        return True
    timer = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait({task, timer}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        timer.cancel()
    return task.done()


async def all_done_within(
    clock: Clock, tasks: Iterable[asyncio.Future[Any]], seconds: float
) -> bool:
    """The same for all of ``tasks``."""
    tasks = list(tasks)
    if not tasks:
        return True
    waiter = asyncio.ensure_future(asyncio.wait(tasks))  # cancelling it cancels no task
    try:
        return await done_within(clock, waiter, seconds)
    finally:
        waiter.cancel()

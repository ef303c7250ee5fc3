"""Simulated time: it moves only when a test says so, and everything due runs in order."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Coroutine
from itertools import count
from typing import Any, TypeVar

T = TypeVar("T")


async def settle() -> None:
    """Return when no other callback of the event loop is ready to run.

    Looks at the loop's own queue: counting ``sleep(0)`` would be a guess. Work in
    threads is not seen.
    """
    ready = asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
    await asyncio.sleep(0)
    while ready:  # noqa: ASYNC110 there is no event to wait for, this is what makes one
        await asyncio.sleep(0)


class FakeClock:
    """An `escape_hub.clock.Clock` whose time is moved by `advance` and by nothing else."""

    def __init__(self, start: float = 1_000_000.0) -> None:
        self._now = start
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = count()

    def now(self) -> float:
        return self._now

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        wake = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._now + seconds, next(self._order), wake))
        await wake

    @property
    def sleeping(self) -> int:
        """How many wait for time to pass."""
        return sum(not wake.done() for _, _, wake in self._sleepers)

    async def advance(self, seconds: float) -> None:
        """Let ``seconds`` pass: each sleeper wakes at its own time, with all that follows."""
        until = self._now + seconds
        await settle()
        while self._sleepers and self._sleepers[0][0] <= until:
            await self._wake_next()
        self._now = until

    async def run(self, work: Coroutine[Any, Any, T], limit: float = 3600.0) -> T:
        """The result of ``work``, with as much time passing as it needs; ``limit`` seconds at most.

        Raises `AssertionError` when ``work`` waits for something that time does not bring.
        """
        task = asyncio.ensure_future(work)
        until = self._now + limit
        await settle()
        while not task.done():
            if not self._sleepers or self._sleepers[0][0] > until:
                task.cancel()
                await asyncio.wait({task})
                raise AssertionError(f"not done after {limit:g} simulated seconds")
            await self._wake_next()
        return task.result()

    async def _wake_next(self) -> None:
        at, _, wake = heapq.heappop(self._sleepers)
        if wake.done():  # cancelled meanwhile
            return
        self._now = max(self._now, at)
        wake.set_result(None)
        await settle()

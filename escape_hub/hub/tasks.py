"""Background tasks that somebody looks after: none is lost, none fails unheard."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

from escape_hub.clock import Clock, all_done_within
from escape_hub.errors import EscapeHubError
from escape_hub.hub.audit import log_unexpected

T = TypeVar("T")
log = logging.getLogger(__name__)


class Tasks:
    """Spawns tasks and can wait for all of them."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run ``work`` whether or not the caller stays."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (error := task.exception()) is None:
            return
        # Our own errors are for whoever asked; if nobody stayed, nobody needs them.
        if not isinstance(error, (LookupError, EscapeHubError)):
            log_unexpected(log, "a background task", error)

    async def finish(self, clock: Clock, seconds: float) -> None:
        """Wait for all, ``seconds`` at most; the rest is cancelled."""
        if await all_done_within(clock, self._tasks, seconds):
            return
        log.error("%d renewals did not finish before the hub ended", len(self._tasks))
        for task in set(self._tasks):
            task.cancel()

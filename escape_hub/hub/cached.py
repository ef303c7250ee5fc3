"""A document of the issuer, kept while it is fresh and also while the issuer fails."""

from __future__ import annotations

import asyncio
import copy
import logging
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Generic, TypeVar

from escape_hub.errors import EscapeHubError

if TYPE_CHECKING:
    from escape_hub.clock import Clock

T = TypeVar("T")
log = logging.getLogger(__name__)


class Cached(Generic[T]):
    """One value, its age, and at most one fetch at a time.

    Younger than ``soft`` seconds it is simply there. Older, it is still there and a
    fetch goes on behind it: nobody waits for an issuer that hangs. Older than ``hard``,
    or never fetched, everybody waits for the same fetch. A failure is remembered for
    ``patience`` seconds, so that a dead issuer is not asked by every request.
    """

    def __init__(
        self,
        name: str,
        fetch: Callable[[], Awaitable[T]],
        clock: Clock,
        *,
        soft: float,
        hard: float,
        patience: float,
    ) -> None:
        self._name, self._fetch, self._clock = name, fetch, clock
        self._soft, self._hard, self._patience = soft, hard, patience
        self._value: T | None = None
        self._fetched_at = 0.0
        self._failure: EscapeHubError | None = None
        self._failed_at = 0.0
        self._flight: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """The value; raises what the fetch raised when there is none to give."""
        age = self._clock.now() - self._fetched_at
        if self._value is None or age > self._hard:
            return await self.reload()
        if age > self._soft and self._recent_failure() is None:
            self._start()
        return self._value

    async def reload(self) -> T:
        """The value as the issuer gives it from now on, or the failure of a moment ago.

        A fetch already under way may have begun before what the caller saw: its end is
        awaited by whoever joined it, and it is for them to ask again.
        """
        if self._flight is None and (failure := self._recent_failure()) is not None:
            raise failure
        # Shielded: one waiter that gives up does not take the others' answer away.
        return await asyncio.shield(self._start())

    @property
    def in_flight(self) -> bool:
        """Whether a fetch is under way."""
        return self._flight is not None

    async def aclose(self) -> None:
        """End a fetch that is under way."""
        if (flight := self._flight) is not None:
            flight.cancel()
            await asyncio.gather(flight, return_exceptions=True)

    def _recent_failure(self) -> EscapeHubError | None:
        if self._failure is None or self._clock.now() - self._failed_at > self._patience:
            return None
        return copy.copy(self._failure)  # one instance raised twice would mix tracebacks

    def _start(self) -> asyncio.Task[T]:
        if self._flight is None:
            self._flight = asyncio.create_task(self._run(), name=f"fetch {self._name}")
            self._flight.add_done_callback(self._landed)
        return self._flight

    async def _run(self) -> T:
        started = self._clock.now()
        value = await self._fetch()
        self._value, self._fetched_at, self._failure = value, started, None
        return value

    def _landed(self, flight: asyncio.Task[T]) -> None:
        self._flight = None
        if flight.cancelled() or (error := flight.exception()) is None:
            return
        if isinstance(error, EscapeHubError):
            self._failure, self._failed_at = error, self._clock.now()
            log.warning("%s: %s [%s]", self._name, error.message, error.code)

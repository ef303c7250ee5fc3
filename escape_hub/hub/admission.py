"""The gate before the issuer: who may call it now, the most urgent first.

All calls of the broker pass here, so that neither a restart with a thousand
overdue sessions nor an issuer that comes back is answered with a stampede.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import TypeVar

from escape_hub.clock import Clock, done_within
from escape_hub.core.renewal import CircuitBreaker, RenewalPolicy, TokenBucket
from escape_hub.errors import IssuerError, IssuerUnavailableError
from escape_hub.hub.metrics import Metrics

T = TypeVar("T")

#: Urgency classes; within one, the earlier time goes first.
ON_DEMAND = 0
SCHEDULED = 1


#: `NotAdmittedError.code` of who waited too long: nothing is wrong with the issuer.
QUEUED = "renewal-queued"


class NotAdmittedError(IssuerUnavailableError):
    """No call was made: the issuer is taken to be down, or others were more urgent for too long."""

    code = "issuer-unavailable"


@dataclass(slots=True)
class Place:
    """Where a renewal stands in the queue: a class and a time, the smaller the sooner."""

    urgency: int
    at: float
    calls: int = 1
    ticket: asyncio.Future[None] | None = None


class Admission:
    """Token bucket, limits of what is under way and circuit breaker, for one issuer."""

    def __init__(self, policy: RenewalPolicy, clock: Clock, metrics: Metrics) -> None:
        self._clock = clock
        self._metrics = metrics
        self._bucket = TokenBucket(policy.rate, policy.burst, clock.now())
        self.breaker = CircuitBreaker(
            policy.breaker_failures, policy.probe_interval, policy.in_flight
        )
        self._active = 0
        self._slots = asyncio.Semaphore(policy.in_flight)
        self._waiting: list[tuple[int, float, int, Place]] = []
        self._closed = False
        self._order = count()
        self._timer: asyncio.Task[None] | None = None
        self._recovered: list[Callable[[], None]] = []

    def on_recovery(self, call: Callable[[], None]) -> None:
        """Have ``call`` called when the issuer answers again after the breaker was open."""
        self._recovered.append(call)

    @asynccontextmanager
    async def renewal(self, place: Place, patience: float) -> AsyncIterator[bool]:
        """Enter when a renewal of ``place.calls`` requests may begin; leave when it is over.

        Gives whether it had to queue, that is whether much may have changed. Raises
        `NotAdmittedError` at once while the breaker is open (but for the one probe of its
        turn), and after ``patience`` seconds in the queue.
        """
        if self._closed:
            raise _queued()
        queued = False
        if self.breaker.is_open:
            self._admit_probe(place.calls)
        elif not self._waiting and self._admits(place.calls):
            self._active += 1
        else:
            await self._queue(place, patience)
            queued = True
        try:
            yield queued
        finally:
            self._active -= 1
            self._pump()

    def _admit_probe(self, calls: int) -> None:
        now = self._clock.now()
        if not self.breaker.allow(now):
            raise _down()
        self._bucket.charge(calls, now)
        self._active += 1

    def _admits(self, calls: int) -> bool:
        room = self._active < self.breaker.limit
        return room and self._bucket.take(calls, self._clock.now())

    async def _queue(self, place: Place, patience: float) -> None:
        ticket = place.ticket = asyncio.get_running_loop().create_future()
        self._enter(place)
        try:
            in_time = await done_within(self._clock, ticket, patience)
        except asyncio.CancelledError:
            if ticket.done() and ticket.exception() is None:  # admitted, and gone
                self._active -= 1
            ticket.cancel()
            self._pump()
            raise
        finally:
            place.ticket = None
        if not in_time:
            ticket.cancel()
            raise _queued()
        ticket.result()

    def _enter(self, place: Place) -> None:
        entry = (place.urgency, place.at, next(self._order), place)
        heapq.heappush(self._waiting, entry)
        self._pump()

    def promote(self, place: Place) -> None:
        """Somebody waits for an answer from a renewal that was only scheduled."""
        if place.urgency != ON_DEMAND:
            place.urgency = ON_DEMAND
            if place.ticket is not None:
                self._enter(place)  # the older entry is dropped when it comes up

    def _pump(self) -> None:
        """Admit whom bucket and limit allow, and see to it that the rest is looked at again."""
        while self._waiting:
            place = self._waiting[0][-1]
            if place.ticket is not None and not place.ticket.done():
                if self.breaker.is_open:
                    place.ticket.set_exception(_down())
                elif self._admits(place.calls):
                    self._active += 1
                    place.ticket.set_result(None)
                else:
                    self._look_again(self._bucket.wait(place.calls, self._clock.now()))
                    return
            heapq.heappop(self._waiting)

    def _look_again(self, seconds: float) -> None:
        # Without room the end of a renewal pumps; without permits only time does.
        if seconds > 0 and (self._timer is None or self._timer.done()):
            self._timer = asyncio.ensure_future(self._later(seconds))

    async def _later(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._timer = None
        self._pump()

    def charge(self, calls: int) -> None:
        """Count calls that asked for no admission (a login's): they wait for nobody."""
        self._bucket.charge(calls, self._clock.now())

    async def call(self, stage: str, request: Callable[[], Awaitable[T]]) -> T:
        """Make one call in a slot, measure it, and let the breaker learn from it."""
        async with self._slots:
            self._metrics.inflight.inc()
            begun = self._clock.now()
            try:
                result = await request()
            except IssuerUnavailableError as error:
                if error.oauth_error is not None:
                    self._answered()
                elif self.breaker.failed(begun):
                    self._metrics.circuit_open.set(1)
                    self._pump()
                raise
            except IssuerError:
                self._answered()  # a refusal is an answer
                raise
            finally:
                self._metrics.inflight.dec()
                self._metrics.renewal_duration.labels(stage).observe(self._clock.now() - begun)
            self._answered()
            return result

    def _answered(self) -> None:
        if self.breaker.succeeded(self._clock.now()):
            self._metrics.circuit_open.set(0)
            for call in self._recovered:
                call()

    async def aclose(self) -> None:
        """Begin no renewal any more; those that have begun go on to their end."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for *_, place in self._waiting:
            if place.ticket is not None and not place.ticket.done():
                place.ticket.set_exception(_queued())
        self._waiting.clear()


def _down() -> NotAdmittedError:
    return NotAdmittedError("the identity service does not answer at the moment")


def _queued() -> NotAdmittedError:
    return NotAdmittedError("many renewals are under way; this one goes on by itself", code=QUEUED)

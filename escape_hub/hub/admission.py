"""The gate before the issuer: who may call it now, the most urgent first.

All calls of the broker pass here, so that neither a restart with a thousand
overdue sessions nor an issuer that comes back is answered with a stampede.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
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
        self._waiting: list[tuple[int, float, int, int, asyncio.Future[None]]] = []
        self._order = count()
        self._timer: asyncio.Task[None] | None = None
        self._recovered: list[Callable[[], None]] = []

    def on_recovery(self, call: Callable[[], None]) -> None:
        """Have ``call`` called when the issuer answers again after the breaker was open."""
        self._recovered.append(call)

    @asynccontextmanager
    async def renewal(
        self, urgency: tuple[int, float], calls: int, patience: float
    ) -> AsyncIterator[None]:
        """Enter when a renewal of ``calls`` requests may begin; leave when it is over.

        ``urgency`` is a class and a time, the smaller the sooner. Raises
        `NotAdmittedError` at once while the breaker is open (but for the one probe of
        its turn), and after ``patience`` seconds in the queue.
        """
        if self.breaker.is_open:
            self._admit_probe(calls)
        elif not self._waiting and self._admits(calls):
            self._active += 1
        else:
            await self._queue(urgency, calls, patience)
        try:
            yield
        finally:
            self._active -= 1
            self._pump()

    def _admit_probe(self, calls: int) -> None:
        now = self._clock.now()
        if not self.breaker.allow(now):
            raise NotAdmittedError("the identity service does not answer at the moment")
        self._bucket.charge(calls, now)
        self._active += 1

    def _admits(self, calls: int) -> bool:
        room = self._active < self.breaker.limit
        return room and self._bucket.take(calls, self._clock.now())

    async def _queue(self, urgency: tuple[int, float], calls: int, patience: float) -> None:
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (*urgency, next(self._order), calls, ticket))
        self._pump()
        try:
            in_time = await done_within(self._clock, ticket, patience)
        except asyncio.CancelledError:
            if ticket.done() and ticket.exception() is None:  # admitted, and gone
                self._active -= 1
            ticket.cancel()
            self._pump()
            raise
        if not in_time:
            ticket.cancel()
            raise NotAdmittedError(
                "many renewals are under way; this one goes on by itself", code=QUEUED
            )
        ticket.result()

    def _pump(self) -> None:
        """Admit whom bucket and limit allow, and see to it that the rest is looked at again."""
        while self._waiting:
            *_, calls, ticket = self._waiting[0]
            if not ticket.done():
                if self.breaker.is_open:
                    ticket.set_exception(
                        NotAdmittedError("the identity service does not answer at the moment")
                    )
                elif self._admits(calls):
                    self._active += 1
                    ticket.set_result(None)
                else:
                    self._look_again(self._bucket.wait(calls, self._clock.now()))
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
                elif self.breaker.failed(self._clock.now()):
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
        if self.breaker.succeeded():
            self._metrics.circuit_open.set(0)
            for call in self._recovered:
                call()

    async def aclose(self) -> None:
        """Stop looking after the queue; who waits runs out of patience."""
        if self._timer is not None:
            self._timer.cancel()

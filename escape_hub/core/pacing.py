"""How hard the issuer may be pressed: backoff, circuit breaker, token bucket.

Pure: ``now`` (epoch seconds) and random numbers are arguments.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from random import Random


def backoff(attempt: int, rng: Random, *, first: float = 2.0, last: float = 30.0) -> float:
    """Seconds to wait after failure number ``attempt`` (from 1): full jitter, ``first`` at least.

    The upper end doubles from ``first`` to ``last``.
    """
    ceiling = min(last, first * 2.0 ** min(attempt, 30))
    return rng.uniform(first, max(first, ceiling))


class TokenBucket:
    """``rate`` permits a second on average, ``burst`` of them at once at most.

    "Permit" here, for "token" is taken. `charge` may overdraw: who comes later pays.
    """

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self._level = burst
        self._at = now

    def level(self, now: float) -> float:
        """Permits there are at ``now``; negative when overdrawn."""
        self._level = min(self.burst, self._level + max(0.0, now - self._at) * self.rate)
        self._at = max(self._at, now)
        return self._level

    def take(self, cost: float, now: float) -> bool:
        """Take ``cost`` permits if they are there. More than ``burst`` needs a full bucket."""
        # The slack forgives rounding, so that a wait of `wait` seconds is always enough.
        if self.level(now) < min(cost, self.burst) - 1e-6:
            return False
        self._level -= cost
        return True

    def charge(self, cost: float, now: float) -> None:
        """Take ``cost`` permits, there or not."""
        self._level = self.level(now) - cost

    def wait(self, cost: float, now: float) -> float:
        """Seconds until `take` succeeds, if nobody else takes any."""
        return max(0.0, (min(cost, self.burst) - self.level(now)) / self.rate)


@dataclass(slots=True)
class CircuitBreaker:
    """Opens after ``failures`` in a row; then one probe each ``interval`` seconds.

    Once closed again, `limit` lets the calls in flight grow by one with each success
    (the ramp), so that a service that has just come back is not run over.
    """

    failures: int = 5
    interval: float = 15.0
    full: int = 32
    _in_a_row: int = 0
    _answered_at: float = -math.inf
    _next_probe: float | None = None
    _ramp: int = 0

    def __post_init__(self) -> None:
        self._ramp = self.full

    @property
    def is_open(self) -> bool:
        """Whether the issuer is taken to be down."""
        return self._next_probe is not None

    @property
    def next_probe_at(self) -> float:
        """When the next probe may go out (epoch seconds); 0 while closed."""
        return self._next_probe or 0.0

    @property
    def limit(self) -> int:
        """Calls that may be in flight at once."""
        return self._ramp

    def would_allow(self, now: float) -> bool:
        """Whether `allow` would say yes."""
        return self._next_probe is None or now >= self._next_probe

    def allow(self, now: float) -> bool:
        """Whether a call may go out at ``now``. While open, a yes is the one probe of its turn.

        The turn is counted from the probe's start: a probe that hangs holds up no other.
        """
        if not self.would_allow(now):
            return False
        if self._next_probe is not None:
            self._next_probe = now + self.interval
        return True

    def succeeded(self, now: float) -> bool:
        """The issuer answered (a refusal is an answer). True when that closed the breaker."""
        closed = self.is_open
        self._in_a_row = 0
        self._answered_at = now
        self._next_probe = None
        self._ramp = 2 if closed else min(self.full, self._ramp + 1)
        return closed

    def failed(self, begun: float) -> bool:
        """A call begun at ``begun`` got no answer. True when that opened the breaker.

        It tells how the issuer was when it began, and nothing of later: one that hung
        while others were answered does not count, and the next probe is due an
        interval after it began, which for a call that hung may be now.
        """
        if begun < self._answered_at:
            return False
        self._in_a_row += 1
        if self.is_open or self._in_a_row < self.failures:
            return False
        self._next_probe = begun + self.interval
        return True

"""When the agent asks next: clocks, waiting, spread and backoff. All times in seconds."""

from __future__ import annotations

import random
import threading
import time

#: Bounds of what is made of the hub's ``next_poll``.
POLL_BOUNDS = (2.0, 600.0)
#: An agent that does not write tries to take over this often.
TAKEOVER_POLL = 5.0
#: Full-jitter backoff after failures: its first and its largest value.
BACKOFF = (2.0, 30.0)
#: How far wall clock and elapsed time may part before the agent asks anew.
CLOCK_JUMP = 30.0
#: Longest single sleep: how late a jump, or a machine that woke up, is noticed.
SLICE = 5.0


class SessionClock:
    """Wall time, elapsed time that goes on while the machine sleeps, and waiting."""

    _SOURCE = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

    def wall(self) -> float:
        """Epoch seconds; may jump."""
        return time.time()

    def elapsed(self) -> float:
        """Seconds that only grow, suspended time included."""
        return time.clock_gettime(self._SOURCE)

    def wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait for ``event`` at most ``seconds``; whether it came."""
        return event.wait(seconds)


class HubTime:
    """The hub's clock as last heard, carried on by elapsed time.

    Expiry is judged by it, so a wrong or jumping clock of this machine does no harm.
    Until the hub was heard it is the wall clock.
    """

    def __init__(self, clock: SessionClock) -> None:
        self._clock = clock
        self._offset: float | None = None

    def heard(self, hub_now: float | None) -> None:
        """The hub just said that it is ``hub_now`` (epoch seconds)."""
        if hub_now is not None:
            self._offset = hub_now - self._clock.elapsed()

    def now(self) -> float:
        """Epoch seconds of the hub's clock."""
        if self._offset is None:
            return self._clock.wall()
        return self._offset + self._clock.elapsed()


def spread(next_poll: float, rng: random.Random) -> float:
    """``next_poll`` within bounds, up to a tenth earlier so that sessions do not march in step."""
    low, high = POLL_BOUNDS
    return min(max(next_poll, low), high) * rng.uniform(0.9, 1.0)


def backoff(failures: int, rng: random.Random) -> float:
    """Wait after so many failures in a row."""
    first, largest = BACKOFF
    return rng.uniform(first / 2, min(largest, first * 2.0 ** min(failures, 8)))


class Waiter:
    """An interruptible wait that measures elapsed time and notices a jump of the wall clock."""

    def __init__(self, clock: SessionClock) -> None:
        self._clock = clock
        self._event = threading.Event()

    def wake(self) -> None:
        """End the wait under way, or the next one at once."""
        self._event.set()

    def wait(self, seconds: float) -> str:
        """Wait; the reason it ended: ``passed``, ``woken`` or ``jumped``."""
        clock = self._clock
        deadline, drift = clock.elapsed() + seconds, clock.wall() - clock.elapsed()
        reason = "passed"
        while (left := deadline - clock.elapsed()) > 0:
            if clock.wait(self._event, min(left, SLICE)):
                reason = "woken"
                break
            if abs(clock.wall() - clock.elapsed() - drift) > CLOCK_JUMP:
                reason = "jumped"
                break
        self._event.clear()
        return reason

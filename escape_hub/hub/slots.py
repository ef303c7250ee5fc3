"""What the broker remembers of one user between two renewals: a lock, and what failed when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

from escape_hub.core.auth_state import Failure
from escape_hub.core.renewal import RenewalPolicy, backoff
from escape_hub.hub.admission import Place


@dataclass(slots=True)
class Retry:
    """After a failure: not again before ``soonest``, and by itself not before ``at``."""

    attempts: int
    soonest: float
    at: float
    failure: Failure


@dataclass(frozen=True, slots=True)
class Wait:
    """How long to wait after a failure, counted from ``begun``: a call that hung has waited.

    ``life`` is the login token's lifetime, ``probe_at`` the open breaker's next probe (0
    while closed), ``retry_after`` the issuer's wish in seconds.
    """

    policy: RenewalPolicy
    rng: Random
    begun: float
    now: float
    life: float
    probe_at: float = 0.0
    retry_after: float | None = None

    def soonest(self) -> float:
        """Not before, even when a person asks: failures are cached."""
        cached = max(self.begun + self.policy.failure_cache, self.now + 1.0)
        if self.retry_after is None:
            return cached
        return max(cached, self.now + min(self.retry_after, self.policy.retry_after_cap))

    def by_itself(self, kind: str, attempts: int) -> float:
        """When the service tries again."""
        policy = self.policy
        if kind == "operator":
            return self.begun + min(policy.refused_retry, self.life / 12)
        if kind == "user_action":
            return self.begun + min(policy.user_action_retry, self.life / 12)
        if self.probe_at:
            return self.probe_at  # the breaker sets the pace
        return self.begun + backoff(
            attempts, self.rng, first=policy.backoff_first, last=policy.backoff_last
        )


@dataclass(slots=True)
class Slot:
    """One user's lock and failures (by audience, ``""`` for the refresh)."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    retries: dict[str, Retry] = field(default_factory=dict)
    place: Place | None = None
    holders: int = 0

    def barred(self, now: float, *, forced: bool) -> frozenset[str]:
        """What must not be tried at ``now``. ``forced``: a person asks for it."""
        return frozenset(
            name for name, r in self.retries.items() if now < (r.soonest if forced else r.at)
        )

    def retry_at(self) -> dict[str, float]:
        """When each may be tried again by itself."""
        return {name: r.at for name, r in self.retries.items()}

    def failed(self, name: str, failure: Failure, wait: Wait) -> Failure:
        """Remember a failure; the one to store, whose ``since`` is that of its first time."""
        before = self.retries.get(name)
        same = before is not None and before.failure.kind == failure.kind
        attempts = before.attempts + 1 if before and same else 1
        if before and before.failure.code == failure.code:
            failure = before.failure
        soonest = wait.soonest()
        at = max(soonest, wait.by_itself(failure.kind, attempts))
        self.retries[name] = Retry(attempts, soonest, at, failure)
        return failure

    def succeeded(self, name: str) -> None:
        """Forget the failure."""
        self.retries.pop(name, None)


class Slots:
    """The slots of all users; one without failures is forgotten when nobody holds it."""

    def __init__(self) -> None:
        self._slots: dict[str, Slot] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def peek(self, user: str) -> Slot | None:
        """The slot, if there is one."""
        return self._slots.get(user)

    @asynccontextmanager
    async def hold(self, user: str) -> AsyncIterator[tuple[Slot, bool]]:
        """The user's slot under its lock, and whether it took waiting for another holder."""
        slot = self._slots.setdefault(user, Slot())
        joined = slot.lock.locked()
        slot.holders += 1
        try:
            async with slot.lock:
                yield slot, joined
        finally:
            slot.holders -= 1
            if not slot.holders and not slot.retries and self._slots.get(user) is slot:
                del self._slots[user]

    def forget_failures(self, user: str) -> None:
        """After a login or a logout: what failed before says nothing any more."""
        if (slot := self._slots.get(user)) is not None:
            slot.retries.clear()
            if not slot.holders:
                del self._slots[user]

    def issuer_is_back(self) -> None:
        """Transient failures need wait no longer than the issuer itself asked."""
        for slot in self._slots.values():
            for retry in slot.retries.values():
                if retry.failure.kind == "transient":
                    retry.at = min(retry.at, retry.soonest)

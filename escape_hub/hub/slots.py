"""What the broker remembers of one user between two renewals: a lock, and what failed when."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random

from escape_hub.core.auth_state import Failure
from escape_hub.core.renewal import RenewalPolicy, backoff


@dataclass(slots=True)
class Retry:
    """After a failure: not again before ``soonest``, and by itself not before ``at``."""

    attempts: int
    soonest: float
    at: float
    failure: Failure


@dataclass(slots=True)
class Slot:
    """One user's lock and failures (by audience, ``""`` for the refresh)."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    retries: dict[str, Retry] = field(default_factory=dict)
    holders: int = 0

    def barred(self, now: float, *, forced: bool) -> frozenset[str]:
        """What must not be tried at ``now``. ``forced``: a person asks for it."""
        return frozenset(
            name for name, r in self.retries.items() if now < (r.soonest if forced else r.at)
        )

    def retry_at(self) -> dict[str, float]:
        """When each may be tried again by itself."""
        return {name: r.at for name, r in self.retries.items()}

    def failed(
        self,
        name: str,
        failure: Failure,
        *,
        policy: RenewalPolicy,
        rng: Random,
        begun: float,
        now: float,
        retry_after: float | None = None,
    ) -> Failure:
        """Remember a failure; the one to store, whose ``since`` is that of its first time.

        Waits are counted from ``begun``: a call that hung has waited already.
        """
        before = self.retries.get(name)
        same = before is not None and before.failure.kind == failure.kind
        attempts = before.attempts + 1 if before and same else 1
        if before and before.failure.code == failure.code:
            failure = before.failure
        match failure.kind:
            case "operator":
                wait = policy.refused_retry
            case "user_action":
                wait = policy.user_action_retry
            case _:
                wait = backoff(attempts, rng, first=policy.backoff_first, last=policy.backoff_last)
        soonest = max(begun + policy.failure_cache, now + 1.0)
        if retry_after is not None:
            soonest = max(soonest, now + min(retry_after, policy.retry_after_cap))
        self.retries[name] = Retry(attempts, soonest, max(soonest, begun + wait), failure)
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

"""The store, and what could not be stored yet: a rotated refresh token is never lost in between.

While the database refuses to write, the newest state lives in memory, counts as
the truth, and is written again and again until it is stored or a login replaced it.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from random import Random

from escape_hub.clock import Clock, all_done_within
from escape_hub.core.auth_state import AuthState, ForeignAuthStateError
from escape_hub.core.renewal import backoff
from escape_hub.hub.metrics import Metrics
from escape_hub.hub.store import AuthStateStore, StateMovedError

log = logging.getLogger(__name__)

RETRY_FIRST = 0.2
RETRY_LAST = 5.0


@dataclass(slots=True)
class _Unsaved:
    """``state`` waits to be stored in place of generation ``base``."""

    base: int
    state: AuthState
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    task: asyncio.Task[None] | None = None

    def replaces(self, stored: AuthState) -> bool:
        """Whether what is stored is what this was made from, or an older state of that login."""
        return stored.login_at == self.state.login_at and stored.generation <= self.base


class Shelf:
    """Load and save with compare-and-set; what cannot be saved is kept and retried."""

    def __init__(self, store: AuthStateStore, clock: Clock, rng: Random, metrics: Metrics) -> None:
        self._store = store
        self._clock = clock
        self._rng = rng
        self._metrics = metrics
        self._unsaved: dict[str, _Unsaved] = {}

    @property
    def unsaved(self) -> int:
        """How many users' states are in memory only."""
        return len(self._unsaved)

    async def load(self, user: str) -> AuthState | None:
        """The newest state there is of ``user``, stored or not.

        Raises `ForeignAuthStateError` when what is stored is not ours.
        """
        waiting = self._unsaved.get(user)
        try:
            stored = await self._store.load(user)
        except ForeignAuthStateError:
            self._drop(user)
            raise
        except Exception:
            if waiting is None:
                raise
            return waiting.state
        if (waiting := self._unsaved.get(user)) is None:
            return stored
        if stored is not None and waiting.replaces(stored):
            return waiting.state
        self._drop(user)  # a login or a logout came meanwhile
        return stored

    async def save(self, user: str, base: int, state: AuthState, *, wipe: bool = False) -> None:
        """Store ``state`` in place of generation ``base``.

        Raises `StateMovedError` when something else is stored by now, which is then
        the truth, and `LookupError` when the user is gone. Any other failure of the
        store is not raised: the state is kept here and retried.
        """
        waiting = self._unsaved.get(user)
        if waiting is not None:
            async with waiting.lock:
                if self._unsaved.get(user) is waiting:
                    if waiting.state.generation != base:
                        self._metrics.conflicts.inc()
                        raise StateMovedError(waiting.state)
                    waiting.state = state
                    await self._write(user, waiting, wipe=wipe)
                    return
        await self._write(user, _Unsaved(base, state), wipe=wipe)

    async def _write(self, user: str, unsaved: _Unsaved, *, wipe: bool = False) -> None:
        try:
            await self._compare_and_set(user, unsaved, wipe)
        except StateMovedError:
            self._metrics.conflicts.inc()
            self._drop(user)
            raise
        except (LookupError, ForeignAuthStateError):
            self._drop(user)
            raise
        except Exception as error:
            self._metrics.persist_failures.inc()
            log.error(
                "A renewed sign-in of %r cannot be stored (%s): it is kept in memory and tried "
                "again; look at the hub's database",
                user,
                type(error).__name__,
            )
            self._keep(user, unsaved)
        else:
            self._drop(user)

    async def _compare_and_set(self, user: str, unsaved: _Unsaved, wipe: bool) -> None:
        try:
            await self._store.save(user, unsaved.state, expected=unsaved.base, wipe=wipe)
        except StateMovedError as moved:
            stored = moved.stored
            if stored is None or not unsaved.replaces(stored):
                raise
            # An older state of the same login came back (a database that was restored,
            # a rewrite on read): ours is its successor all the same.
            unsaved.base = stored.generation
            await self._store.save(user, unsaved.state, expected=unsaved.base, wipe=wipe)

    def _keep(self, user: str, unsaved: _Unsaved) -> None:
        other = self._unsaved.setdefault(user, unsaved)
        if other is not unsaved:
            raise StateMovedError(other.state)
        if unsaved.task is None:
            unsaved.task = asyncio.ensure_future(self._retry(user, unsaved))

    def _drop(self, user: str) -> None:
        self._unsaved.pop(user, None)

    async def _retry(self, user: str, unsaved: _Unsaved) -> None:
        attempt = 0
        while self._unsaved.get(user) is unsaved:
            attempt += 1
            await self._clock.sleep(backoff(attempt, self._rng, first=RETRY_FIRST, last=RETRY_LAST))
            async with unsaved.lock:
                if self._unsaved.get(user) is not unsaved:
                    return
                try:
                    await self._write(user, unsaved)
                except (StateMovedError, LookupError, ForeignAuthStateError):
                    return  # something newer is there, or nobody

    async def aclose(self, hold: float) -> None:
        """Wait until everything is stored, ``hold`` seconds at most."""
        tasks = [one.task for one in self._unsaved.values() if one.task is not None]
        if not await all_done_within(self._clock, tasks, hold):
            log.critical(
                "%d sign-ins could not be stored before the hub ended: their owners must sign in "
                "again",
                self.unsaved,
            )
        for task in tasks:
            task.cancel()

"""Who is to be looked at when: two heaps, one by time and one by urgency."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from escape_hub.core.status import State


@dataclass(slots=True)
class Entry:
    """One user with a running session.

    ``again``: look once more when the turn under way ends. ``missing``: how often in a row
    the hub did not list it. ``seen``: per audience expiry (0: no token) and state.
    """

    ticket: int
    urgency: float = 0.0
    running: bool = False
    again: bool = False
    needs_login: bool = False
    fetched_at: float = 0.0
    missing: int = 0
    seen: tuple[tuple[float, State], ...] = ()


class Agenda:
    """Users by the time they are due; among those due, by urgency (the smaller the sooner)."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self._later: list[tuple[float, int, str]] = []
        self._ready: list[tuple[float, int, str]] = []
        self._tickets = count(1)

    def put(self, user: str, at: float, urgency: float) -> Entry:
        """Look at ``user`` at ``at``, whatever was planned before."""
        ticket = next(self._tickets)
        entry = self.entries.get(user)
        if entry is None:
            entry = self.entries[user] = Entry(ticket)
        entry.ticket = ticket
        entry.urgency = urgency
        heapq.heappush(self._later, (at, ticket, user))
        self._compact()
        return entry

    def remove(self, user: str) -> None:
        """Forget ``user``."""
        self.entries.pop(user, None)

    def _valid(self, ticket: int, user: str) -> bool:
        entry = self.entries.get(user)
        return entry is not None and entry.ticket == ticket

    def _compact(self) -> None:
        # Tickets that were replaced are dropped when they come up; not before they are many.
        if len(self._later) > 64 + 4 * len(self.entries):
            self._later = [item for item in self._later if self._valid(*item[1:])]
            heapq.heapify(self._later)

    def next_at(self) -> float | None:
        """When the next user becomes due; None when there is nobody."""
        while self._later and not self._valid(*self._later[0][1:]):
            heapq.heappop(self._later)
        return self._later[0][0] if self._later else None

    def due(self, now: float) -> Iterator[str]:
        """Take out whoever is due, the most urgent first."""
        while (at := self.next_at()) is not None and at <= now:
            _, ticket, user = heapq.heappop(self._later)
            heapq.heappush(self._ready, (self.entries[user].urgency, ticket, user))
        while self._ready:
            urgency, ticket, user = heapq.heappop(self._ready)
            if self._valid(ticket, user):
                yield user

    def put_back(self, user: str) -> None:
        """Undo a taking out by `due`: it comes out first the next time."""
        entry = self.entries[user]
        heapq.heappush(self._ready, (entry.urgency, entry.ticket, user))

    @property
    def has_ready(self) -> bool:
        """Whether somebody due was put back."""
        return bool(self._ready)

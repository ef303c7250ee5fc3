"""How long to wait before the next try."""

from __future__ import annotations


class Backoff:
    """No wait before the first restart, then a wait that doubles up to a limit."""

    def __init__(self, first: float, limit: float) -> None:
        self._next, self._first, self._limit = 0.0, first, limit

    def next(self) -> float:
        wait = self._next
        self._next = min(max(self._first, 2 * wait), self._limit)
        return wait

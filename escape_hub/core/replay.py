"""A memory of logout_tokens already taken (Back-Channel Logout 1.0 section 2.6, step 8)."""

from __future__ import annotations

from collections import OrderedDict


class ReplayCache:
    """Remembers each ``jti`` until its token could not be valid any more.

    Only tokens with a good signature belong here: then a stranger cannot fill it.
    When it is full the oldest goes, so its size is bounded.
    """

    def __init__(self, *, limit: int = 10_000) -> None:
        self._limit = limit
        self._until: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._until)

    def is_new(self, jti: str, *, now: float, valid_until: float) -> bool:
        """True the first time, and False while the token could still be replayed."""
        while self._until and next(iter(self._until.values())) <= now:
            self._until.popitem(last=False)
        known_until = self._until.get(jti)
        if known_until is not None and known_until > now:
            return False
        self._until.pop(jti, None)
        self._until[jti] = valid_until
        if len(self._until) > self._limit:
            self._until.popitem(last=False)
        return True

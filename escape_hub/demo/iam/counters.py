"""What was asked of the IAM, and every secret that it gave out or saw."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

KINDS = (
    "codes", "access_tokens", "refresh_tokens", "id_tokens", "logout_tokens",
    "code_verifiers", "session_cookies",
)  # fmt: skip


class Issued:
    """The secrets by kind, for tests that search everything else for them. In memory only."""

    def __init__(self) -> None:
        self._seen: dict[str, dict[str, None]] = {kind: {} for kind in KINDS}

    def add(self, kind: str, secret: str) -> str:
        """Remember ``secret`` and return it."""
        self._seen[kind][secret] = None
        return secret

    def to_json(self) -> dict[str, list[str]]:
        """Each kind with its secrets in the order of their first appearance."""
        return {kind: list(found) for kind, found in self._seen.items()}


class Counters:
    """Requests by endpoint; token requests by grant type and outcome, also per user.

    An outcome is ``ok``, the ``error`` of RFC 6749 section 5.2, ``lost_reply``
    (processed well, answer withheld) or ``fault:MODE`` (not processed at all).
    """

    def __init__(self) -> None:
        self.reset()
        self._running: Counter[str] = Counter()

    def reset(self) -> None:
        """Start again from nothing; requests under way still count as running."""
        self._requests: Counter[str] = Counter()
        self._client_auth: Counter[str] = Counter()
        self._grants: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._users: defaultdict[str, defaultdict[str, Counter[str]]] = defaultdict(
            lambda: defaultdict(Counter)
        )
        self._max_refresh = 0
        self._max_refresh_by_user: Counter[str] = Counter()

    def request(self, endpoint: str) -> None:
        """Count one request at an endpoint."""
        self._requests[endpoint] += 1

    def client_auth(self, way: str) -> None:
        """Count one client that proved who it is: ``basic``, ``post`` or ``none``."""
        self._client_auth[way] += 1

    def outcome(self, grant: str, user: str, outcome: str) -> None:
        """Count one token request that ended; ``user`` is empty when unknown."""
        self._grants[grant][outcome] += 1
        if user:
            self._users[user][grant][outcome] += 1

    @contextmanager
    def running(self, grant: str, user: str) -> Iterator[None]:
        """Hold around one token request: measures how many refreshes run at once."""
        if grant != "refresh_token":
            yield
            return
        # The empty key counts all users together.
        keys = {"", user}
        for key in keys:
            self._running[key] += 1
        self._max_refresh = max(self._max_refresh, self._running[""])
        if user:
            seen = self._max_refresh_by_user
            seen[user] = max(seen[user], self._running[user])
        try:
            yield
        finally:
            for key in keys:
                self._running[key] -= 1

    def to_json(self) -> dict[str, Any]:
        """The JSON object of ``GET dev/counters``."""
        return {
            "requests": dict(self._requests),
            "client_auth": dict(self._client_auth),
            "grants": {grant: dict(found) for grant, found in self._grants.items()},
            "users": {
                user: {grant: dict(found) for grant, found in grants.items()}
                for user, grants in self._users.items()
            },
            "max_concurrent_refresh": self._max_refresh,
            "max_concurrent_refresh_by_user": dict(self._max_refresh_by_user),
        }

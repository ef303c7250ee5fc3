"""Access tokens as values, and nothing that could print one by accident.

Times are seconds since the epoch. A token is opaque here: its life comes from
the issuer's ``expires_in`` (RFC 6749 section 5.1), never from its content.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class AccessToken:
    """An access token with its life. ``repr`` and ``str`` show the life alone."""

    value: str = field(repr=False)
    expires_at: float
    obtained_at: float

    @property
    def lifetime(self) -> float:
        """Seconds between issue and expiry."""
        return self.expires_at - self.obtained_at

    def remaining(self, now: float) -> float:
        """Seconds left at ``now``; negative once expired."""
        return self.expires_at - now

    def is_valid(self, now: float, min_valid_period: float = 0.0) -> bool:
        """Whether more than ``min_valid_period`` seconds are left."""
        return self.remaining(now) > min_valid_period

    def __str__(self) -> str:
        return repr(self)

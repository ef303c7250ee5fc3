"""The issuer's keys in this process: cached, refetched once for a key id that is new."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Literal

from escape_hub.core.keys import Header, Key, select_key
from escape_hub.errors import InvalidTokenError
from escape_hub.hub.cached import Cached

if TYPE_CHECKING:
    from escape_hub.clock import Clock

#: Whose token asks. What the token endpoint gave us may refetch at once; what a stranger
#: posted to the back-channel endpoint may do so once a minute for all of them together.
Budget = Literal["token_endpoint", "back_channel"]

SOFT_TTL = 6 * 3600.0
HARD_TTL = 2 * 86400.0
PATIENCE = 5.0
COOLDOWN = 60.0


class KeySource:
    """Gives the key that a token's header means. Ages and cooldown are in seconds."""

    def __init__(self, fetch: Callable[[], Awaitable[tuple[Key, ...]]], clock: Clock) -> None:
        self._clock = clock
        self._keys = Cached("JWKS", fetch, clock, soft=SOFT_TTL, hard=HARD_TTL, patience=PATIENCE)
        self._stranger_refetched_at: float | None = None

    async def key(self, header: Header, budget: Budget) -> Key:
        """The key, after at most one refetch.

        `InvalidTokenError` when the issuer publishes none such; the error of the fetch
        when the issuer could not be asked, for then nobody knows.
        """
        refusal: InvalidTokenError | None = None
        try:
            if (key := select_key(await self._keys.get(), header)) is not None:
                return key
        except InvalidTokenError as error:
            # Several that fit, or one too weak: the issuer may publish others by now.
            refusal = error
        if (key := await self.refetched(header, budget)) is not None:
            return key
        raise refusal or InvalidTokenError(
            "the token was signed with a key that the identity service does not publish",
            code="jwks-unknown-kid",
        )

    async def refetched(self, header: Header, budget: Budget) -> Key | None:
        """Look again in keys fetched from now on; None when not there or not allowed."""
        if budget == "back_channel" and not self._stranger_may_refetch():
            return None
        if self._keys.in_flight:
            # It may have begun before the issuer changed its keys: then once more.
            if (key := select_key(await self._keys.reload(), header)) is not None:
                return key
        return select_key(await self._keys.reload(), header)

    async def aclose(self) -> None:
        """End a fetch that is under way."""
        await self._keys.aclose()

    def _stranger_may_refetch(self) -> bool:
        now = self._clock.now()
        last = self._stranger_refetched_at
        if last is not None and now - last < COOLDOWN:
            return False
        self._stranger_refetched_at = now
        return True

"""One renewal of one user under that user's lock: its state, its saves, its bookkeeping.

The steps are in `refreshing` and `exchanging`, their order in `renewing`. Here is
what they share: every save compares the generation, and whoever signed in or out
meanwhile wins.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from escape_hub.core.auth_state import AuthState, Failure, NeedsLogin
from escape_hub.core.renewal import CHECK, Need, Work, mandatory_at, may_refresh, plan
from escape_hub.errors import EscapeHubError, IssuerUnavailableError, UserActionRequiredError
from escape_hub.hub.admission import Place
from escape_hub.hub.audit import log_unexpected
from escape_hub.hub.parts import Parts
from escape_hub.hub.slots import Slot, Wait

log = logging.getLogger(__name__)

#: How metrics and audit name what is not an audience.
_SHOWN = {"": "refresh", CHECK: "userinfo"}

T = TypeVar("T")


@dataclass(slots=True)
class Flight:
    """``state`` is the newest known; ``base`` the generation that is stored.

    ``dirty``: ``state`` holds something that is still to be stored. ``claims`` are
    those of an id_token that came with this flight's refresh.
    """

    parts: Parts
    user: str
    slot: Slot
    state: AuthState
    need: Need
    forced: bool = False
    urgency: int = 0
    patience: float = 10.0
    base: int = field(init=False)
    dirty: bool = field(init=False, default=False)
    claims: dict[str, Any] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.base = self.state.generation

    @property
    def now(self) -> float:
        """Epoch seconds."""
        return self.parts.clock.now()

    def plan(self) -> Work:
        """The calls that are to be made now."""
        parts = self.parts
        barred = self.slot.barred(self.now, forced=self.forced)
        return plan(
            parts.policy, self.user, self.state, parts.audiences, self.need, self.now, barred
        )

    def can_refresh(self) -> bool:
        """Whether the refresh token may be presented now."""
        parts = self.parts
        barred = self.slot.barred(self.now, forced=self.forced)
        return "" not in barred and may_refresh(parts.policy, self.state, parts.audiences, self.now)

    def place(self, work: Work) -> Place:
        """Where to queue: the urgency class, then when the first token becomes mandatory."""
        tokens = [self.state.exchanged.get(name) for name in self.parts.audiences]
        at = (mandatory_at(self.parts.policy, t) if t else 0.0 for t in tokens)
        return Place(self.urgency, min(at, default=self.now), work.calls)

    async def call(self, stage: str, request: Callable[[], Awaitable[T]]) -> T:
        """One call to the issuer; nothing but `EscapeHubError` comes out."""
        return await call(self.parts, self.user, stage, request)

    async def save(self, state: AuthState) -> None:
        """Store ``state``; `StateMovedError` when a login or logout was stored meanwhile."""
        # Ours from here on, so that whoever must drop it knows which refresh token to revoke.
        self.state = state
        await self.parts.shelf.save(self.user, self.base, state)
        self.base = state.generation
        self.dirty = False

    async def reread(self) -> bool:
        """Take over what is stored; whether that is something else than was read before."""
        stored = await self.parts.shelf.load(self.user)
        if stored is not None and stored.generation == self.base:
            return False
        if stored is None:
            raise LookupError("the sign-in was removed meanwhile")
        self.state = stored
        self.base = stored.generation
        return True

    async def end(self, needs: NeedsLogin) -> None:
        """The user must log in. The last tokens stay until they expire, unless they are wiped."""
        self.slot.retries.clear()
        await self.save(
            self.state.next(
                refresh_token=None,
                needs_login=needs,
                failures={},
                exchanged={} if needs.wipe else self.state.exchanged,
                login_token=None if needs.wipe else self.state.login_token,
            )
        )

    async def end_and_revoke(self, needs: NeedsLogin) -> None:
        """The same where it is the hub that ends the sign-in, and not the issuer."""
        ours = self.state.refresh_token
        await self.end(needs)
        if ours is not None:
            self.parts.revoke_later(ours)

    async def yield_to(self, stored: AuthState | None) -> None:
        """Something newer is stored: it wins, and what this flight got is dropped.

        A login brought a refresh token of its own, so nothing is lost with ours; ours is
        not revoked, for where both belong to one sign-in at the issuer (Keycloak) that
        would end the new one as well. After a logout ours is revoked: nobody else will.
        """
        log.info("%r signed in or out during a renewal, whose result is dropped", self.user)
        ours = self.state.refresh_token
        if (stored is None or stored.needs_login is not None) and ours is not None:
            self.parts.revoke_later(ours)
        if stored is None:
            stored = await self.parts.shelf.load(self.user)
        if stored is None:
            raise LookupError("the sign-in was removed meanwhile")
        self.state = stored
        self.base = stored.generation

    # -- bookkeeping -----------------------------------------------------------------------

    def failed(self, name: str, failure: Failure, error: EscapeHubError, begun: float) -> Failure:
        """Count, audit and remember a failure; the one to keep in the state."""
        shown = _SHOWN.get(name, name)
        self.record(shown, failure.kind, failure.code)
        if failure.kind == "operator":
            self.parts.alert(f"{shown} {failure.code}", error.message)
        breaker = self.parts.admission.breaker
        subject = self.state.login_token
        wait = Wait(
            self.parts.policy,
            self.parts.rng,
            begun,
            self.now,
            life=subject.lifetime if subject else 3600.0,
            probe_at=breaker.next_probe_at,
            retry_after=getattr(error, "retry_after", None),
        )
        return self.slot.failed(name, failure, wait)

    def record(self, name: str, outcome: str, reference: str = "-") -> None:
        """One call's outcome for metrics and audit."""
        record(self.parts, self.user, name, outcome, reference)


async def call(parts: Parts, user: str, stage: str, request: Callable[[], Awaitable[T]]) -> T:
    """One call to the issuer; nothing but `EscapeHubError` comes out."""
    try:
        return await parts.admission.call(stage, request)
    except EscapeHubError:
        raise
    except Exception as error:
        log_unexpected(log, f"the {stage} of {user!r}", error)
        raise IssuerUnavailableError(
            "an internal error of the hub, see its log",
            code="internal-error",
            maybe_processed=True,
        ) from None


def record(parts: Parts, user: str, name: str, outcome: str, reference: str = "-") -> None:
    """One call's outcome; ``name`` is an audience, ``refresh`` or ``userinfo``."""
    parts.metrics.renewals.labels(name, outcome).inc()
    event = "renewal" if name in _SHOWN.values() else "exchange"
    parts.audit.record(event, user, outcome, audience=name, reference=reference)


def failure_of(error: EscapeHubError, now: float) -> Failure:
    """The failure to show for ``error``."""
    if isinstance(error, IssuerUnavailableError):
        kind = "transient"
    elif isinstance(error, UserActionRequiredError):
        kind = "user_action"
    else:  # whatever else is refused right after a good refresh is a matter of configuration
        kind = "operator"
    return Failure(kind, error.code, error.message, now)


def without(failures: Mapping[str, Failure], name: str) -> dict[str, Failure]:
    """``failures`` but for one."""
    return {n: f for n, f in failures.items() if n != name}

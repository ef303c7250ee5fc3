"""`TokenBroker`: the sole owner of refresh tokens, and the only way to a fresh token.

Invariants: a refresh token is spent here and nowhere else, by one renewal at a time
per user, and its successor is stored before anything else is done with the reply.
A renewal is never cancelled half way: callers come and go, it runs to its end.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping
from dataclasses import replace
from random import Random
from typing import Any

from escape_hub.clock import Clock, SystemClock, done_within
from escape_hub.core import access
from escape_hub.core.audiences import Audience
from escape_hub.core.auth_state import AuthState, ForeignAuthStateError, NeedsLogin
from escape_hub.core.exchange import TokenReply
from escape_hub.core.renewal import CHECK, Need, RenewalPolicy, deadline, next_poll, plan
from escape_hub.errors import EscapeHubError
from escape_hub.hub.admission import ON_DEMAND, SCHEDULED, Admission
from escape_hub.hub.audit import Alerts, Audit
from escape_hub.hub.first_exchanges import first_exchanges
from escape_hub.hub.flight import Flight
from escape_hub.hub.metrics import Metrics, metrics_of
from escape_hub.hub.parts import Authorize, IssuerClient, Parts
from escape_hub.hub.renewing import renew_once
from escape_hub.hub.shelf import Shelf
from escape_hub.hub.slots import Slots
from escape_hub.hub.store import AuthStateStore, StateMovedError
from escape_hub.hub.tasks import Tasks

__all__ = ["IssuerClient", "TokenBroker"]

log = logging.getLogger(__name__)

#: A login moves the generation to the next multiple of this: further than the writes of any
#: renewal in flight, so that the two can never be taken for each other.
LOGIN_STEP = 1000
#: How long a scheduled renewal queues, which then is looked at afresh. Seconds.
QUEUE_PATIENCE = 600.0
#: How long a logout waits for the issuer to revoke; the rest happens in the background.
REVOKE_PATIENCE = 5.0


class TokenBroker:
    """Logs in, renews and forgets users' tokens; one for the whole hub process."""

    def __init__(
        self,
        issuer: IssuerClient,
        store: AuthStateStore,
        audiences: Iterable[Audience],
        policy: RenewalPolicy | None = None,
        clock: Clock | None = None,
        rng: Random | None = None,
        metrics: Metrics | None = None,
        audit: Audit | None = None,
        authorize: Authorize = lambda user, claims: None,
    ) -> None:
        """``authorize(user, claims)`` raises `NotAllowedError` for who may no longer come in."""
        self.audiences = tuple(audiences)
        self.policy = policy or RenewalPolicy()
        self.clock = clock or SystemClock()
        self.rng = rng or Random()  # noqa: S311 spreads load, guards nothing
        self.metrics = metrics or metrics_of()
        self.admission = Admission(self.policy, self.clock, self.metrics)
        self._shelf = Shelf(store, self.clock, self.rng, self.metrics)
        self._slots = Slots()
        self._tasks = Tasks()
        self._handed: dict[str, int] = {}
        self._parts = Parts(
            issuer=issuer,
            shelf=self._shelf,
            audiences={a.name: a for a in self.audiences},
            policy=self.policy,
            clock=self.clock,
            rng=self.rng,
            admission=self.admission,
            metrics=self.metrics,
            audit=audit or Audit(),
            authorize=authorize,
            alert=Alerts(self.clock.now),
            revoke_later=self._revoke_later,
        )
        self.admission.on_recovery(self._slots.issuer_is_back)

    # -- login and logout --------------------------------------------------------------------

    async def begin(
        self,
        user: str,
        reply: TokenReply,
        *,
        issuer: str,
        subject: str,
        claims: Mapping[str, Any],
        sid: str | None = None,
    ) -> AuthState:
        """The state of a fresh login, with every audience exchanged that answers in time.

        Nothing is stored: the caller's auth model carries ``state.to_dict()``. The
        generation is above any that is stored or that a renewal in flight may store, so
        that renewal finds out and is dropped. An audience that is late or refused has a
        failure and follows with the first renewal.
        """
        now = self.clock.now()
        state = AuthState(
            issuer=issuer,
            subject=subject,
            generation=await self._next_login_generation(user),
            refresh_token=reply.refresh_token,
            login_token=reply.access_token,
            id_token=reply.id_token,
            scope=reply.scope,
            claims=dict(claims),
            sid=sid,
            login_at=now,
            checked_at=now,
        )
        exchanged, failures = await first_exchanges(self._parts, user, reply.access_token)
        self._slots.forget_failures(user)
        self._parts.audit.record("login", user, "ok")
        return replace(state, exchanged=exchanged, failures=failures)

    async def _next_login_generation(self, user: str) -> int:
        try:
            stored = await self._shelf.load(user)
        except ForeignAuthStateError:
            stored = None
        latest = max(stored.generation if stored else 0, self._handed.get(user, 0))
        # Two tabs may log in at once: neither is stored when the other is handed out.
        self._handed[user] = generation = (latest // LOGIN_STEP + 1) * LOGIN_STEP
        return generation

    async def forget(self, user: str, *, reason: NeedsLogin, revoke: bool = True) -> None:
        """Clear the user's tokens (a logout, a blocked user); ``revoke`` the refresh token too.

        Waits for no renewal in flight: that one finds itself overtaken and revokes what
        it got. Does nothing when there is nothing of ours.
        """
        while True:
            try:
                state = await self._shelf.load(user)
            except ForeignAuthStateError:
                return
            if state is None:
                return
            cleared = state.next(
                refresh_token=None,
                login_token=None,
                id_token=None,
                exchanged={},
                failures={},
                needs_login=reason,
            )
            try:
                await self._shelf.save(user, state.generation, cleared, wipe=True)
            except StateMovedError:
                continue
            except LookupError:
                return
            break
        self._slots.forget_failures(user)
        self._parts.audit.record("forget", user, "ok", reference=reason.code)
        if revoke and state.refresh_token is not None:
            task = self._tasks.spawn(self._revoke(state.refresh_token))
            await done_within(self.clock, task, REVOKE_PATIENCE)

    def _revoke_later(self, token: str) -> None:
        self._tasks.spawn(self._revoke(token))

    async def _revoke(self, token: str) -> None:
        try:
            await self._parts.issuer.revoke(token)
        except EscapeHubError as error:
            log.warning("A refresh token was not revoked: %s (%s)", error.message, error.code)

    # -- renewal -----------------------------------------------------------------------------

    async def renew(
        self,
        user: str,
        *,
        min_valid_period: float = 0.0,
        audiences: Iterable[str] | None = None,
        force: bool = False,
        patience: float | None = None,
    ) -> AuthState:
        """The user's state, renewed first where a token is mandatory or lives too short.

        ``min_valid_period`` (seconds) that each of ``audiences`` (all by default) should
        still live. ``force``: renew whatever was obtained before this call. Failures are
        in the result's ``failures`` and ``needs_login``, never raised; a renewal that
        takes longer than ``patience`` seconds goes on without the caller, who gets what
        is known by then.

        Raises `LookupError` when nothing is stored and `ForeignAuthStateError` when that
        is not ours.
        """
        need = Need(
            min_valid_period=min_valid_period,
            audiences=None if audiences is None else frozenset(audiences),
            newer_than=self.clock.now() if force else None,
        )
        state = await self.state(user)
        if not force and not self._lacks(user, state, need):
            return state
        wait = self.policy.patience if patience is None else patience
        task = self._tasks.spawn(self._fly(user, need, ON_DEMAND, forced=force, patience=wait))
        if await done_within(self.clock, task, wait):
            return task.result()
        return await self.state(user)

    async def renew_due(self, user: str) -> AuthState:
        """For the renewal service: renew what is due, after everybody who waits for an answer."""
        need = Need(when_due=True)
        # Cancelling the service must not cancel a refresh whose token may then be lost.
        return await asyncio.shield(
            self._tasks.spawn(
                self._fly(user, need, SCHEDULED, forced=False, patience=QUEUE_PATIENCE)
            )
        )

    def _lacks(self, user: str, state: AuthState, need: Need) -> bool:
        if state.needs_login is not None:
            return False
        names = self._parts.audiences
        now = self.clock.now()
        aged = now - state.login_at > self.policy.max_session_age
        return (
            aged
            or plan(self.policy, user, state, names, need, now).calls > 0
            or (state.refresh_token is None)
        )

    async def _fly(
        self, user: str, need: Need, urgency: int, *, forced: bool, patience: float
    ) -> AuthState:
        waiting = self._slots.peek(user)
        if urgency == ON_DEMAND and waiting is not None and waiting.place is not None:
            self.admission.promote(waiting.place)
        async with self._slots.hold(user) as (slot, joined):
            if joined:
                self.metrics.joins.inc()
            state = await self.state(user)
            flight = Flight(self._parts, user, slot, state, need, forced, urgency, patience)
            return await renew_once(flight)

    async def state(self, user: str) -> AuthState:
        """What is known of the user now, failures in memory included; asks no issuer.

        Raises as `renew` does.
        """
        state = await self._shelf.load(user)
        if state is None:
            raise LookupError("no sign-in of this user is stored")
        slot = self._slots.peek(user)
        if slot is None or not slot.retries or state.needs_login is not None:
            return state
        failures = {n: r.failure for n, r in slot.retries.items() if n != CHECK}
        return replace(state, failures={**state.failures, **failures})

    # -- what follows from a state -----------------------------------------------------------

    def status(self, state: AuthState, now: float | None = None) -> access.Status:
        """What to tell the person, audience by audience."""
        return access.status(
            state,
            self.audiences,
            self.clock.now() if now is None else now,
            self.policy,
            issuer_down=self.admission.breaker.is_open,
        )

    def deadline(self, user: str, state: AuthState) -> float:
        """When the service should renew this user next; epoch seconds, may be past."""
        slot = self._slots.peek(user)
        retry = slot.retry_at() if slot else {}
        return deadline(self.policy, user, state, self._parts.audiences, retry)

    def next_poll(
        self, user: str, state: AuthState, now: float | None = None, *, sessions: int = 0
    ) -> float:
        """Seconds until the user's session should ask again."""
        return next_poll(
            self.policy,
            user,
            state,
            self._parts.audiences,
            self.clock.now() if now is None else now,
            sessions=sessions,
        )

    async def aclose(self) -> None:
        """Let renewals in flight finish and store everything; ``shutdown_hold`` seconds at most."""
        end = self.clock.now() + self.policy.shutdown_hold
        await self.admission.aclose()
        await self._tasks.finish(self.clock, self.policy.shutdown_hold)
        await self._shelf.aclose(max(0.0, end - self.clock.now()))

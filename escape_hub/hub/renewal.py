"""`RenewalService`: renews every running session's tokens, whether or not anybody looks.

Deadlines follow from what is stored, so a restart rebuilds them. The loop survives
whatever happens in one user's renewal. Its heartbeat is the hub's liveness; whether
the issuer answers is not.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from random import Random

from escape_hub.clock import Clock
from escape_hub.core.auth_state import AuthState, ForeignAuthStateError
from escape_hub.core.renewal import RenewalPolicy, mandatory_at
from escape_hub.hub.agenda import Agenda, Entry
from escape_hub.hub.audit import log_unexpected
from escape_hub.hub.broker import TokenBroker
from escape_hub.hub.metrics import Metrics, metrics_of
from escape_hub.hub.session_metrics import Warnings, report

log = logging.getLogger(__name__)

HEARTBEAT = 15.0
#: How often the gauges over all sessions are set.
REPORT = 30.0
RECONCILE = 300.0
#: How often to look whether somebody who must sign in has done so.
SIGN_IN_LOOK = 60.0
#: Wait after a bug in one user's renewal, at least; doubled at most, to spread.
AFTER_A_BUG = 30.0
_AT_ONCE = 50


class RenewalService:
    """One loop for all sessions of the hub."""

    def __init__(
        self,
        broker: TokenBroker,
        sessions: Callable[[], Iterable[str]],
        policy: RenewalPolicy | None = None,
        clock: Clock | None = None,
        rng: Random | None = None,
        metrics: Metrics | None = None,
    ) -> None:
        """``sessions()`` names the users with a running server; repeats do no harm."""
        self._broker = broker
        self._sessions = sessions
        self._policy = policy or broker.policy
        self._clock = clock or broker.clock
        self._rng = rng or broker.rng
        self._metrics = metrics or metrics_of()
        self._agenda = Agenda()
        self._turns: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._main: asyncio.Task[None] | None = None
        self._reconcile_at = 0.0
        self._report_at = 0.0
        self._round_at = 0.0
        self._warnings = Warnings(broker)

    # -- for the hub -------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin with every running session; returns at once."""
        if self._main is None:
            self._main = asyncio.ensure_future(self._run())

    async def stop(self) -> None:
        """Start nothing new, let what is under way finish, and have everything stored."""
        if self._main is not None:
            self._main.cancel()
            await asyncio.wait({self._main})
            self._main = None
        for turn in set(self._turns):
            turn.cancel()  # the renewals themselves are the broker's and go on
        await self._broker.aclose()

    def schedule(self, user: str) -> None:
        """A session of ``user`` starts, or the user signed in again: look now."""
        entry = self._agenda.entries.get(user)
        if entry is not None and entry.running:
            entry.again = True
            return
        now = self._clock.now()
        self._put(user, now, now).fetched_at = now
        self._wake.set()

    def unschedule(self, user: str) -> None:
        """The last session of ``user`` has stopped."""
        self._agenda.remove(user)

    def fetched(self, user: str) -> None:
        """A session of ``user`` has just asked for its tokens (for the metrics)."""
        if (entry := self._agenda.entries.get(user)) is not None:
            entry.fetched_at = self._clock.now()

    @property
    def scheduled(self) -> frozenset[str]:
        """The users whose sessions are being renewed."""
        return frozenset(self._agenda.entries)

    # -- the loop ----------------------------------------------------------------------------

    async def _run(self) -> None:
        try:
            await self._rebuild()
        except Exception as error:
            log_unexpected(log, "reading the deadlines of the sessions", error)
        while True:
            try:
                wait = self._round()
            except Exception as error:
                log_unexpected(log, "the renewal service", error)
                wait = HEARTBEAT
            await self._sleep(wait)

    def _round(self) -> float:
        """Start whoever is due; seconds until the next round."""
        now = self._clock.now()
        self._metrics.heartbeat.set(now)
        if now >= self._reconcile_at:
            self._reconcile_at = now + RECONCILE
            self._reconcile(now)
        self._start_due(now)
        if now >= self._report_at:
            self._report_at = now + REPORT
            report(self._metrics, self._broker, self._agenda, now)
        breaker = self._broker.admission.breaker
        times = [now + HEARTBEAT, self._reconcile_at]
        if (at := self._agenda.next_at()) is not None:
            times.append(at)
        if breaker.is_open and self._agenda.has_ready:
            times.append(max(breaker.next_probe_at, now + 1.0))
        return max(0.0, min(times) - now)

    def _start_due(self, now: float) -> None:
        breaker = self._broker.admission.breaker
        left = self._policy.in_flight - len(self._turns)
        if breaker.is_open:  # one at a time, the most urgent, as the probe
            left = 1 if breaker.would_allow(now) else 0
        for user in self._agenda.due(now):
            if left <= 0:
                self._agenda.put_back(user)
                return
            left -= 1
            self._agenda.entries[user].running = True
            turn = asyncio.ensure_future(self._turn(user))
            self._turns.add(turn)
            turn.add_done_callback(self._turn_ended)

    def _turn_ended(self, turn: asyncio.Task[None]) -> None:
        self._turns.discard(turn)
        if self._agenda.has_ready:
            self._wake.set()

    async def _sleep(self, seconds: float) -> None:
        """Until the next round, or until something earlier is put on the agenda."""
        self._wake.clear()
        self._round_at = self._clock.now() + seconds
        alarm = asyncio.ensure_future(self._alarm(seconds))
        try:
            await self._wake.wait()
        finally:
            alarm.cancel()

    async def _alarm(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._wake.set()

    def _put(self, user: str, at: float, urgency: float) -> Entry:
        if at < self._round_at:
            self._wake.set()
        return self._agenda.put(user, at, urgency)

    # -- one user ----------------------------------------------------------------------------

    async def _turn(self, user: str) -> None:
        """Look at ``user``, renew if due, and put the next look on the agenda."""
        entry = self._agenda.entries.get(user)
        if entry is None:
            return
        try:
            at, urgency = await self._look(user, entry)
        except (LookupError, ForeignAuthStateError):
            at = urgency = self._clock.now() + SIGN_IN_LOOK
        except Exception as error:
            log_unexpected(log, f"the renewal of {user!r}", error)
            at = urgency = self._clock.now() + self._rng.uniform(1, 2) * AFTER_A_BUG
        finally:
            entry.running = False
        if self._agenda.entries.get(user) is not entry:
            return  # the session stopped meanwhile
        if entry.again:
            entry.again = False
            at = self._clock.now()
        self._put(user, at, urgency)

    async def _look(self, user: str, entry: Entry) -> tuple[float, float]:
        """When to look again, and how urgent it will be."""
        state = await self._broker.state(user)
        due = self._broker.deadline(user, state)
        if due <= self._clock.now() and state.needs_login is None:
            state = await self._broker.renew_due(user)
            at = self._broker.deadline(user, state)
            now = self._clock.now()
            if at > now and not state.failures:
                self._metrics.renewal_lag.observe(max(0.0, now - max(due, state.login_at)))
            at = self._not_too_soon(at, now)
        else:
            at = due
        return self._note(entry, state, at)

    def _not_too_soon(self, at: float, now: float) -> float:
        breaker = self._broker.admission.breaker
        if at <= now and breaker.is_open:
            at = breaker.next_probe_at
        return max(at, now + 1.0)

    def _note(self, entry: Entry, state: AuthState, at: float) -> tuple[float, float]:
        now = self._clock.now()
        shown = self._broker.status(state, now).audiences
        entry.seen = tuple((one.expires_at or 0.0, one.state) for one in shown.values())
        entry.needs_login = state.needs_login is not None
        self._warnings.look(state, len(self._agenda.entries), now)
        if entry.needs_login:
            return now + SIGN_IN_LOOK, now + SIGN_IN_LOOK
        tokens = (state.exchanged.get(name) for name in shown)
        return at, min((mandatory_at(self._policy, t) if t else 0.0 for t in tokens), default=at)

    # -- all users ---------------------------------------------------------------------------

    async def _rebuild(self) -> None:
        """Read every session's deadline before the first renewal, so that the order is right."""
        users = list(dict.fromkeys(self._sessions()))
        for first in range(0, len(users), _AT_ONCE):
            await asyncio.gather(*(self._read(u) for u in users[first : first + _AT_ONCE]))
            self._metrics.heartbeat.set(self._clock.now())
        self._reconcile_at = self._clock.now() + RECONCILE
        log.info("%d sessions are renewed by the hub", len(self._agenda.entries))

    async def _read(self, user: str) -> None:
        now = self._clock.now()
        entry = self._put(user, now, now)
        entry.fetched_at = now
        try:
            state = await self._broker.state(user)
            at, urgency = self._note(entry, state, self._broker.deadline(user, state))
        except Exception as error:
            if not isinstance(error, (LookupError, ForeignAuthStateError)):
                log_unexpected(log, f"reading the deadline of {user!r}", error)
            at = urgency = self._clock.now() + self._rng.uniform(1, 2) * AFTER_A_BUG
        if self._agenda.entries.get(user) is entry:
            self._put(user, at, urgency)

    def _reconcile(self, now: float) -> None:
        """Heal a `schedule` or `unschedule` that was missed."""
        running = set(self._sessions())
        for user in running - set(self._agenda.entries):
            self._put(user, now, now).fetched_at = now
        for user, entry in list(self._agenda.entries.items()):
            # Twice in a row: a session that is just being started is not listed yet.
            entry.missing = 0 if user in running else entry.missing + 1
            if entry.missing > 1:
                self._agenda.remove(user)

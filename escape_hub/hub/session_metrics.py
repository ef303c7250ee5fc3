"""Gauges over all running sessions, and what an operator should know of their number."""

from __future__ import annotations

import logging
import math

from escape_hub.core.auth_state import AuthState
from escape_hub.core.status import State
from escape_hub.hub.agenda import Agenda
from escape_hub.hub.broker import TokenBroker
from escape_hub.hub.metrics import Metrics

log = logging.getLogger(__name__)

_WARN_EVERY = 3600.0


def report(metrics: Metrics, broker: TokenBroker, agenda: Agenda, now: float) -> None:
    """Count the sessions' tokens by state; NaN where there is nothing to measure."""
    names = [audience.name for audience in broker.audiences]
    least = [math.inf] * len(names)
    counts = [dict.fromkeys(State, 0) for _ in names]
    needs_login, oldest = 0, math.inf
    for entry in agenda.entries.values():  # one pass: there may be ten thousand
        needs_login += entry.needs_login
        oldest = min(oldest, entry.fetched_at)
        for index, (at, state) in enumerate(entry.seen):
            if at:
                least[index] = min(least[index], at)
            if state is State.FRESH and at <= now:
                state = State.LATE
            counts[index][state] += 1
    metrics.sessions.set(len(agenda.entries))
    metrics.needs_login.set(needs_login)
    metrics.circuit_open.set(broker.admission.breaker.is_open)
    metrics.last_fetch_age.set(now - oldest if oldest < math.inf else math.nan)
    for index, name in enumerate(names):
        remaining = least[index] - now if least[index] < math.inf else math.nan
        metrics.token_min_remaining.labels(name).set(remaining)
        for state in State:
            metrics.tokens.labels(name, state.value).set(counts[index][state])


class Warnings:
    """Settings of the issuer or of the hub that will not do, told once an hour at most."""

    def __init__(self, broker: TokenBroker) -> None:
        self._broker = broker
        self._told: dict[str, float] = {}

    def look(self, state: AuthState, sessions: int, now: float) -> None:
        """Judge by one user's tokens and the number of sessions."""
        policy = self._broker.policy
        tokens = [*state.exchanged.values(), *([state.login_token] if state.login_token else [])]
        life = min((t.lifetime for t in tokens), default=math.inf)
        if life < policy.short_lifetime and self._is_new("short", now):
            log.warning(
                "The identity service issues tokens that live %.0f seconds: an outage that is "
                "longer reaches the users. Ask its administrators for an hour",
                life,
            )
        share = policy.short_due if life < policy.short_lifetime else policy.due_earliest
        needed = sessions * (2 + len(self._broker.audiences)) / (share * life)
        if needed > 0.8 * policy.rate and self._is_new("rate", now):
            log.warning(
                "%d sessions with tokens of %.0f seconds need %.1f calls a second, and the "
                "renewal rate allows %.1f: raise the setting 'renewal_rate', or ask for longer "
                "lives",
                sessions,
                life,
                needed,
                policy.rate,
            )

    def _is_new(self, key: str, now: float) -> bool:
        if now - self._told.get(key, -math.inf) < _WARN_EVERY:
            return False
        self._told[key] = now
        return True

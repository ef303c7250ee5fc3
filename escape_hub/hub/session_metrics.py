"""Gauges over all running sessions, and what an operator should know of their number."""

from __future__ import annotations

import logging
import math
from collections import Counter

from escape_hub.core.auth_state import AuthState
from escape_hub.core.status import State
from escape_hub.hub.agenda import Agenda
from escape_hub.hub.broker import TokenBroker
from escape_hub.hub.metrics import Metrics

log = logging.getLogger(__name__)

_WARN_EVERY = 3600.0


def report(metrics: Metrics, broker: TokenBroker, agenda: Agenda, now: float) -> None:
    """Count the sessions' tokens by state; NaN where there is nothing to measure."""
    entries = agenda.entries.values()
    metrics.sessions.set(len(entries))
    metrics.needs_login.set(sum(e.needs_login for e in entries))
    metrics.circuit_open.set(broker.admission.breaker.is_open)
    oldest = min((e.fetched_at for e in entries), default=math.nan)
    metrics.last_fetch_age.set(now - oldest)
    for index, audience in enumerate(broker.audiences):
        seen = [e.seen[index] for e in entries if len(e.seen) > index]
        least = min((at for at, _ in seen if at), default=math.nan)
        metrics.token_min_remaining.labels(audience.name).set(least - now)
        counts = Counter(
            State.LATE if state is State.FRESH and at <= now else state for at, state in seen
        )
        for state in State:
            metrics.tokens.labels(audience.name, state.value).set(counts[state])


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

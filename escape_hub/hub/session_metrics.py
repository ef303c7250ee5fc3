"""Gauges over all running sessions, set at each round of the renewal service."""

from __future__ import annotations

import math
from collections import Counter

from escape_hub.core.status import State
from escape_hub.hub.agenda import Agenda
from escape_hub.hub.broker import TokenBroker
from escape_hub.hub.metrics import Metrics


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

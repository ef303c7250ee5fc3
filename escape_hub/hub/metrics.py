"""What Prometheus reads of the renewals, on the hub's own ``/hub/metrics``.

No label holds a user's name. JupyterHub serves prometheus_client's default
registry; the metrics of a registry are made once and found again, however often
this module is imported.
"""

from __future__ import annotations

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

_PREFIX = "escape_hub"
_ATTRIBUTE = "_escape_hub_metrics"
_CALL_SECONDS = (0.02, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60)
_LAG_SECONDS = (1, 5, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)


class Metrics:
    """The metrics of one registry; get them with `metrics_of`."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, namespace=_PREFIX, registry=registry)

        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, labels, namespace=_PREFIX, registry=registry)

        def histogram(name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            return Histogram(
                name, text, labels, namespace=_PREFIX, registry=registry, buckets=buckets
            )

        self.renewals = counter(
            "renewals_total",
            "Calls of renewals and logins by what came out; audience is 'refresh' or 'userinfo' "
            "for those two",
            "audience",
            "outcome",
        )
        self.renewal_duration = histogram(
            "renewal_duration_seconds", "Seconds a call to the issuer took", _CALL_SECONDS, "stage"
        )
        self.renewal_lag = histogram(
            "renewal_lag_seconds", "Seconds between a renewal's due time and its end", _LAG_SECONDS
        )
        self.token_min_remaining = gauge(
            "token_min_remaining_seconds",
            "Least life left of any running session's token",
            "audience",
        )
        self.tokens = gauge(
            "tokens", "Running sessions' tokens by the state of access", "audience", "state"
        )
        self.circuit_open = gauge("idp_circuit_open", "1 while the issuer is taken to be down")
        self.inflight = gauge("idp_inflight", "Calls to the issuer in flight")
        self.joins = counter(
            "singleflight_joins_total", "Callers that found a renewal of the same user under way"
        )
        self.conflicts = counter(
            "rt_conflicts_total", "Renewals that found the stored sign-in changed under them"
        )
        self.persist_failures = counter(
            "rt_persist_failures_total", "Failed attempts to store a renewed sign-in"
        )
        self.publish = counter(
            "publish_total", "Deliveries of tokens to sessions", "channel", "outcome"
        )
        self.backchannel_logouts = counter(
            "backchannel_logouts_total", "Posts to the back-channel logout endpoint", "outcome"
        )
        self.last_fetch_age = gauge(
            "session_last_fetch_age_seconds",
            "Seconds since the running session that has been silent longest asked for its tokens",
        )
        self.needs_login = gauge(
            "needs_login_sessions", "Running sessions whose owner must sign in again"
        )
        self.sessions = gauge("scheduled_sessions", "Running sessions that are being renewed")
        self.heartbeat = gauge(
            "scheduler_heartbeat_timestamp_seconds", "When the renewal service last went round"
        )


def metrics_of(registry: CollectorRegistry = REGISTRY) -> Metrics:
    """The metrics of ``registry``, made at the first call."""
    found: Metrics | None = getattr(registry, _ATTRIBUTE, None)
    if found is None:
        found = Metrics(registry)
        setattr(registry, _ATTRIBUTE, found)
    return found

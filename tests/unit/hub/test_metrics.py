"""What Prometheus reads: the promised names, no person, and no clash."""

from __future__ import annotations

import importlib

from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from escape_hub.hub import metrics
from tests.fakes.rig import Rig

PROMISED = """
renewals_total{audience,outcome}
renewal_duration_seconds{stage}
renewal_lag_seconds
token_min_remaining_seconds{audience}
tokens{audience,state}
idp_circuit_open
idp_inflight
singleflight_joins_total
rt_conflicts_total
rt_persist_failures_total
publish_total{channel,outcome}
session_last_fetch_age_seconds
needs_login_sessions
scheduler_heartbeat_timestamp_seconds
scheduled_sessions
""".split()


async def exposed() -> str:
    rig = Rig()
    await rig.login()
    rig.users = ["alice"]
    await rig.service.start()
    await rig.clock.advance(3700)
    rig.metrics.publish.labels("http", "ok").inc()
    await rig.clock.run(rig.service.stop())
    return generate_latest(rig.registry).decode()


async def test_every_promised_metric_is_there_with_its_labels():
    text = await exposed()
    samples = [line for line in text.splitlines() if not line.startswith("#")]
    for promised in PROMISED:
        name, _, labels = promised.partition("{")
        found = [s for s in samples if s.startswith(f"escape_hub_{name}")]
        assert found, promised
        for label in filter(None, labels.rstrip("}").split(",")):
            assert f'{label}="' in found[0], promised


async def test_no_metric_names_a_person():
    assert "alice" not in await exposed()


def test_importing_the_module_again_does_not_clash_in_the_registry_that_the_hub_serves():
    first = metrics.metrics_of()
    again = importlib.reload(metrics)
    assert again.metrics_of() is first
    assert REGISTRY.get_sample_value("escape_hub_idp_circuit_open") is not None


def test_each_registry_has_metrics_of_its_own():
    one, other = CollectorRegistry(), CollectorRegistry()
    assert metrics.metrics_of(one) is metrics.metrics_of(one)
    assert metrics.metrics_of(one) is not metrics.metrics_of(other)

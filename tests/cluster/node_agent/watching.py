"""Beside a running container: its postStart hook, then its probes."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING

from tests.cluster.node_agent.probes import Probe, Target, act
from tests.cluster.node_agent.runtime import RunningContainer

if TYPE_CHECKING:
    from tests.cluster.node_agent.container import Container


async def watch(container: Container, running: RunningContainer) -> None:
    target = Target.of(running, container.pod.address, container.spec)
    hook = (container.spec.get("lifecycle") or {}).get("postStart")
    if hook and not (await act(hook, target, 600))[0]:
        container.event("Warning", "FailedPostStartHook", "PostStartHook failed")
        await _kill(container, running, "FailedPostStartHook")
        return
    if startup := container.spec.get("startupProbe"):
        probe = Probe("Startup", startup, target)
        if not await probe.passes():
            await _unhealthy(container, probe, running)
            return
    container.state.started = True
    container.state.ready = "readinessProbe" not in container.spec
    if container.kind != "init":
        container.initialized.set()
    container.pod.changed()
    await asyncio.gather(_readiness(container, target), _liveness(container, target, running))


async def _readiness(container: Container, target: Target) -> None:
    if spec := container.spec.get("readinessProbe"):
        probe = Probe("Readiness", spec, target)
        container.state.ready = await probe.passes()
        while True:
            container.pod.changed()
            await probe.pause()
            container.state.ready = await probe.next_verdict()


async def _liveness(container: Container, target: Target, running: RunningContainer) -> None:
    if spec := container.spec.get("livenessProbe"):
        probe = Probe("Liveness", spec, target)
        good = await probe.passes()
        while good:
            await probe.pause()
            good = await probe.next_verdict()
        await _unhealthy(container, probe, running)


async def _unhealthy(container: Container, probe: Probe, running: RunningContainer) -> None:
    container.event("Warning", "Unhealthy", f"{probe.kind} probe failed: {probe.last_failure}")
    await _kill(container, running, f"failed {probe.kind.lower()} probe")


async def _kill(container: Container, running: RunningContainer, why: str) -> None:
    container.event("Normal", "Killing", f"Container {container.name} {why}, will be restarted")
    await running.signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(running.wait(), 2)
    except TimeoutError:
        await running.signal(signal.SIGKILL)

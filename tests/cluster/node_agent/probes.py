"""Probes and lifecycle hooks of a container."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import httpx

from tests.cluster.node_agent.runtime import RunningContainer
from tests.cluster.node_agent.status import Json


@dataclass(frozen=True)
class Target:
    """What a handler acts on: a running container of the pod at ``address``."""

    running: RunningContainer
    address: str
    ports: dict[str, int]

    @classmethod
    def of(cls, running: RunningContainer, address: str, container: Json) -> Target:
        ports = container.get("ports") or []
        return cls(running, address, {p["name"]: p["containerPort"] for p in ports if "name" in p})

    def port(self, port: int | str) -> int:
        return self.ports[port] if isinstance(port, str) else port


async def act(handler: Json, target: Target, seconds: float) -> tuple[bool, str]:
    """Do an exec, httpGet, tcpSocket or sleep handler once: whether it went well, and why not."""
    if "exec" in handler:
        code, said = await target.running.exec(handler["exec"]["command"], seconds)
        return code == 0, said.strip()
    if "httpGet" in handler:
        return await _http_get(handler["httpGet"], target, seconds)
    if "tcpSocket" in handler:
        return await _connect(target, target.port(handler["tcpSocket"]["port"]), seconds)
    if "sleep" in handler:
        await asyncio.sleep(handler["sleep"]["seconds"])
        return True, ""
    raise ValueError(f"the node agent has no handler {', '.join(handler)}")


async def _http_get(get: Json, target: Target, seconds: float) -> tuple[bool, str]:
    scheme = get.get("scheme", "HTTP").lower()
    host = get.get("host") or target.address
    url = f"{scheme}://{host}:{target.port(get['port'])}/{get.get('path', '/').lstrip('/')}"
    headers = {h["name"]: h["value"] for h in get.get("httpHeaders") or []}
    # As kubelet: any certificate will do, and no proxy of the environment is asked.
    async with httpx.AsyncClient(verify=False, trust_env=False, timeout=seconds) as client:  # noqa: S501
        try:
            status = (await client.get(url, headers=headers)).status_code
        except httpx.HTTPError as error:
            return False, f'Get "{url}": {error or type(error).__name__}'
    return 200 <= status < 400, f"HTTP probe failed with statuscode: {status}"


async def _connect(target: Target, port: int, seconds: float) -> tuple[bool, str]:
    try:
        _, writer = await asyncio.wait_for(asyncio.open_connection(target.address, port), seconds)
    except (OSError, TimeoutError) as error:
        return False, f"dial tcp {target.address}:{port}: {error or 'i/o timeout'}"
    writer.close()
    return True, ""


class Probe:
    """A startup, readiness or liveness probe with its thresholds."""

    def __init__(self, kind: str, spec: Json, target: Target) -> None:
        self.kind, self._spec, self._target = kind, spec, target
        self._period = spec.get("periodSeconds", 10)
        self.last_failure = ""

    async def passes(self) -> bool:
        """Try until enough tries in a row agree: True for success, False for failure."""
        if delay := self._spec.get("initialDelaySeconds"):
            await asyncio.sleep(delay)
        return await self.next_verdict()

    async def next_verdict(self) -> bool:
        wanted = {
            True: self._spec.get("successThreshold", 1),
            False: self._spec.get("failureThreshold", 3),
        }
        row, verdict = 0, None
        while True:
            good, why = await act(self._spec, self._target, self._spec.get("timeoutSeconds", 1))
            row = row + 1 if good == verdict else 1
            verdict = good
            if not good:
                self.last_failure = why
            if row >= wanted[good]:
                return good
            await asyncio.sleep(self._period)

    async def pause(self) -> None:
        await asyncio.sleep(self._period)

"""The API server as a node sees it: calls that fail often, lists and watches that go on."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from tests.cluster.kube_api import MERGE, ApiError, client_arguments, raise_for
from tests.cluster.node_agent.status import Json, timestamp

log = logging.getLogger("node_agent.client")

AWAY = (httpx.TransportError, ssl.SSLError, OSError)


def _passes_by(error: ApiError) -> bool:
    """Just started, a server refuses with 403 until its authorizers have read the cluster."""
    if error.status == 403:
        return "is being terminated" not in error.message
    return error.status == 429 or error.status >= 500


class Client:
    """One identity; ``component`` is the events' source."""

    def __init__(self, kubeconfig: Path, component: str, node: str) -> None:
        self._http = httpx.AsyncClient(**client_arguments(kubeconfig))
        self._source = {"component": component, "host": node}
        self._events: asyncio.Queue[tuple[str, Json]] = asyncio.Queue()
        self._recorder: asyncio.Task[None] | None = None

    async def request(self, method: str, path: str, body: Any = None, **query: Any) -> Json:
        content_type = query.pop("content_type", "application/json")
        response = await self._http.request(
            method,
            path,
            content=None if body is None else json.dumps(body),
            headers={"Content-Type": content_type},
            params=query,
        )
        raise_for(response)
        answer: Json = response.json()
        return answer

    async def patch_status(self, path: str, status: Json) -> Json:
        return await self.request("PATCH", f"{path}/status", status, content_type=MERGE)

    async def insistently(self, call: Callable[[], Any], seconds: float = 600.0) -> Any:
        """Repeat ``call`` while the server is away or not ready; refusals are the caller's."""
        deadline = asyncio.get_running_loop().time() + seconds
        while True:
            try:
                return await call()
            except AWAY:
                if asyncio.get_running_loop().time() > deadline:
                    raise
            except ApiError as error:
                if not _passes_by(error) or asyncio.get_running_loop().time() > deadline:
                    raise
            await asyncio.sleep(0.3)

    def event(self, pod: Json, kind: str, reason: str, message: str, container: str = "") -> None:
        """Record an event in the background, in order. Lost after a minute without the server."""
        meta = pod["metadata"]
        about = {"apiVersion": "v1", "kind": "Pod", "resourceVersion": meta["resourceVersion"]}
        about |= {k: meta[k] for k in ("name", "namespace", "uid")}
        if container:
            field = "containers"
            if container in [c["name"] for c in pod["spec"].get("initContainers") or []]:
                field = "initContainers"
            about["fieldPath"] = f"spec.{field}{{{container}}}"
        now = timestamp()
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{meta['name'][:200]}."},
            "type": kind,
            "reason": reason,
            "message": message[:1000],
            "source": self._source,
            "reportingComponent": self._source["component"],
            "reportingInstance": self._source["host"],
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "involvedObject": about,
        }
        path = f"/api/v1/namespaces/{meta['namespace']}/events"
        self._events.put_nowait((path, body))
        if self._recorder is None:
            self._recorder = asyncio.create_task(self._record_events())

    async def _record_events(self) -> None:
        while True:
            path, body = await self._events.get()
            try:
                await self.insistently(partial(self.request, "POST", path, body), seconds=60)
            except (ApiError, *AWAY) as error:
                # A namespace on its way out takes no more events.
                log.info("event %s is lost: %s", body["reason"], error)

    async def follow_pods(self, selector: str) -> AsyncIterator[tuple[str, Json]]:
        """``(type, pod)`` for ever. ``LISTED`` with a list object comes after each new listing,
        so that the caller can notice what went away while nobody watched."""
        path = "/api/v1/pods"
        while True:
            try:
                listed = await self.request("GET", path, fieldSelector=selector)
                yield "LISTED", listed
                version = listed["metadata"]["resourceVersion"]
                async for change in self._watch(path, selector, version):
                    yield change
            except (ApiError, *AWAY) as error:
                log.info("watch %s: %s", selector, str(error)[:200] or type(error).__name__)
                await asyncio.sleep(0.5)

    async def _watch(
        self, path: str, selector: str, version: str
    ) -> AsyncIterator[tuple[str, Json]]:
        query = {"watch": "true", "fieldSelector": selector, "resourceVersion": version}
        query |= {"timeoutSeconds": "300", "allowWatchBookmarks": "true"}
        timeout = httpx.Timeout(15.0, read=330.0)
        async with self._http.stream("GET", path, params=query, timeout=timeout) as response:
            if not response.is_success:
                await response.aread()
                raise_for(response)
            async for line in response.aiter_lines():
                change = json.loads(line)
                if change["type"] == "ERROR":
                    return
                if change["type"] != "BOOKMARK":
                    yield change["type"], change["object"]

"""The node: registers itself, takes the pods that are bound to it, keeps them up to date."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from tests.cluster.kube_api import MERGE, ApiError
from tests.cluster.node_agent.client import AWAY, Client
from tests.cluster.node_agent.config import AgentConfig
from tests.cluster.node_agent.oci import ConfigError
from tests.cluster.node_agent.pod import Pod
from tests.cluster.node_agent.pod_network import Addresses
from tests.cluster.node_agent.runtime import Crun
from tests.cluster.node_agent.scheduler import Scheduler
from tests.cluster.node_agent.status import Json, timestamp

log = logging.getLogger("node_agent.node")

ROOM = {"cpu": "8", "memory": "32Gi", "pods": "110", "ephemeral-storage": "50Gi"}


class NodeAgent:
    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._client = Client(Path(config.kubeconfig), "kubelet", config.node)
        labels = {
            "kubernetes.io/hostname": config.node,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
        }
        self._labels = labels | config.labels
        scheduler = Client(Path(config.scheduler_kubeconfig), "default-scheduler", config.node)
        self._scheduler = Scheduler(scheduler, config.node, self._labels, ROOM)
        self._crun = Crun(config.crun_state)
        self._addresses = Addresses(config.subnet)
        self._present_images: set[str] = set()
        self._pods: dict[str, Pod] = {}
        self._count = 0

    async def run(self) -> None:
        await self._client.insistently(self._register)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._scheduler.run())
            group.create_task(self._follow())
            group.create_task(self._refresh_volumes())

    async def _register(self) -> None:
        meta = {"name": self._config.node, "labels": self._labels}
        node = {"apiVersion": "v1", "kind": "Node", "metadata": meta}
        try:
            await self._client.request("POST", "/api/v1/nodes", node)
        except ApiError as error:
            if error.status != 409:
                raise
        now = timestamp()
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "KubeletReady",
            "message": "node agent is posting ready status",
            "lastHeartbeatTime": now,
            "lastTransitionTime": now,
        }
        address = {"type": "InternalIP", "address": self._config.host_ip}
        status = {"capacity": ROOM, "allocatable": ROOM, "conditions": [ready]}
        status["addresses"] = [address]
        path = f"/api/v1/nodes/{self._config.node}/status"
        await self._client.request("PATCH", path, {"status": status}, content_type=MERGE)
        log.info("node %s is ready", self._config.node)

    async def _follow(self) -> None:
        selector = f"spec.nodeName={self._config.node}"
        async for change, found in self._client.follow_pods(selector):
            if change == "LISTED":
                self._compare(found["items"])
            elif change == "DELETED":
                self._forget(found["metadata"]["uid"])
            else:
                self._take(found)

    def _compare(self, listed: list[Json]) -> None:
        for pod in listed:
            self._take(pod)
        for uid in set(self._pods) - {pod["metadata"]["uid"] for pod in listed}:
            self._forget(uid)

    def _take(self, manifest: Json) -> None:
        """A new pod begins; one that is to go is stopped, within the time it was given."""
        meta = manifest["metadata"]
        pod = self._pods.get(meta["uid"])
        if pod is None:
            self._count += 1
            pod = Pod(
                manifest,
                self._count,
                config=self._config,
                client=self._client,
                crun=self._crun,
                addresses=self._addresses,
                present_images=self._present_images,
            )
            self._pods[meta["uid"]] = pod
            if not meta.get("deletionTimestamp"):
                pod.begin()
        if meta.get("deletionTimestamp"):
            pod.terminate(meta.get("deletionGracePeriodSeconds") or 0)

    def _forget(self, uid: str) -> None:
        """The object is gone: after our own delete, or forced while containers ran."""
        pod = self._pods.pop(uid, None)
        if pod is not None and not pod.ended.is_set():
            pod.terminate(0)

    async def _refresh_volumes(self) -> None:
        while True:
            await asyncio.sleep(self._config.sync_seconds)
            for pod in list(self._pods.values()):
                try:
                    await pod.volumes.refresh()
                except (ApiError, ConfigError, *AWAY) as error:
                    log.info("volumes of %s: %s", pod.path, error)

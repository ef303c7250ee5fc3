"""Binds pending pods to the only node, or says in the scheduler's words why not."""

from __future__ import annotations

import logging

from tests.cluster.kube_api import ApiError
from tests.cluster.node_agent.client import AWAY, Client
from tests.cluster.node_agent.status import Json
from tests.cluster.node_agent.volumes import quantity

log = logging.getLogger("node_agent.scheduler")


def why_not(pod: Json, labels: dict[str, str], allocatable: dict[str, str]) -> str:
    """The reason that the node cannot take the pod; empty when it can."""
    for key, value in (pod["spec"].get("nodeSelector") or {}).items():
        if labels.get(key) != value:
            return "1 node(s) didn't match Pod's node affinity/selector"
    for container in pod["spec"]["containers"]:
        requests = (container.get("resources") or {}).get("requests") or {}
        for resource, amount in requests.items():
            if _amount(amount) > _amount(allocatable.get(resource, "0")):
                return f"1 Insufficient {resource}"
    return ""


def _amount(text: str) -> float:
    return int(text[:-1]) / 1000 if text.endswith("m") else quantity(text)


class Scheduler:
    def __init__(self, client: Client, node: str, labels: dict[str, str], room: Json) -> None:
        self._client, self._node, self._labels, self._room = client, node, labels, room

    async def run(self) -> None:
        """For ever: look at every pod without a node."""
        async for change, pod in self._client.follow_pods("spec.nodeName="):
            pods = pod["items"] if change == "LISTED" else [pod]
            for found in pods if change != "DELETED" else []:
                if not found["metadata"].get("deletionTimestamp"):
                    await self._place(found)

    async def _place(self, pod: Json) -> None:
        if pod["spec"].get("schedulingGates"):
            return
        if reason := why_not(pod, self._labels, self._room):
            await self._refuse(pod, f"0/1 nodes are available: {reason}.")
            return
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}/binding"
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": meta["name"], "uid": meta["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": self._node},
        }
        try:
            await self._client.insistently(lambda: self._client.request("POST", path, binding), 10)
        except (ApiError, *AWAY) as error:
            # Gone, or bound already. Otherwise the next listing brings it back.
            log.info("binding %s: %s", meta["name"], error)
            return
        where = f"{meta['namespace']}/{meta['name']} to {self._node}"
        self._client.event(pod, "Normal", "Scheduled", f"Successfully assigned {where}")

    async def _refuse(self, pod: Json, message: str) -> None:
        """Once per pod: its condition tells whether it has been said."""
        conditions = (pod.get("status") or {}).get("conditions") or []
        if any(c.get("message") == message for c in conditions):
            return
        self._client.event(pod, "Warning", "FailedScheduling", message)
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "reason": "Unschedulable",
            "message": message,
        }
        meta = pod["metadata"]
        path = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}"
        try:
            await self._client.patch_status(path, {"status": {"conditions": [condition]}})
        except (ApiError, *AWAY) as error:
            log.info("condition of %s: %s", meta["name"], error)

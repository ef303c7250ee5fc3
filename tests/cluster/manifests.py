"""Short manifests for pods of the tests."""

from __future__ import annotations

from typing import Any

from tests.cluster.images import HOST_IMAGE
from tests.cluster.kube_api import Manifest

IDLE = "trap 'exit 0' TERM; while :; do sleep 0.1; done"
"""A shell line that runs until it is told to end, and then ends at once."""


def container(name: str, script: str = IDLE, **fields: Any) -> dict[str, Any]:
    """A container that runs a shell line."""
    return {"name": name, "image": HOST_IMAGE, "command": ["sh", "-c", script], **fields}


def pod(namespace: str, name: str, *containers: dict[str, Any], **spec: Any) -> Manifest:
    """``spec`` are further fields of the pod's spec, such as ``initContainers``.

    A short grace period, because the namespace controller reckons with half of it.
    """
    spec = {"terminationGracePeriodSeconds": 5, **spec}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": list(containers) or [container("main")], **spec},
    }


def mount(name: str, path: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "mountPath": path, **fields}


def states(found: Manifest) -> dict[str, dict[str, Any]]:
    """Container name -> its status, init containers included."""
    status = found.get("status", {})
    listed = [*status.get("initContainerStatuses", []), *status.get("containerStatuses", [])]
    return {one["name"]: one for one in listed}


def is_ready(found: Manifest) -> bool:
    conditions = found.get("status", {}).get("conditions", [])
    return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)


def has_ended(found: Manifest) -> bool:
    return found.get("status", {}).get("phase") in ("Succeeded", "Failed")


def restarts(name: str, found: Manifest) -> int:
    return int(states(found).get(name, {}).get("restartCount", 0))


def waits_for(name: str, reason: str, found: Manifest) -> bool:
    """Whether the container waits, and for this reason."""
    state = states(found).get(name, {}).get("state", {})
    return bool(state.get("waiting", {}).get("reason") == reason)

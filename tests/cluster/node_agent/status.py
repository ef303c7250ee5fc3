"""The status of a pod from the states of its containers: kubelet's rules, no I/O."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]


def timestamp() -> str:
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class ContainerState:
    """One container as its status shows it. ``kind`` is ``init``, ``sidecar`` or ``main``."""

    name: str
    image: str
    kind: str
    waiting: tuple[str, str] | None = ("PodInitializing", "")
    started_at: str = ""
    exit_code: int | None = None
    finished_at: str = ""
    container_id: str = ""
    restarts: int = 0
    started: bool = False
    """Running, and its startup probe has passed."""
    ready: bool = False
    last: Json = field(default_factory=dict)
    """The terminated state of the run before, once there was one."""
    final: bool = False
    """It has ended and will not be started again."""

    @property
    def running(self) -> bool:
        return self.waiting is None and self.exit_code is None

    def terminated(self) -> Json:
        assert self.exit_code is not None
        return {
            "exitCode": self.exit_code,
            "reason": "Completed" if self.exit_code == 0 else "Error",
            "startedAt": self.started_at,
            "finishedAt": self.finished_at,
            "containerID": self.container_id,
        }

    def to_json(self) -> Json:
        if self.waiting is not None:
            reason, message = self.waiting
            state: Json = {
                "waiting": {"reason": reason, **({"message": message} if message else {})}
            }
        elif self.exit_code is not None:
            state = {"terminated": self.terminated()}
        else:
            state = {"running": {"startedAt": self.started_at}}
        return {
            "name": self.name,
            "image": self.image,
            "imageID": self.image if self.container_id else "",
            "containerID": self.container_id,
            "ready": self.is_ready,
            "started": self.started,
            "restartCount": self.restarts,
            "state": state,
            "lastState": {"terminated": self.last} if self.last else {},
        }

    @property
    def is_ready(self) -> bool:
        """An init container is ready once it has succeeded, every other while it serves."""
        if self.kind == "init":
            return self.exit_code == 0
        return self.running and self.started and self.ready

    @property
    def initialized(self) -> bool:
        """The containers after it may start."""
        return self.exit_code == 0 if self.kind == "init" else self.started


def phase(init: Sequence[ContainerState], main: Sequence[ContainerState]) -> str:
    """``Pending``, ``Running``, ``Succeeded`` or ``Failed``. Sidecars do not keep a pod alive."""
    if any(c.kind == "init" and c.final and c.exit_code != 0 for c in init):
        return "Failed"
    if all(c.final for c in main):
        failed = any(c.exit_code != 0 for c in main)
        return "Failed" if failed else "Succeeded"
    if not all(c.initialized for c in init) and not any(c.container_id for c in main):
        return "Pending"
    if any(c.waiting is not None and not c.last and not c.container_id for c in main):
        return "Pending"
    return "Running"


def pod_status(
    pod: Json,
    ip: str,
    host_ip: str,
    init: Sequence[ContainerState],
    main: Sequence[ContainerState],
    before: Json,
) -> Json:
    """The whole status; conditions keep the time of their last change from ``before``."""
    now = timestamp()
    current = phase(init, main)
    alive = current == "Running"
    conditions = {
        "PodReadyToStartContainers": bool(ip) and current in ("Pending", "Running"),
        "PodScheduled": True,
        "Initialized": all(c.initialized for c in init) or any(c.container_id for c in main),
        "ContainersReady": alive and all(c.is_ready for c in [*init, *main] if c.kind != "init"),
    }
    conditions["Ready"] = conditions["ContainersReady"]
    old = {c["type"]: c for c in before.get("conditions", [])}
    return {
        "phase": current,
        "hostIP": host_ip,
        "hostIPs": [{"ip": host_ip}],
        "podIP": ip,
        "podIPs": [{"ip": ip}] if ip else [],
        "startTime": before.get("startTime", now),
        "qosClass": pod["status"].get("qosClass", "BestEffort"),
        "conditions": [_condition(kind, value, old, now) for kind, value in conditions.items()],
        "initContainerStatuses": [c.to_json() for c in init],
        "containerStatuses": [c.to_json() for c in main],
    }


def _condition(kind: str, value: bool, old: dict[str, Json], now: str) -> Json:
    state = "True" if value else "False"
    changed = old.get(kind, {}).get("status") != state
    since = now if changed else old[kind]["lastTransitionTime"]
    return {"type": kind, "status": state, "lastTransitionTime": since}

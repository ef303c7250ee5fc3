"""What a container may ask of the pod that it belongs to."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from tests.cluster.node_agent.config import AgentConfig
from tests.cluster.node_agent.oci import Bind
from tests.cluster.node_agent.runtime import Crun
from tests.cluster.node_agent.sources import Sources
from tests.cluster.node_agent.status import Json
from tests.cluster.node_agent.volumes import Volumes


class Surroundings(Protocol):
    """Implemented by `pod.Pod`; ``etc_binds`` are the files that kubelet puts into /etc."""

    config: AgentConfig
    crun: Crun
    manifest: Json
    sources: Sources
    volumes: Volumes
    folder: Path
    etc_binds: list[Bind]
    present_images: set[str]

    @property
    def address(self) -> str: ...
    @property
    def network_path(self) -> str: ...
    def changed(self) -> None: ...
    def event(self, kind: str, reason: str, message: str, container: str = "") -> None: ...

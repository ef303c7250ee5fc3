"""What the agent is told at its start, in one JSON file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class AgentConfig:
    """Paths are absolute; ``host_ip`` is the bridge's address, which the API listens on too."""

    folder: str
    kubeconfig: str
    scheduler_kubeconfig: str
    node: str
    bridge: str
    subnet: str
    host_ip: str
    api_port: int
    sync_seconds: float = 5.0
    """How often Secret, ConfigMap and token volumes are looked at. A kubelet: 60 s and more."""
    backoff_seconds: float = 1.0
    """First wait before a container that failed again is restarted. A kubelet: 10 s."""
    backoff_limit_seconds: float = 30.0
    labels: dict[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def read(cls, path: Path) -> AgentConfig:
        return cls(**json.loads(path.read_text()))

    @property
    def pods(self) -> Path:
        """A folder for each pod, gone with it."""
        return Path(self.folder) / "pods"

    @property
    def logs(self) -> Path:
        """``NAMESPACE/POD/CONTAINER-ATTEMPT.log``: these stay."""
        return Path(self.folder) / "logs"

    @property
    def running(self) -> Path:
        """``NAMESPACE/POD/CONTAINER.json`` per running container: crun id, pid, OCI process.

        Environments are in there: only root may look.
        """
        return Path(self.folder) / "running"

    @property
    def node_root(self) -> Path:
        """Where ``hostPath`` volumes live, so that no pod touches the machine's own folders."""
        return Path(self.folder) / "node"

    @property
    def crun_state(self) -> Path:
        return Path(self.folder) / "crun"

    @property
    def images_file(self) -> Path:
        return Path(self.folder) / "images.json"

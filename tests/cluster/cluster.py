"""The cluster as tests use it: a control plane, a node, and helpers to look at both."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests.cluster import build
from tests.cluster.control_plane import ControlPlane
from tests.cluster.images import CHECKOUT, default_images
from tests.cluster.kube_api import MERGE, ApiError, KubeApi, Manifest, write_kubeconfig
from tests.cluster.network import Bridge, is_alive
from tests.cluster.node_agent.config import AgentConfig
from tests.cluster.node_agent.images import Image, write_registry
from tests.cluster.requirements_check import install_system_packages
from tests.harness.processes import Process, bare_environment, wait_for

T = TypeVar("T")
NODE = "node-1"

FOLDER_PREFIX = "escape-hub-cluster-"
"""Of a cluster's folder; the hexadecimal id of the process that owns it follows."""


def remove_leftovers() -> None:
    """Delete the folders of test runs that were killed; their processes died with them."""
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*-*"):
        owner = folder.name.removeprefix(FOLDER_PREFIX).split("-")[0]
        if not is_alive(owner):
            shutil.rmtree(folder, ignore_errors=True)


class Cluster:
    """A running cluster of one node, from construction until `stop`.

    ``host_ip`` is this machine's address for the pods and, with ``api_url``, where the API
    server listens; pods are reached from here at their own ``podIP``. ``api`` speaks as the
    administrator, which only tests may: the hub gets a `service_account_token`.
    """

    def __init__(self) -> None:
        install_system_packages()
        programs = build.build()
        remove_leftovers()
        self.folder = Path(tempfile.mkdtemp(prefix=f"{FOLDER_PREFIX}{os.getpid():x}-"))
        # Pods run as other users and see files below through their mounts.
        self.folder.chmod(0o711)
        self.bridge = Bridge()
        self.host_ip = self.bridge.host_ip
        self.control_plane = ControlPlane(
            self.folder / "control-plane", programs, address=self.host_ip, node=NODE
        )
        self.api_url = self.control_plane.api_url
        self.ca_file = self.control_plane.ca_file
        self.agent_config = self._configure_agent()
        self._images = default_images()
        write_registry(self.agent_config.images_file, self._images)
        self._agent = self._agent_process()
        try:
            self.control_plane.start()
            self.api = KubeApi(self.kubeconfig("admin"))
            self._agent.start()
            self._agent.wait_until("a node that is ready", self._node_is_ready, timeout=60)
            self._take_away_the_taint()
        except BaseException:
            self.stop()
            raise

    # --- identities ---------------------------------------------------------------------------

    def kubeconfig(self, role: str) -> Path:
        """Of ``admin``, ``scheduler``, ``controller-manager`` or ``node``."""
        return self.control_plane.kubeconfig(role)

    def service_account_token(self, namespace: str, name: str, *, seconds: int = 3600) -> str:
        """A TokenRequest token (600 s at least), as a pod of that account would hold."""
        path = self.api.path("ServiceAccount", namespace, name) + "/token"
        answer = self.api.request("POST", path, {"spec": {"expirationSeconds": seconds}})
        return str(answer["status"]["token"])

    def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """A kubeconfig with a fresh token: for ``KUBECONFIG`` of a hub outside the cluster."""
        path = self.folder / f"{namespace}-{name}.kubeconfig"
        token = self.service_account_token(namespace, name)
        return write_kubeconfig(path, self.api_url, self.ca_file, token=token, namespace=namespace)

    # --- objects ------------------------------------------------------------------------------

    def namespace(self, name: str, labels: dict[str, str] | None = None) -> str:
        """Make it and wait for its default service account, without which no pod is admitted."""
        meta = {"name": name, "labels": labels or {}}
        self.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": meta})
        self.wait(
            f"the default account of {name}",
            lambda: self.api.find("ServiceAccount", name, "default"),
        )
        return name

    def delete_namespace(self, name: str, *, timeout: float = 60.0) -> None:
        self.api.delete("Namespace", "", name)
        self.wait(
            f"namespace {name} to go", lambda: not self.api.find("Namespace", "", name), timeout
        )

    def apply(self, manifest: Manifest, strict: bool = True) -> Manifest:
        """Create or change one object; ``strict`` refuses fields that do not exist."""
        return self.api.apply(manifest, strict=strict)

    def pod(self, namespace: str, name: str) -> Manifest | None:
        return self.api.find("Pod", namespace, name)

    def events(self, namespace: str, name: str = "") -> list[Manifest]:
        """The events of a namespace, or about one object of it, oldest first."""
        found = self.api.list("Event", namespace)
        found = [e for e in found if not name or e["involvedObject"]["name"] == name]
        return sorted(found, key=lambda e: int(e["metadata"]["resourceVersion"]))

    def messages(self, namespace: str, reason: str) -> list[str]:
        """What the events of this reason say."""
        return [e["message"] for e in self.events(namespace) if e["reason"] == reason]

    def wait(self, what: str, check: Callable[[], T | None], timeout: float = 60.0) -> T:
        """`wait_for`, and an API server that is away for a moment is no failure."""

        def look() -> T | None:
            try:
                return check()
            except (ApiError, httpx.TransportError):
                return None

        return wait_for(what, look, timeout)  # type: ignore[return-value]

    def wait_pod(
        self, namespace: str, name: str, what: str, check: Callable[[Manifest], Any],
        timeout: float = 60.0,
    ) -> Manifest:  # fmt: skip
        """The pod, once ``check`` of it is true; a failure tells its status and events."""

        def look() -> Manifest | None:
            pod = self.pod(namespace, name)
            return pod if pod and check(pod) else None

        try:
            return self.wait(f"{namespace}/{name}: {what}", look, timeout)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.describe(namespace, name)}") from None

    def wait_gone(self, namespace: str, name: str, timeout: float = 60.0) -> None:
        gone = lambda: self.pod(namespace, name) is None  # noqa: E731
        self.wait(f"pod {namespace}/{name} to go", gone, timeout)

    def describe(self, namespace: str, name: str) -> str:
        """Status, events and logs of a pod, for a failure. Never for a pod that holds secrets."""
        pod = self.pod(namespace, name) or {}
        lines = [json.dumps(pod.get("status", "no such pod"))]
        lines += [f"{e['type']} {e['reason']}: {e['message']}" for e in self.events(namespace)]
        folder = self.agent_config.logs / namespace / name
        for path in sorted(folder.glob("*.log")):
            lines.append(f"--- {path.name}\n{path.read_text(errors='replace')[-1500:]}")
        return "\n".join([*lines, "--- node agent", self._agent.tail(25)])

    # --- pods from inside ---------------------------------------------------------------------

    def pod_log(self, namespace: str, pod: str, container: str) -> str:
        """What the container printed in all its runs; stays after the pod is gone."""
        folder = self.agent_config.logs / namespace / pod
        runs = sorted(folder.glob(f"{container}-*.log"), key=lambda p: int(p.stem.rsplit("-")[-1]))
        return "".join(path.read_text(errors="replace") for path in runs)

    def container_pid(self, namespace: str, pod: str, container: str) -> int:
        """The pid of the container's first process, as `on_node` sees it."""
        return int(self._running(namespace, pod, container)["pid"])

    def exec(
        self, namespace: str, pod: str, container: str, command: list[str], **options: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in a container as its user, with its environment."""
        found = self._running(namespace, pod, container)
        crun = ["crun", "--root", str(self.agent_config.crun_state), "exec", "--process"]
        with tempfile.NamedTemporaryFile("w", dir=self.folder, suffix=".json") as described:
            json.dump({**found["process"], "args": command}, described)
            described.flush()
            return self.on_node([*crun, described.name, found["id"]], **options)

    def on_node(self, command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command as root on the node: its mounts and processes, not its pods'."""
        within = ["nsenter", "--target", str(self._agent_pid()), "--mount", "--pid", "--"]
        options = {"capture_output": True, "text": True, "timeout": 60, **options}
        return subprocess.run([*within, *command], **options)

    def node_path(self, path: str) -> Path:
        """Where a ``hostPath`` of the pods is on the node; see mounts there with `on_node`."""
        return self.agent_config.node_root / path.lstrip("/")

    def add_image(self, name: str, image: Image) -> None:
        """From now on pods may use ``name``."""
        self._images[name] = image
        write_registry(self.agent_config.images_file, self._images)

    # --- outage and end -----------------------------------------------------------------------

    def stop_api(self) -> None:
        """The API server is away from now on; pods go on running."""
        self.control_plane.stop_api()

    def start_api(self) -> None:
        """Return once it answers again (2-3 s). Does nothing when it is running."""
        if not self.control_plane.api_is_running():
            self.control_plane.start_api()

    def stop(self) -> None:
        """End every process and mount of the cluster; its folder goes too."""
        if hasattr(self, "api"):
            self.api.close()
        if self._agent.alive():
            # The first process of its pid namespace: it has ended when every container has.
            os.kill(self._agent_pid(), signal.SIGKILL)
            self._agent.exit_code()
        self.control_plane.stop()
        self.bridge.remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    def logs(self) -> str:
        return f"{self.control_plane.log_tails()}\n--- node agent\n{self._agent.tail(40)}"

    def _configure_agent(self) -> AgentConfig:
        folder = self.folder / "node-agent"
        folder.mkdir(mode=0o711)
        config = AgentConfig(
            folder=str(folder),
            kubeconfig=str(self.kubeconfig("node")),
            scheduler_kubeconfig=str(self.kubeconfig("scheduler")),
            node=NODE,
            bridge=self.bridge.name,
            subnet=str(self.bridge.subnet),
            host_ip=self.host_ip,
            api_port=self.control_plane.port,
        )
        config.write(folder / "config.json")
        return config

    def _agent_process(self) -> Process:
        command = [
            *("setpriv", "--pdeathsig", "KILL", "--"),
            *("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"),
            *(sys.executable, "-m", "tests.cluster.node_agent"),
            str(self.folder / "node-agent/config.json"),
        ]
        env = bare_environment() | {"PYTHONPATH": str(CHECKOUT)}
        return Process("node-agent", command, directory=self.folder / "node-agent", env=env)

    def _agent_pid(self) -> int:
        """``unshare`` is the agent's parent, outside of its namespaces."""
        children = Path(f"/proc/{self._agent.pid}/task/{self._agent.pid}/children").read_text()
        return int(children.split()[0])

    def _running(self, namespace: str, pod: str, container: str) -> dict[str, Any]:
        path = self.agent_config.running / namespace / pod / f"{container}.json"
        found: dict[str, Any] = json.loads(path.read_text())
        return found

    def _take_away_the_taint(self) -> None:
        """Admission taints a new node as not ready, and DaemonSets keep off it until somebody
        who may do so says otherwise: the node-lifecycle controller, which does not run here."""
        path = self.api.path("Node", "", NODE)
        self.api.request("PATCH", path, {"spec": {"taints": None}}, content_type=MERGE)

    def _node_is_ready(self) -> bool:
        node = self.api.find("Node", "", NODE)
        conditions = (node or {}).get("status", {}).get("conditions", [])
        return any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)

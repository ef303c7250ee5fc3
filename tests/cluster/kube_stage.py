"""A real hub whose sessions are pods of the test cluster, and what a test asks of both."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.cluster.cluster import Cluster
from tests.cluster.images import CHECKOUT, HOST_IMAGE
from tests.cluster.kube_api import Manifest
from tests.cluster.manifests import states
from tests.cluster.node_agent.images import Image
from tests.harness import Person
from tests.harness.processes import wait_for
from tests.harness.stage import Stage

MANIFESTS = CHECKOUT / "hub_config/manifests"
SIDECAR_IMAGE = "escape-hub-test/session:1"
MISSING_IMAGE = "escape-hub-test/missing:1"

#: Without a wish the hub starts what the person had last.
PYTHON = {"profile": "python"}
CATALOGUE = f"""
environments:
  python: {{name: Python, default: true, kubernetes: {{image: "{HOST_IMAGE}"}}}}
  gone: {{name: Gone, kubernetes: {{image: "{MISSING_IMAGE}"}}}}
  own:
    name: With the extension
    kubernetes: {{image: "{HOST_IMAGE}", kubespawner_override: {{delivery: extension}}}}
"""
CONFIG = """
c.JupyterHub.spawner_class = "escape-kube"
c.JupyterHub.hub_bind_url = c.JupyterHub.hub_connect_url = {hub_url!r}
c.EscapeSpawnerMixin.environments_file = {environments!r}
c.EscapeKubeSpawner.token_dir = "/run/escape-hub/{{session}}"
c.EscapeKubeSpawner.sidecar_image = {sidecar_image!r}
c.EscapeKubeSpawner.lake_mounts = {{}}
c.KubeSpawner.namespace = {namespace!r}
c.KubeSpawner.cmd = ["jupyterhub-singleuser"]
c.Spawner.args = []
c.KubeSpawner.uid = 1000
c.KubeSpawner.gid = 100
c.KubeSpawner.fs_gid = 100
c.KubeSpawner.delete_grace_period = 5
c.EscapeKubeSpawner.image_patience = 5
c.KubeSpawner.container_security_context = {{
    "runAsNonRoot": True,
    "capabilities": {{"drop": ["ALL"]}},
    "seccompProfile": {{"type": "RuntimeDefault"}},
}}
c.JupyterHub.tornado_settings = {{"slow_spawn_timeout": 3}}
{extra}
"""


def sidecar_image() -> Image:
    """A bare Python with the package's sources: no dependency is installed there."""
    base = Path(sys.base_prefix).resolve()
    binds = [str(CHECKOUT / "escape_hub")]
    if not base.is_relative_to("/usr"):
        binds.append(str(base))
    path = f"{base}/bin:/usr/local/bin:/usr/bin:/bin"
    env = {"PATH": path, "PYTHONPATH": str(CHECKOUT), "PYTHONDONTWRITEBYTECODE": "1"}
    return Image(user=65532, group=65532, env=env, binds=binds)


def grant_the_shipped_role(cluster: Cluster, namespace: str) -> Path:
    """A kubeconfig of the hub's ServiceAccount with exactly what `rbac.yaml` gives it."""
    for manifest in yaml.safe_load_all((MANIFESTS / "rbac.yaml").read_text()):
        manifest["metadata"]["namespace"] = namespace
        for subject in manifest.get("subjects", []):
            subject["namespace"] = namespace
        cluster.apply(manifest)
    return cluster.service_account_kubeconfig(namespace, "hub")


class KubeStage(Stage):
    """As `Stage`, its sessions pods in ``namespace``."""

    def __init__(
        self,
        directory: Path,
        cluster: Cluster,
        namespace: str,
        *,
        extra: str = "",
        hub_options: dict[str, Any] | None = None,
        **iam_options: Any,
    ) -> None:
        super().__init__(directory, hub_options or {}, iam_options)
        self.cluster, self.namespace = cluster, namespace
        self._people: list[Person] = []
        cluster.add_image(SIDECAR_IMAGE, sidecar_image())
        environments = directory / "environments.yaml"
        environments.write_text(CATALOGUE)
        kubeconfig = grant_the_shipped_role(cluster, namespace)
        self.hub.more_environment["KUBECONFIG"] = str(kubeconfig)
        self.hub.extra = CONFIG.format(
            hub_url=f"http://{cluster.host_ip}:{self.hub.hub_port}",
            environments=str(environments),
            sidecar_image=SIDECAR_IMAGE,
            namespace=namespace,
            extra=extra,
        )

    def person(self, name: str = "alice") -> Person:
        """Signed in; their browser is closed with the stage."""
        person = Person(self.hub.url, name)
        self._people.append(person)
        person.login()
        person.client.get(f"{self.hub.url}hub/home")
        return person

    def close(self) -> None:
        for person in self._people:
            person.close()
        super().close()

    # -- pods ------------------------------------------------------------------------------

    def pods(self) -> list[Manifest]:
        return self.cluster.api.list("Pod", self.namespace)

    def pod_of(self, name: str = "alice") -> Manifest:
        found = self.cluster.pod(self.namespace, f"jupyter-{name}")
        assert found is not None
        return found

    def in_notebook(self, command: list[str], name: str = "alice") -> str:
        done = self.cluster.exec(self.namespace, f"jupyter-{name}", "notebook", command)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    def everything_public(self) -> dict[str, str]:
        """What operators see of sessions: pods, events, logs of containers, the hub's log."""
        events = self.cluster.events(self.namespace)
        logs = self.cluster.agent_config.logs / self.namespace
        found = {
            "pods": json.dumps(self.pods()),
            "events": json.dumps(events),
            "hub log": self.hub.log_text,
        }
        for path in sorted(logs.rglob("*.log")):
            found[f"log {path.relative_to(logs)}"] = path.read_text(errors="replace")
        return found

    # -- starts that fail --------------------------------------------------------------------

    def failed_start(
        self, person: Person, options: dict[str, Any] | None = None, timeout: float = 120
    ) -> tuple[int, str]:
        """Ask for a server that does not come up: status and text of the page that says so."""
        answer = person.api("POST", f"users/{person.name}/server", json=options or PYTHON)
        if answer.status_code not in (201, 202):
            # Refused at once: the page of a form says the same.
            return answer.status_code, answer.json()["message"]
        wait_for("the start to fail", lambda: not self.pending(person), timeout, every=0.3)
        page = person.client.get(f"{self.hub.url}hub/spawn-pending/{person.name}")
        return page.status_code, page.text

    def pending(self, person: Person) -> bool:
        answer = person.api("GET", f"users/{person.name}")
        return bool(answer.json()["servers"].get("", {}).get("pending"))


@contextmanager
def outage(cluster: Cluster) -> Iterator[None]:
    """The API is away for as long as the block runs."""
    cluster.stop_api()
    try:
        yield
    finally:
        cluster.start_api()


def wait_until(moment: float) -> None:
    """Sleep up to ``time.monotonic()`` = ``moment``: how long an outage lasts is the test."""
    while (left := moment - time.monotonic()) > 0:
        time.sleep(min(left, 0.5))


def answers(url: str) -> bool:
    """Whether a running session answers through the proxy."""
    try:
        return httpx.get(url, timeout=5).status_code < 500
    except httpx.TransportError:
        return False


def exists_ready(pod: Manifest) -> bool:
    return all(s.get("ready") for s in states(pod).values())


class PodFile:
    """A file in a session's notebook container, for those who expect a ``Path``."""

    def __init__(self, stage: KubeStage, path: str) -> None:
        self._stage, self.path = stage, path

    def exists(self) -> bool:
        return True

    def read_text(self) -> str:
        return self._stage.in_notebook(["sh", "-c", f"cat {self.path} 2>/dev/null || true"])

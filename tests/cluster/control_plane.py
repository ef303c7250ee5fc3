"""A real control plane: etcd, kube-apiserver, kube-controller-manager, as processes.

Authorizers Node and RBAC; admission as Kubernetes has it by default (ServiceAccount,
ResourceQuota, PodSecurity, LimitRanger, ...) plus NodeRestriction. Everything lives in one
folder, listens on addresses of this machine only, and dies with the process that started it.
The controller-manager is no luxury: without it there are no default service accounts, a
ResourceQuota limits nothing and a namespace never goes away.
"""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

from tests.cluster.certificates import CertificateAuthority, CertificateFiles, write_key_pair
from tests.cluster.kube_api import KubeApi, write_kubeconfig
from tests.harness.processes import Process, bare_environment

CONTROLLERS = [
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "root-ca-certificate-publisher-controller",
    "resourcequota-controller",
    "namespace-controller",
    "garbage-collector-controller",
    "pod-garbage-collector-controller",
    "job-controller",
    "cronjob-controller",
    "ttl-after-finished-controller",
    "deployment-controller",
    "replicaset-controller",
    "statefulset-controller",
    "daemonset-controller",
    "disruption-controller",
    "endpoints-controller",
    "endpointslice-controller",
    "persistentvolume-protection-controller",
    "persistentvolumeclaim-protection-controller",
]
"""Left out: node-lifecycle, which would evict pods while the node agent is held back."""

ROLES = {
    "admin": ("test-admin", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", None),
    "scheduler": ("system:kube-scheduler", None),
}
"""Identities with a kubeconfig: role -> (user, group). ``node`` is added per node name."""


def free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


class ControlPlane:
    """Start with `start`, end with `stop`; `stop_api` and `start_api` make an outage.

    ``address`` is where the API server listens: loopback, or a bridge that only this
    machine and its pods are on.
    """

    def __init__(
        self, folder: Path, programs: Path, *, address: str = "127.0.0.1", node: str = "node-1"
    ) -> None:
        self.folder, self.programs, self.address = folder, programs, address
        self.pki, self.logs = folder / "pki", folder / "logs"
        for made in (self.pki, self.logs):
            made.mkdir(mode=0o700, parents=True)
        self.port = free_port(address)
        self.api_url = f"https://{address}:{self.port}"
        self._etcd_ports = (free_port("127.0.0.1"), free_port("127.0.0.1"))
        self._authority = CertificateAuthority(self.pki)
        self.ca_file = self._authority.file
        self._roles = {**ROLES, "node": (f"system:node:{node}", "system:nodes")}
        self._identities = self._make_identities()
        self._serving = self._authority.server(
            "server", [address, "127.0.0.1", "localhost", "kubernetes.default.svc"]
        )
        self._token_keys = (self.pki / "sa.key", self.pki / "sa.pub")
        write_key_pair(*self._token_keys)
        self._etcd = self._process("etcd", self._etcd_arguments())
        self._api = self._process("kube-apiserver", self._api_arguments())
        self._controllers = self._process("kube-controller-manager", self._controller_arguments())

    def kubeconfig(self, role: str) -> Path:
        """The kubeconfig of ``admin``, ``scheduler``, ``controller-manager`` or ``node``."""
        return self._identities[role]

    def start(self) -> None:
        """Return once the API server is ready and the controllers have been started (3-4 s)."""
        self._etcd.start()
        self.start_api()

    def start_api(self) -> None:
        """Start the API server; the outage ends when this returns.

        The controllers start afresh: after an outage their informers wait longer and longer
        before they look again, and a namespace would take most of a minute to go.
        """
        self._api.start()
        admin = KubeApi(self.kubeconfig("admin"))
        scheduler = KubeApi(self.kubeconfig("scheduler"))
        try:
            self._api.wait_until("the API server", lambda: _ready(admin, scheduler), timeout=60)
        finally:
            admin.close()
            scheduler.close()
        self._controllers.start()

    def stop_api(self) -> None:
        """The API server is gone at once, as when its machine loses power."""
        self._controllers.stop(signal.SIGKILL)
        self._api.stop(signal.SIGKILL)

    def api_is_running(self) -> bool:
        return self._api.alive()

    def stop(self) -> None:
        self.stop_api()
        self._etcd.stop(signal.SIGKILL)

    def log_tails(self) -> str:
        """The last lines of each program, for a failure."""
        parts = (self._etcd, self._api, self._controllers)
        return "\n".join(f"--- {part.name}\n{part.tail(15)}" for part in parts)

    def _make_identities(self) -> dict[str, Path]:
        made = {}
        for role, (user, group) in self._roles.items():
            files = self._authority.client(role, user, group)
            path = self.pki / f"{role}.kubeconfig"
            made[role] = write_kubeconfig(path, self.api_url, self.ca_file, files=files)
        return made

    def _process(self, name: str, arguments: list[str]) -> Process:
        # The kernel ends the process with its parent, also when the tests are killed.
        command = ["setpriv", "--pdeathsig", "KILL", "--", str(self.programs / name), *arguments]
        env = bare_environment() | {"GOMAXPROCS": str(os.cpu_count() or 1)}
        return Process(name, command, directory=self.logs, env=env)

    def _etcd_arguments(self) -> list[str]:
        client, peer = (f"https://127.0.0.1:{port}" for port in self._etcd_ports)
        files = self._authority.server("etcd", ["127.0.0.1"])
        flags = []
        for prefix in ("", "peer-"):
            flags += [f"--{prefix}cert-file={files.certificate}", f"--{prefix}key-file={files.key}"]
            flags += [f"--{prefix}trusted-ca-file={self.ca_file}", f"--{prefix}client-cert-auth"]
        return [
            f"--data-dir={self.folder / 'etcd'}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=default={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
            *flags,
        ]

    def _api_arguments(self) -> list[str]:
        etcd: CertificateFiles = self._authority.client("etcd-client", "kube-apiserver")
        private, public = self._token_keys
        return [
            f"--etcd-servers=https://127.0.0.1:{self._etcd_ports[0]}",
            f"--etcd-cafile={self.ca_file}",
            f"--etcd-certfile={etcd.certificate}",
            f"--etcd-keyfile={etcd.key}",
            f"--bind-address={self.address}",
            f"--advertise-address={self.address}",
            f"--secure-port={self.port}",
            f"--tls-cert-file={self._serving.certificate}",
            f"--tls-private-key-file={self._serving.key}",
            f"--client-ca-file={self.ca_file}",
            "--authorization-mode=Node,RBAC",
            "--enable-admission-plugins=NodeRestriction",
            "--allow-privileged",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={public}",
            f"--service-account-signing-key-file={private}",
            "--service-cluster-ip-range=10.96.0.0/24",
            "--endpoint-reconciler-type=none",
        ]

    def _controller_arguments(self) -> list[str]:
        config = self.kubeconfig("controller-manager")
        return [
            f"--kubeconfig={config}",
            f"--authentication-kubeconfig={config}",
            f"--authorization-kubeconfig={config}",
            "--bind-address=127.0.0.1",
            "--secure-port=0",
            "--leader-elect=false",
            f"--root-ca-file={self.ca_file}",
            f"--service-account-private-key-file={self._token_keys[0]}",
            "--use-service-account-credentials",
            f"--controllers={','.join(CONTROLLERS)}",
            "--resource-quota-sync-period=10s",
            "--namespace-sync-period=10s",
        ]


def _ready(admin: KubeApi, scheduler: KubeApi) -> bool:
    """Ready, and RBAC has read its roles: until then it refuses every rightful request."""
    try:
        admin.request("GET", "/readyz")
        return bool(scheduler.list("Node") is not None)
    except Exception:  # noqa: BLE001 - refused, reset, 403 and half an answer all mean: not yet
        return False

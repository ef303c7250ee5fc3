"""A lake for the test node: a real XRootD server, and its FUSE mount as a DaemonSet makes it.

EOS itself is not to be had here; its mount is FUSE as well, made by a privileged pod, and
reaches sessions by the same propagation.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path

from tests.cluster.cluster import Cluster
from tests.cluster.control_plane import free_port
from tests.cluster.kube_api import Manifest
from tests.cluster.manifests import container, is_ready, pod
from tests.cluster.requirements_check import debian_packages
from tests.harness.processes import Process, bare_environment

PACKAGES = ["xrootd-server", "xrootd-server-plugins", "xrootd-client-plugins", "xrootd-fuse"]
CONFIG = """\
all.export /
oss.localroot {folder}/data
all.adminpath {folder}/adm
all.pidpath {folder}/run
xrd.port {port}
xrd.network nodnr
"""


class Origin:
    """An XRootD server at the node's address, serving ``folder``/data."""

    def __init__(self, folder: Path, address: str) -> None:
        if not all(shutil.which(program) for program in ("xrootd", "xrootdfs")):
            debian_packages(PACKAGES, why="the test of the lake's mount needs XRootD")
        self.folder, self.address, self.port = folder, address, free_port(address)
        self.data = folder / "data"
        for name in ("data", "adm", "run"):
            (folder / name).mkdir(parents=True)
        (folder / "xrootd.cfg").write_text(CONFIG.format(folder=folder, port=self.port))
        # It refuses to run as root.
        command = ["setpriv", "--pdeathsig", "KILL", "--reuid=xrootd", "--regid=xrootd"]
        command += ["--clear-groups", "xrootd", "-c", str(folder / "xrootd.cfg"), "-n", "lake"]
        self._process = Process("xrootd", command, directory=folder, env=bare_environment())

    def start(self) -> Origin:
        for path in [self.folder, *self.folder.rglob("*")]:
            shutil.chown(path, "xrootd", "xrootd")
        self._process.start()
        self._process.wait_until("XRootD", lambda: "initialization completed" in self.log(), 20)
        return self

    def log(self) -> str:
        # Its own log is in a folder of its name, unless it writes to standard error.
        own = self.folder / "lake"
        files = [p for p in own.rglob("*log*") if p.is_file()] if own.exists() else []
        return self._process.log_text + "".join(p.read_text(errors="replace") for p in files)

    def stop(self) -> None:
        self._process.stop(signal.SIGKILL)

    def put(self, name: str, text: str) -> None:
        path = self.data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        for one in (path.parent, path):
            shutil.chown(one, "xrootd", "xrootd")


def mounting_pod(namespace: str, name: str, origin: Origin, path: str) -> Manifest:
    """Mounts the lake at ``path`` of the node, as the 2021 DaemonSet of eosxd does.

    What a dead predecessor left there is taken away first.
    """
    parent, _, last = path.rpartition("/")
    script = (
        f"umount -l {path} 2>/dev/null; mkdir -p {path};"
        f" exec xrootdfs -f {path} -o rdr=root://{origin.address}:{origin.port}//,allow_other"
    )
    main = container(
        "main",
        script,
        securityContext={"privileged": True, "runAsUser": 0},
        volumeMounts=[
            {"name": "lake", "mountPath": parent, "mountPropagation": "Bidirectional"},
        ],
        readinessProbe={
            "exec": {"command": ["sh", "-c", f"grep -q ' {path} fuse' /proc/mounts"]},
            "periodSeconds": 1,
        },
    )
    volume = {"name": "lake", "hostPath": {"path": parent, "type": "DirectoryOrCreate"}}
    return pod(namespace, name, main, volumes=[volume], hostNetwork=True)


def mount(cluster: Cluster, namespace: str, name: str, origin: Origin, path: str) -> None:
    cluster.apply(mounting_pod(namespace, name, origin, path))
    cluster.wait_pod(namespace, name, "the lake's mount", is_ready, timeout=30)


def unmount_all(cluster: Cluster, path: str) -> None:
    """Nothing of it stays on the node, whoever died."""
    place = cluster.node_path(path)
    for _ in range(3):
        if cluster.on_node(["umount", "-l", str(place)]).returncode:
            return


def fuse_is_there() -> bool:
    return os.path.exists("/dev/fuse") and not subprocess.run(["which", "fusermount"]).returncode

"""The lake in a session: its mount, and the token file as EOS's own mount would read it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import lake
from tests.cluster.cluster import Cluster
from tests.cluster.images import CHECKOUT
from tests.cluster.kube_stage import PYTHON, KubeStage
from tests.cluster.manifests import container, is_ready, pod
from tests.harness.processes import wait_for

READER = str(CHECKOUT / "tests/cluster/eos_reader.py")
EXTRA = """
c.EscapeKubeSpawner.lake_mounts = {
    "/eos/eulake_1": "/var/eos/eulake_1",
    "/scratch": "/var/scratch",
}
"""
ON_NODE = "/var/eos/eulake_1"


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Iterator[KubeStage]:
    namespace = cluster.namespace("lake")
    scratch = cluster.node_path("/var/scratch")
    scratch.mkdir(parents=True)
    scratch.chmod(0o1777)
    with KubeStage(tmp_path_factory.mktemp("lake"), cluster, namespace, extra=EXTRA) as running:
        alice = running.person()
        alice.spawn(PYTHON)
        yield running
        alice.stop_server()
    assert running.leaks() == []
    cluster.delete_namespace(namespace)


# -- a reader like eosxd ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def eosxd(stage: KubeStage) -> str:
    """A privileged pod that sees the node's processes, from a mount namespace of its own."""
    privileged = {"privileged": True, "runAsUser": 0}
    main = container("main", securityContext=privileged)
    stage.cluster.apply(pod(stage.namespace, "eosxd", main, hostPID=True))
    stage.cluster.wait_pod(stage.namespace, "eosxd", "ready", is_ready)
    return "eosxd"


def read(stage: KubeStage, eosxd: str, path: str = "") -> dict[str, Any]:
    pid = stage.cluster.container_pid(stage.namespace, "jupyter-alice", "notebook")
    command = ["python3", READER, str(pid), *([path] if path else [])]
    done = stage.cluster.exec(stage.namespace, eosxd, "main", command)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_a_reader_like_eosxd_accepts_the_sessions_file(stage: KubeStage, eosxd: str) -> None:
    found = read(stage, eosxd)
    assert found["accepted"], found["why"]
    kind, token, endpoint = found["token"].split(":")
    assert (kind, endpoint) == ("oauth2", "iam.example.org/userinfo")
    assert stage.iam.introspect(token)["active"] is True


@pytest.mark.parametrize(
    ("prepare", "path", "why"),
    [
        ("cp $D/eos.token $D/wide; chmod 0640 $D/wide", "/run/escape-hub/alice/wide", "0640"),
        ("ln -s eos.token $D/link", "/run/escape-hub/alice/link", "link: a symbolic link"),
        ("ln -s $D /tmp/way", "/tmp/way/eos.token", "way: "),
        ("true", "/run/escape-hub/alice/none", "No such file"),
        ("mkdir $D/dir", "/run/escape-hub/alice/dir", "no regular file"),
    ],
)
def test_it_refuses_what_eos_would_refuse(
    stage: KubeStage, eosxd: str, prepare: str, path: str, why: str
) -> None:
    stage.in_notebook(["sh", "-c", f"D=/run/escape-hub/alice; {prepare}"])
    found = read(stage, eosxd, path)
    assert not found["accepted"]
    assert why in found["why"]


def test_it_refuses_a_file_of_somebody_else(stage: KubeStage, eosxd: str) -> None:
    pid = stage.cluster.container_pid(stage.namespace, "jupyter-alice", "notebook")
    own = f"/proc/{pid}/root/run/escape-hub/alice"
    script = f"cp {own}/eos.token {own}/foreign; chown 1001 {own}/foreign; chmod 0600 {own}/foreign"
    stage.cluster.on_node(["sh", "-c", script], check=True)
    found = read(stage, eosxd, "/run/escape-hub/alice/foreign")
    assert found == {"accepted": False, "why": "owner is 1001, not 1000"}


# -- scratch -----------------------------------------------------------------------------------


def test_the_scratch_directory_is_the_users_own(stage: KubeStage) -> None:
    assert stage.in_notebook(["stat", "-c", "%a %u", "/scratch/alice"]) == "700 1000\n"
    status = json.loads(stage.in_notebook(["cat", "/run/escape-hub/alice/status.json"]))
    assert status["notes"] == []


# -- the mount -----------------------------------------------------------------------------------


@pytest.fixture
def origin(stage: KubeStage, tmp_path: Path) -> Iterator[lake.Origin]:
    folder = stage.cluster.folder / "lake"
    folder.mkdir(mode=0o755)
    running = lake.Origin(folder, stage.cluster.host_ip)
    running.put("data/hello", "from the lake\n")
    running.start()
    yield running
    running.stop()
    lake.unmount_all(stage.cluster, ON_NODE)


READ_IT = ["cat", "/eos/eulake_1/data/hello"]


def sees(stage: KubeStage, who: str, name: str) -> bool:
    """A mount whose daemon died may hang for a while; that is not seeing."""
    place = (stage.namespace, f"jupyter-{who}", "notebook")
    try:
        done = stage.cluster.exec(*place, ["ls", "/eos/eulake_1/data"], timeout=5)
    except subprocess.TimeoutExpired:
        return False
    return name in done.stdout


def restart_the_mount(stage: KubeStage, old: str, new: str, origin: lake.Origin) -> None:
    """Its daemon dies with its pod, at once, and leaves a broken mount behind."""
    stage.cluster.api.delete("Pod", stage.namespace, old, gracePeriodSeconds=0)
    stage.cluster.wait_gone(stage.namespace, old)
    origin.put(f"data/{new}", "after the restart\n")
    lake.mount(stage.cluster, stage.namespace, new, origin, ON_NODE)


def test_a_mount_made_later_and_made_again_shows_up_in_a_running_session(
    stage: KubeStage, origin: lake.Origin
) -> None:
    assert "hello" not in stage.in_notebook(["ls", "-R", "/eos"])
    lake.mount(stage.cluster, stage.namespace, "first", origin, ON_NODE)
    wait_for("the lake in the session", lambda: sees(stage, "alice", "hello"), 20)
    assert stage.in_notebook(READ_IT) == "from the lake\n"

    restart_the_mount(stage, "first", "second", origin)
    wait_for("the lake to come back", lambda: sees(stage, "alice", "second"), 20)
    assert stage.in_notebook(READ_IT) == "from the lake\n"

    # The same for a session that was started when the mount was there.
    bob = stage.person("bob")
    bob.spawn(PYTHON)
    assert stage.in_notebook(READ_IT, "bob") == "from the lake\n"
    restart_the_mount(stage, "second", "third", origin)
    for who in ("alice", "bob"):
        wait_for(f"the lake to come back to {who}", lambda w=who: sees(stage, w, "third"), 20)
    bob.stop_server()

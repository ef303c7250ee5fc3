"""Volumes follow kubelet's rules, the inconvenient ones included."""

from __future__ import annotations

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.manifests import container, is_ready, mount, pod

STAT = 'stat -c "%a %u:%g" '
AS_ALICE = {"runAsUser": 1000, "runAsGroup": 100, "fsGroup": 100}


def config_object(kind: str, namespace: str, name: str, **data: str) -> dict[str, object]:
    field = "stringData" if kind == "Secret" else "data"
    meta = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": kind, "metadata": meta, field: data}


def run(cluster: Cluster, namespace: str, name: str, script: str) -> str:
    done = cluster.exec(namespace, name, "main", ["sh", "-c", script])
    return (done.stdout + done.stderr).strip()


def test_a_private_secret_becomes_readable_for_the_group(cluster: Cluster, namespace: str) -> None:
    """The trap: mode 0600 and fsGroup 100 make 0640 root:100, behind symlinks."""
    cluster.apply(config_object("Secret", namespace, "token", token="first"))
    source = {"secretName": "token", "defaultMode": 0o600}
    cluster.apply(
        pod(
            namespace,
            "reader",
            container("main", volumeMounts=[mount("token", "/token")]),
            volumes=[{"name": "token", "secret": source}],
            securityContext=AS_ALICE,
        )
    )
    cluster.wait_pod(namespace, "reader", "ready", is_ready)
    assert run(cluster, namespace, "reader", f"{STAT} -L /token/token") == "640 0:100"
    assert run(cluster, namespace, "reader", "readlink /token/token") == "..data/token"
    assert run(cluster, namespace, "reader", "cat /token/token") == "first"


def test_without_a_group_a_private_secret_is_roots_alone(cluster: Cluster, namespace: str) -> None:
    cluster.apply(config_object("Secret", namespace, "token", token="first"))
    source = {"secretName": "token", "defaultMode": 0o600}
    cluster.apply(
        pod(
            namespace,
            "reader",
            container("main", volumeMounts=[mount("token", "/token")]),
            volumes=[{"name": "token", "secret": source}],
            securityContext={"runAsUser": 1000},
        )
    )
    cluster.wait_pod(namespace, "reader", "ready", is_ready)
    assert run(cluster, namespace, "reader", f"{STAT} -L /token/token") == "600 0:0"
    assert "Permission denied" in run(cluster, namespace, "reader", "cat /token/token")


def test_a_process_can_own_a_private_file_in_a_memory_volume(
    cluster: Cluster, namespace: str
) -> None:
    """Which is why the session's token files are written inside the pod."""
    script = "umask 077; mkdir /tokens/alice; echo t > /tokens/alice/token; " + (
        "trap 'exit 0' TERM; while :; do sleep 0.1; done"
    )
    memory = {"medium": "Memory", "sizeLimit": "4Mi"}
    cluster.apply(
        pod(
            namespace,
            "writer",
            container("main", script, volumeMounts=[mount("tokens", "/tokens")]),
            volumes=[{"name": "tokens", "emptyDir": memory}],
            securityContext=AS_ALICE,
        )
    )
    cluster.wait_pod(namespace, "writer", "ready", is_ready)
    # Sticky as the kernel makes a tmpfs, setgid as kubelet makes a volume with an fsGroup.
    assert run(cluster, namespace, "writer", f"{STAT} /tokens") == "3777 0:100"
    assert run(cluster, namespace, "writer", f"{STAT} /tokens/alice/token") == "600 1000:100"
    # A folder made in a setgid folder is setgid too: 2700, which is not 0700.
    assert run(cluster, namespace, "writer", f"{STAT} /tokens/alice") == "2700 1000:100"
    said = run(cluster, namespace, "writer", "head -c 5M /dev/zero > /tokens/alice/big")
    assert "No space left" in said


def test_an_ordinary_empty_folder_belongs_to_the_group(cluster: Cluster, namespace: str) -> None:
    cluster.apply(
        pod(
            namespace,
            "writer",
            container("main", volumeMounts=[mount("work", "/work")]),
            volumes=[{"name": "work", "emptyDir": {}}],
            securityContext=AS_ALICE,
        )
    )
    cluster.wait_pod(namespace, "writer", "ready", is_ready)
    assert run(cluster, namespace, "writer", f"{STAT} /work") == "2777 0:100"


def test_a_changed_secret_arrives_in_the_volume_but_never_in_a_subpath(
    cluster: Cluster, namespace: str
) -> None:
    cluster.apply(config_object("Secret", namespace, "token", token="first"))
    cluster.apply(config_object("ConfigMap", namespace, "settings", colour="blue"))
    mounts = [
        mount("token", "/token"),
        mount("token", "/fixed", subPath="token"),
        mount("settings", "/settings"),
    ]
    environment = [
        {
            "name": "COLOUR",
            "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "colour"}},
        },
        {"name": "WHERE", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "BOTH", "value": "$(COLOUR) at $(WHERE), $$(COLOUR), $(UNKNOWN)"},
    ]
    cluster.apply(
        pod(
            namespace,
            "reader",
            container("main", volumeMounts=mounts, env=environment),
            volumes=[
                {"name": "token", "secret": {"secretName": "token"}},
                {"name": "settings", "configMap": {"name": "settings"}},
            ],
        )
    )
    found = cluster.wait_pod(namespace, "reader", "ready", is_ready)
    address = found["status"]["podIP"]
    both = run(cluster, namespace, "reader", "cat /settings/colour; echo; echo $BOTH")
    assert both == f"blue\nblue at {address}, $(COLOUR), $(UNKNOWN)"

    cluster.apply(config_object("Secret", namespace, "token", token="second"))
    cluster.wait(
        "the new secret in the pod",
        lambda: run(cluster, namespace, "reader", "cat /token/token") == "second",
    )
    assert run(cluster, namespace, "reader", "cat /fixed") == "first"


def test_a_missing_secret_holds_the_pod_back_and_says_so(cluster: Cluster, namespace: str) -> None:
    cluster.apply(
        pod(
            namespace,
            "waiting",
            container("main", volumeMounts=[mount("token", "/token")]),
            volumes=[{"name": "token", "secret": {"secretName": "late"}}],
        )
    )
    words = 'MountVolume.SetUp failed for volume "token" : secret "late" not found'
    cluster.wait("the event", lambda: words in [e["message"] for e in cluster.events(namespace)])
    found = cluster.pod(namespace, "waiting")
    assert found is not None
    assert found["status"]["phase"] == "Pending"

    cluster.apply(config_object("Secret", namespace, "late", token="here"))
    cluster.wait_pod(namespace, "waiting", "ready", is_ready)
    assert run(cluster, namespace, "waiting", "cat /token/token") == "here"


def test_a_projected_account_token_belongs_to_the_pods_user(
    cluster: Cluster, namespace: str
) -> None:
    sources = [
        {"serviceAccountToken": {"path": "token", "audience": "lake", "expirationSeconds": 600}},
        {"downwardAPI": {"items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}]}},
    ]
    cluster.apply(
        pod(
            namespace,
            "reader",
            container("main", volumeMounts=[mount("account", "/account")]),
            volumes=[{"name": "account", "projected": {"sources": sources}}],
            securityContext={"runAsUser": 1000},
            automountServiceAccountToken=False,
        )
    )
    cluster.wait_pod(namespace, "reader", "ready", is_ready)
    assert run(cluster, namespace, "reader", f"{STAT} -L /account/token") == "600 1000:0"
    assert run(cluster, namespace, "reader", "cat /account/name") == "reader"
    token = run(cluster, namespace, "reader", "cat /account/token")
    review = {"spec": {"token": token, "audiences": ["lake"]}}
    path = "/apis/authentication.k8s.io/v1/tokenreviews"
    status = cluster.api.request("POST", path, review)["status"]
    assert status["user"]["extra"]["authentication.kubernetes.io/pod-name"] == ["reader"]


SHARED = {"name": "lake", "hostPath": {"path": "/lake", "type": "DirectoryOrCreate"}}


def lake_server(namespace: str) -> dict[str, object]:
    """A pod that mounts something for the others, as one that serves EOS does."""
    script = (
        "mkdir -p /lake/eos; mount -t tmpfs lake /lake/eos; echo data > /lake/eos/file; "
        "trap 'umount /lake/eos; exit 0' TERM; while :; do sleep 0.1; done"
    )
    main = container(
        "main",
        script,
        securityContext={"privileged": True, "runAsUser": 0},
        volumeMounts=[mount("lake", "/lake", mountPropagation="Bidirectional")],
    )
    return pod(namespace, "server", main, volumes=[SHARED], terminationGracePeriodSeconds=5)


@pytest.mark.parametrize("propagation", ["HostToContainer", "None"])
def test_a_mount_of_another_pod_reaches_those_that_ask_for_it(
    cluster: Cluster, namespace: str, propagation: str
) -> None:
    reads = mount("lake", "/eos", mountPropagation=propagation, readOnly=True)
    session = pod(namespace, "session", container("main", volumeMounts=[reads]), volumes=[SHARED])
    cluster.apply(session)
    cluster.wait_pod(namespace, "session", "ready", is_ready)
    read = "cat /eos/eos/file 2>/dev/null || echo nothing"

    def seen() -> str:
        return run(cluster, namespace, "session", read)

    mounted = ["cat", str(cluster.node_path("/lake/eos/file"))]

    def on_the_node() -> bool:
        return bool(cluster.on_node(mounted).stdout == "data\n")

    for _ in range(2):
        assert seen() == "nothing"
        cluster.apply(lake_server(namespace))
        cluster.wait_pod(namespace, "server", "ready", is_ready)
        cluster.wait("the mount on the node", on_the_node)
        assert seen() == ("data" if propagation == "HostToContainer" else "nothing")
        cluster.api.delete("Pod", namespace, "server")
        cluster.wait_gone(namespace, "server")

"""A pod that cannot run says why, in the words that people find in their cluster's events."""

from __future__ import annotations

from typing import Any

from tests.cluster.cluster import Cluster
from tests.cluster.images import PLAIN_IMAGE
from tests.cluster.manifests import container, has_ended, pod, states, waits_for


def test_a_root_image_is_refused_where_root_is_not_allowed(
    cluster: Cluster, namespace: str
) -> None:
    main = container("main", image=PLAIN_IMAGE, securityContext={"runAsNonRoot": True})
    cluster.apply(pod(namespace, "root", main))
    found = cluster.wait_pod(
        namespace, "root", "refused", lambda p: waits_for("main", "CreateContainerConfigError", p)
    )
    why = states(found)["main"]["state"]["waiting"]["message"]
    assert why.startswith("container has runAsNonRoot and image will run as root")


def test_a_missing_image_is_told_in_kubelets_words_and_can_be_given_up(
    cluster: Cluster, namespace: str
) -> None:
    image = "escape-hub-test/missing:1"
    cluster.apply(pod(namespace, "missing", container("main", image=image)))
    cluster.wait_pod(
        namespace, "missing", "backing off", lambda p: waits_for("main", "ImagePullBackOff", p)
    )
    found = cluster.pod(namespace, "missing")
    assert found is not None
    assert found["status"]["phase"] == "Pending"
    failed = cluster.messages(namespace, "Failed")
    assert failed[0].startswith(f'Failed to pull image "{image}": ')
    assert failed[0].endswith("not found")
    assert {"Error: ErrImagePull", "Error: ImagePullBackOff"} <= set(failed)
    assert f'Back-off pulling image "{image}"' in cluster.messages(namespace, "BackOff")
    cluster.api.delete("Pod", namespace, "missing")
    cluster.wait_gone(namespace, "missing", timeout=10)


def test_a_program_that_does_not_exist_is_told(cluster: Cluster, namespace: str) -> None:
    main = {**container("main"), "command": ["/no/such/program"]}
    cluster.apply(pod(namespace, "wrong", main, restartPolicy="Never"))
    found = cluster.wait_pod(namespace, "wrong", "ended", has_ended)
    assert found["status"]["phase"] == "Failed"
    assert states(found)["main"]["state"]["terminated"]["exitCode"] == 128
    assert any("/no/such/program" in m for m in cluster.messages(namespace, "Failed"))


def test_a_pod_that_no_node_can_take_waits_and_says_why(cluster: Cluster, namespace: str) -> None:
    cases: dict[str, dict[str, Any]] = {
        "selector": {"nodeSelector": {"gpu": "yes"}},
        "memory": {"containers": [container("main")]},
    }
    cases["memory"]["containers"][0]["resources"] = {"requests": {"memory": "999Gi"}}
    for name, spec in cases.items():
        manifest = pod(namespace, name)
        manifest["spec"] |= spec
        cluster.apply(manifest)
    wanted = [
        "0/1 nodes are available: 1 Insufficient memory.",
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector.",
    ]
    cluster.wait(
        "both reasons",
        lambda: sorted(cluster.messages(namespace, "FailedScheduling")) == wanted,
    )

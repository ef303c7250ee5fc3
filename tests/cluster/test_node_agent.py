"""Pods run as on a real node: in order, as the right user, until they are told to end."""

from __future__ import annotations

import time

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.images import PLAIN_IMAGE
from tests.cluster.kube_api import Manifest
from tests.cluster.manifests import (
    IDLE,
    container,
    has_ended,
    is_ready,
    mount,
    pod,
    restarts,
    states,
    waits_for,
)

WORK = {"name": "work", "emptyDir": {"medium": "Memory"}}
AT_WORK = [mount("work", "/work")]


def inside(cluster: Cluster, namespace: str, name: str, script: str, where: str = "main") -> str:
    done = cluster.exec(namespace, name, where, ["sh", "-c", script])
    return (done.stdout + done.stderr).strip()


@pytest.mark.parametrize(("code", "phase"), [(0, "Succeeded"), (3, "Failed")])
def test_a_pod_that_is_not_restarted_ends_with_its_container(
    cluster: Cluster, namespace: str, code: int, phase: str
) -> None:
    script = f"echo done; exit {code}"
    cluster.apply(pod(namespace, "once", container("main", script), restartPolicy="Never"))
    found = cluster.wait_pod(namespace, "once", "ended", has_ended)
    assert found["status"]["phase"] == phase
    assert states(found)["main"]["state"]["terminated"]["exitCode"] == code
    assert cluster.pod_log(namespace, "once", "main") == "done\n"


def test_a_container_runs_as_the_user_and_with_the_rights_that_its_manifest_says(
    cluster: Cluster, namespace: str
) -> None:
    hardened = {
        "runAsUser": 1234,
        "runAsGroup": 567,
        "runAsNonRoot": True,
        "readOnlyRootFilesystem": True,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
    }
    cluster.apply(
        pod(
            namespace,
            "user",
            container("main", securityContext=hardened),
            container("root", image=PLAIN_IMAGE),
            securityContext={"fsGroup": 100, "supplementalGroups": [1400, 1300]},
        )
    )
    cluster.wait_pod(namespace, "user", "ready", is_ready)
    assert inside(cluster, namespace, "user", "id -u; id -g; id -G").split("\n") == [
        "1234",
        "567",
        "567 100 1300 1400",
    ]
    assert "Read-only file system" in inside(cluster, namespace, "user", "touch /x")
    status = inside(cluster, namespace, "user", "cat /proc/1/status")
    assert "NoNewPrivs:\t1" in status
    assert "CapBnd:\t0000000000000000" in status
    assert inside(cluster, namespace, "user", "id -u; touch /x && echo written", "root") == (
        "0\nwritten"
    )


def test_the_projects_image_runs_the_project_for_any_user(cluster: Cluster, namespace: str) -> None:
    ask = "import escape_hub, jupyterhub; print(jupyterhub.__name__)"
    other = {"runAsUser": 4321}
    cluster.apply(pod(namespace, "user", container("main", securityContext=other)))
    cluster.wait_pod(namespace, "user", "ready", is_ready)
    assert inside(cluster, namespace, "user", f"python -c '{ask}'") == "jupyterhub"


def test_somebody_elses_image_holds_nothing_of_the_project(
    cluster: Cluster, namespace: str
) -> None:
    cluster.apply(pod(namespace, "plain", container("main", image=PLAIN_IMAGE)))
    cluster.wait_pod(namespace, "plain", "ready", is_ready)
    assert inside(cluster, namespace, "plain", "ls -A /root /home/jovyan /tmp; command -v hub") == (
        "/home/jovyan:\n\n/root:\n\n/tmp:"
    )


def test_init_containers_and_sidecars_start_in_order_each_when_the_one_before_is_ready(
    cluster: Cluster, namespace: str
) -> None:
    def note(what: str) -> str:
        return f"echo {what} >> /work/order; "

    probe = {"exec": {"command": ["test", "-e", "/work/up"]}, "periodSeconds": 1}
    slow = container(
        "slow",
        note("slow-begins") + f"sleep 1; {note('slow-is-up')} touch /work/up; {IDLE}",
        restartPolicy="Always",
        startupProbe={**probe, "failureThreshold": 30},
        volumeMounts=AT_WORK,
    )
    first = container("first", note("first") + "sleep 0.5; " + note("first-ends"))
    last = container("last", note("last"))
    main = container("main", note("main") + IDLE)
    for one in (first, last, main):
        one["volumeMounts"] = AT_WORK
    cluster.apply(
        pod(namespace, "ordered", main, initContainers=[first, slow, last], volumes=[WORK])
    )
    found = cluster.wait_pod(namespace, "ordered", "ready", is_ready)
    assert inside(cluster, namespace, "ordered", "cat /work/order").split() == [
        *("first", "first-ends", "slow-begins", "slow-is-up", "last", "main"),
    ]
    assert states(found)["slow"]["started"] is True
    assert states(found)["last"]["state"]["terminated"]["reason"] == "Completed"


def test_a_failing_init_container_keeps_the_main_one_from_starting(
    cluster: Cluster, namespace: str
) -> None:
    init = container("init", "exit 7")
    never = pod(namespace, "never", initContainers=[init], restartPolicy="Never")
    cluster.apply(never)
    found = cluster.wait_pod(namespace, "never", "ended", has_ended)
    assert found["status"]["phase"] == "Failed"
    assert states(found)["init"]["state"]["terminated"]["exitCode"] == 7

    cluster.apply(pod(namespace, "again", initContainers=[init]))
    again = cluster.wait_pod(
        namespace, "again", "backing off", lambda p: waits_for("init", "CrashLoopBackOff", p)
    )
    assert again["status"]["phase"] == "Pending"
    assert cluster.pod_log(namespace, "again", "main") == ""


def test_a_killed_sidecar_comes_back_and_the_main_container_never_notices(
    cluster: Cluster, namespace: str
) -> None:
    side = container("side", restartPolicy="Always")
    cluster.apply(pod(namespace, "pair", initContainers=[side]))
    before = cluster.wait_pod(namespace, "pair", "ready", is_ready)
    for times in (1, 2):

        def came_back(found: Manifest, times: int = times) -> bool:
            return restarts("side", found) == times and is_ready(found)

        pid = cluster.container_pid(namespace, "pair", "side")
        cluster.on_node(["kill", "-9", str(pid)], check=True)
        found = cluster.wait_pod(
            namespace,
            "pair",
            f"restarted {times} times",
            came_back,
        )
    assert states(found)["side"]["lastState"]["terminated"]["exitCode"] == 137
    assert states(found)["main"] == states(before)["main"]
    assert found["status"]["phase"] == "Running"
    assert cluster.messages(namespace, "BackOff") == [
        f"Back-off restarting failed container side in pod pair_{namespace}"
        f"({found['metadata']['uid']})"
    ]


def test_a_sidecar_that_never_comes_up_is_killed_and_tried_again(
    cluster: Cluster, namespace: str
) -> None:
    probe = {"exec": {"command": ["sh", "-c", "echo not yet; exit 1"]}}
    side = container(
        "side",
        restartPolicy="Always",
        startupProbe={**probe, "periodSeconds": 1, "failureThreshold": 2},
    )
    cluster.apply(pod(namespace, "pair", initContainers=[side]))
    found = cluster.wait_pod(namespace, "pair", "restarted", lambda p: restarts("side", p) >= 1)
    assert found["status"]["phase"] == "Pending"
    assert "Startup probe failed: not yet" in cluster.messages(namespace, "Unhealthy")
    assert cluster.pod_log(namespace, "pair", "main") == ""


def test_a_pod_ends_gracefully_the_sidecar_after_the_main_container(
    cluster: Cluster, namespace: str
) -> None:
    def until_told(name: str) -> str:
        return f"trap 'echo {name} ends; date +%s.%N; exit 0' TERM; while :; do sleep 0.1; done"

    main = container(
        "main",
        "trap 'sleep 1; echo main ends; date +%s.%N; exit 0' TERM; while :; do sleep 0.1; done",
        lifecycle={"preStop": {"exec": {"command": ["sh", "-c", "echo stopping > /proc/1/fd/1"]}}},
    )
    side = container("side", until_told("side"), restartPolicy="Always")
    cluster.apply(pod(namespace, "pair", main, initContainers=[side]))
    cluster.wait_pod(namespace, "pair", "ready", is_ready)

    began = time.monotonic()
    cluster.api.delete("Pod", namespace, "pair")
    cluster.wait_gone(namespace, "pair")
    assert time.monotonic() - began < 10
    said = cluster.pod_log(namespace, "pair", "main").split("\n")
    assert said[:2] == ["stopping", "main ends"]
    after = cluster.pod_log(namespace, "pair", "side").split("\n")
    assert float(after[1]) > float(said[2])
    assert not (cluster.agent_config.pods / "pair").exists()


def test_a_container_that_will_not_end_is_killed_when_its_time_is_over(
    cluster: Cluster, namespace: str
) -> None:
    stubborn = container("main", "trap '' TERM; while :; do sleep 0.1; done")
    cluster.apply(pod(namespace, "stubborn", stubborn, terminationGracePeriodSeconds=2))
    cluster.wait_pod(namespace, "stubborn", "ready", is_ready)
    began = time.monotonic()
    cluster.api.delete("Pod", namespace, "stubborn")
    cluster.wait_gone(namespace, "stubborn")
    assert 2 <= time.monotonic() - began < 6


def test_nothing_is_left_on_the_node_of_a_pod_that_is_gone(
    cluster: Cluster, namespace: str
) -> None:
    cluster.apply(pod(namespace, "brief", container("main", volumeMounts=AT_WORK), volumes=[WORK]))
    found = cluster.wait_pod(namespace, "brief", "ready", is_ready)
    uid = found["metadata"]["uid"]
    cluster.api.delete("Pod", namespace, "brief")
    cluster.wait_gone(namespace, "brief")
    assert uid not in cluster.on_node(["cat", "/proc/mounts"]).stdout
    assert not (cluster.agent_config.pods / uid).exists()
    assert uid not in cluster.on_node(["ps", "ax"]).stdout
    # And nothing of any pod was ever mounted on the machine itself.
    with open("/proc/mounts") as mounts:
        assert "escape-hub-cluster" not in mounts.read()

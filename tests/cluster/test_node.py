"""The node and its pods see of each other what they do on a real node."""

from __future__ import annotations

import urllib.request

from tests.cluster.cluster import Cluster
from tests.cluster.kube_api import Manifest
from tests.cluster.manifests import container, has_ended, is_ready, pod


def inside(cluster: Cluster, namespace: str, name: str, script: str, where: str = "main") -> str:
    done = cluster.exec(namespace, name, where, ["sh", "-c", script])
    return (done.stdout + done.stderr).strip()


def test_machine_and_pods_reach_each_other(cluster: Cluster, namespace: str) -> None:
    serve = (
        "mkdir -p /tmp/www; echo $HOSTNAME > /tmp/www/name; exec python -m http.server 8080"
        " --directory /tmp/www"
    )
    ready = {"httpGet": {"path": "/name", "port": "web"}, "periodSeconds": 1}
    ports = [{"name": "web", "containerPort": 8080}]
    server = pod(namespace, "server", container("main", serve, ports=ports, readinessProbe=ready))
    cluster.apply(server)
    address = cluster.wait_pod(namespace, "server", "ready", is_ready)["status"]["podIP"]
    with urllib.request.urlopen(f"http://{address}:8080/name", timeout=5) as answer:
        assert answer.read() == b"server\n"

    names = [{"ip": address, "hostnames": ["lake.test"]}]
    ask = (
        "import socket, urllib.request as u;"
        "print(u.urlopen('http://lake.test:8080/name', timeout=5).read().decode().strip());"
        f"socket.create_connection(('{cluster.host_ip}', {cluster.control_plane.port}), 5);"
        "print('machine')"
    )
    client: Manifest = pod(
        namespace,
        "client",
        container("main", f'python -c "{ask}"'),
        hostAliases=names,
        restartPolicy="Never",
    )
    cluster.apply(client)
    cluster.wait_pod(namespace, "client", "ended", has_ended)
    assert cluster.pod_log(namespace, "client", "main") == "server\nmachine\n"


def test_a_daemon_set_puts_a_pod_on_the_node_that_sees_its_processes_and_devices(
    cluster: Cluster, namespace: str
) -> None:
    cluster.apply(pod(namespace, "session", container("main", env=[{"name": "A", "value": "b"}])))
    cluster.wait_pod(namespace, "session", "ready", is_ready)
    pid = cluster.container_pid(namespace, "session", "main")

    privileged = {"privileged": True, "runAsUser": 0}
    main = container("main", securityContext=privileged)
    template = pod(namespace, "", main, hostPID=True, hostNetwork=True)["spec"]
    labels = {"app": "lake"}
    cluster.apply(
        {
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": {"name": "lake", "namespace": namespace},
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": template},
            },
        }
    )

    def daemon() -> Manifest | None:
        found = cluster.api.list("Pod", namespace, labelSelector="app=lake")
        return found[0] if found and is_ready(found[0]) else None

    name = cluster.wait("the DaemonSet's pod", daemon, timeout=20)["metadata"]["name"]
    environment = f"tr '\\0' '\\n' < /proc/{pid}/environ | grep ^A="
    assert inside(cluster, namespace, name, environment) == "A=b"
    assert inside(cluster, namespace, name, "test -c /dev/null && echo device") == "device"
    assert cluster.host_ip in inside(cluster, namespace, name, "ip -4 addr")

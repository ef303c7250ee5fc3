"""The API server goes away and comes back: pods run on, and nothing that happened is lost."""

from __future__ import annotations

import time

from tests.cluster.cluster import Cluster
from tests.cluster.manifests import container, is_ready, pod, restarts, states

OUTAGE_SECONDS = 20.0


def test_pods_survive_an_outage_of_the_api_and_their_news_arrive_after_it(
    cluster: Cluster, namespace: str
) -> None:
    side = container("side", restartPolicy="Always")
    cluster.apply(pod(namespace, "session", initContainers=[side]))
    cluster.apply(pod(namespace, "other"))
    before = cluster.wait_pod(namespace, "session", "ready", is_ready)
    cluster.wait_pod(namespace, "other", "ready", is_ready)

    began = time.monotonic()
    cluster.stop_api()
    killed = cluster.container_pid(namespace, "session", "side")
    cluster.on_node(["kill", "-9", str(killed)], check=True)
    # The sidecar comes back without the API server.
    deadline = began + OUTAGE_SECONDS
    while time.monotonic() < deadline:
        time.sleep(0.5)
    assert cluster.container_pid(namespace, "session", "side") != killed
    assert cluster.exec(namespace, "session", "main", ["true"]).returncode == 0
    cluster.start_api()

    after = cluster.wait_pod(namespace, "session", "the news", lambda p: restarts("side", p) == 1)
    assert states(after)["main"] == states(before)["main"]
    assert after["metadata"]["uid"] == before["metadata"]["uid"]

    # Everything works again: a new pod starts, an old one ends.
    cluster.wait("a new pod", lambda: cluster.apply(pod(namespace, "new")))
    cluster.wait_pod(namespace, "new", "ready", is_ready, timeout=20)
    cluster.api.delete("Pod", namespace, "other")
    cluster.wait_gone(namespace, "other", timeout=20)

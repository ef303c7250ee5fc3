"""The control plane is a real one: it refuses what a cluster refuses."""

from __future__ import annotations

import time

import pytest

from tests.cluster import build
from tests.cluster.cluster import NODE, Cluster
from tests.cluster.kube_api import ApiError, KubeApi, Manifest
from tests.cluster.manifests import container, has_ended, pod

VERBS = ["get", "watch", "list", "create", "delete"]


def role(namespace: str, verbs: list[str]) -> Manifest:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "hub", "namespace": namespace},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}],
    }


def give_role(cluster: Cluster, namespace: str, verbs: list[str]) -> None:
    """Account ``hub`` with a Role of its own."""
    meta = {"name": "hub", "namespace": namespace}
    group = "rbac.authorization.k8s.io"
    cluster.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
    cluster.apply(role(namespace, verbs))
    cluster.apply(
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": meta,
            "subjects": [{"kind": "ServiceAccount", "name": "hub", "namespace": namespace}],
            "roleRef": {"apiGroup": group, "kind": "Role", "name": "hub"},
        }
    )


def test_the_server_is_of_the_pinned_version(cluster: Cluster) -> None:
    version = cluster.api.request("GET", "/version")["gitVersion"]
    assert version == f"v{build.kubernetes_version()}"


def test_a_misspelled_field_is_refused_and_named(cluster: Cluster, namespace: str) -> None:
    wrong = pod(namespace, "wrong", container("main", volumeMouts=[]))
    with pytest.raises(ApiError, match=r"volumeMouts.*field not declared in schema"):
        cluster.apply(wrong)
    assert cluster.pod(namespace, "wrong") is None


def test_an_account_may_do_what_its_role_says_and_nothing_else(
    cluster: Cluster, namespace: str
) -> None:
    give_role(cluster, namespace, VERBS)
    hub = KubeApi(cluster.service_account_kubeconfig(namespace, "hub"))
    try:
        cluster.wait("RBAC to know the Role", lambda: hub.may("create", "pods", namespace))
        hub.request("POST", hub.path("Pod", namespace), pod(namespace, "allowed"))

        with pytest.raises(ApiError, match='cannot list resource "secrets"') as refused:
            hub.list("Secret", namespace)
        assert refused.value.status == 403
        with pytest.raises(ApiError, match='cannot list resource "pods".*"kube-system"'):
            hub.list("Pod", "kube-system")

        # One verb less in the Role is one named refusal.
        cluster.apply(role(namespace, [verb for verb in VERBS if verb != "create"]))
        cluster.wait("RBAC to know it", lambda: not hub.may("create", "pods", namespace))
        with pytest.raises(ApiError, match='hub" cannot create resource "pods"'):
            hub.request("POST", hub.path("Pod", namespace), pod(namespace, "refused"))
    finally:
        hub.close()


def test_a_quota_limits_and_gives_back(cluster: Cluster, namespace: str) -> None:
    meta = {"name": "few", "namespace": namespace}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta}
    cluster.apply({**quota, "spec": {"hard": {"pods": "1"}}})
    cluster.wait(
        "the quota to be counted",
        lambda: cluster.api.get("ResourceQuota", namespace, "few").get("status", {}).get("hard"),
    )
    # Until admission has seen the counted quota it refuses every pod, then it admits the first.
    cluster.wait("the first pod", lambda: cluster.apply(pod(namespace, "first")))

    with pytest.raises(ApiError, match="exceeded quota: few, requested: pods=1, used: pods=1"):
        cluster.apply(pod(namespace, "second"))

    cluster.api.delete("Pod", namespace, "first", gracePeriodSeconds=1)
    cluster.wait_gone(namespace, "first")
    cluster.wait("room for another", lambda: cluster.apply(pod(namespace, "second")))


def test_pod_security_refuses_a_root_container_where_the_namespace_says_restricted(
    cluster: Cluster,
) -> None:
    restricted = cluster.namespace(
        "restricted", {"pod-security.kubernetes.io/enforce": "restricted"}
    )
    with pytest.raises(ApiError, match="violates PodSecurity"):
        cluster.apply(pod(restricted, "root"))
    hardened = {
        "allowPrivilegeEscalation": False,
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    cluster.apply(pod(restricted, "user", container("main", securityContext=hardened)))
    cluster.delete_namespace(restricted)


def test_a_node_reads_only_what_its_own_pods_refer_to(cluster: Cluster, namespace: str) -> None:
    meta = {"name": "unrelated", "namespace": namespace}
    cluster.apply({"apiVersion": "v1", "kind": "Secret", "metadata": meta})
    node = KubeApi(cluster.kubeconfig("node"))
    try:
        with pytest.raises(ApiError, match=f"no relationship found between node '{NODE}'"):
            node.get("Secret", namespace, "unrelated")
    finally:
        node.close()


def test_a_job_gets_its_pod_and_the_pod_a_token_of_its_own(
    cluster: Cluster, namespace: str
) -> None:
    give_role(cluster, namespace, ["get"])
    account = "/var/run/secrets/kubernetes.io/serviceaccount"
    ask = (
        f"import os, ssl, urllib.request as u; t = open('{account}/token').read();"
        f"n = open('{account}/namespace').read();"
        "h = os.environ['KUBERNETES_SERVICE_HOST'] + ':' + os.environ['KUBERNETES_SERVICE_PORT'];"
        "r = u.Request(f'https://{h}/api/v1/namespaces/{n}/pods/' + os.environ['HOSTNAME'],"
        " headers={'Authorization': 'Bearer ' + t});"
        f"c = ssl.create_default_context(cafile='{account}/ca.crt');"
        "print(u.urlopen(r, context=c).status)"
    )
    template = pod(namespace, "", container("main", f'python -c "{ask}"'))["spec"]
    template |= {"serviceAccountName": "hub", "restartPolicy": "Never"}
    cluster.apply(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "ask", "namespace": namespace},
            "spec": {"backoffLimit": 0, "template": {"spec": template}},
        }
    )

    def job_pod() -> Manifest | None:
        found = cluster.api.list("Pod", namespace, labelSelector="job-name=ask")
        return found[0] if found and has_ended(found[0]) else None

    ended = cluster.wait("the Job's pod to end", job_pod)
    name = ended["metadata"]["name"]
    assert cluster.pod_log(namespace, name, "main") == "200\n", cluster.describe(namespace, name)

    def has_succeeded() -> bool:
        job = cluster.api.get("Job", namespace, "ask", "batch/v1")
        return bool(job["status"].get("succeeded") == 1)

    cluster.wait("the Job to succeed", has_succeeded)


def test_a_namespace_goes_with_everything_in_it(cluster: Cluster) -> None:
    name = cluster.namespace("short-lived")
    cluster.apply(pod(name, "main"))
    cluster.wait_pod(name, "main", "running", lambda p: p["status"]["phase"] == "Running")
    began = time.monotonic()
    cluster.delete_namespace(name)
    assert time.monotonic() - began < 30

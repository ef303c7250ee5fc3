"""Each way the cluster can refuse a session has a sentence and a reference of its own."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escape_hub.core.pod_trouble import api_refused, stuck

# As kube-apiserver 1.36 writes them.
QUOTA = (
    'pods "jupyter-alice" is forbidden: exceeded quota: sessions, requested: pods=1, used: '
    "pods=0, limited: pods=0"
)
ROLE = (
    'pods is forbidden: User "system:serviceaccount:jhub:hub" cannot create resource "pods" in '
    'API group "" in the namespace "jhub"'
)
POLICY = (
    'pods "jupyter-alice" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != '
    "true"
)
LIMITS = (
    'pods "jupyter-alice" is forbidden: maximum memory usage per Container is 1Gi, but limit is 4Gi'
)


@pytest.mark.parametrize(
    ("status", "message", "code"),
    [
        (403, QUOTA, "cluster-quota"),
        (403, ROLE, "cluster-role"),
        (403, POLICY, "cluster-policy"),
        (403, LIMITS, "cluster-limits"),
        (403, "something else", "cluster-refused"),
        (401, "Unauthorized", "cluster-role"),
        (404, 'namespaces "x" not found', "cluster-refused"),
        (422, 'Pod "x" is invalid', "cluster-invalid"),
        (400, "strict decoding error", "cluster-invalid"),
        (500, "etcdserver: request timed out", "cluster-away"),
        (503, "", "cluster-away"),
        (429, "too many requests", "cluster-away"),
    ],
)
def test_a_refusal_of_the_api_is_named(status: int, message: str, code: str) -> None:
    trouble = api_refused(status, json.dumps({"kind": "Status", "message": message}))
    assert trouble.code == code
    assert message in trouble.detail
    # People read no names of objects, and nothing that the API wrote.
    assert "jupyter-alice" not in trouble.words
    assert trouble.words.endswith(".")


def test_what_is_the_users_to_act_on_is_no_failure_of_the_service() -> None:
    assert api_refused(403, json.dumps({"message": QUOTA})).status == 429
    assert "Stop a session" in api_refused(403, json.dumps({"message": QUOTA})).words


@given(st.one_of(st.none(), st.binary(), st.text(), st.just(b"[1]"), st.just('{"message": 3}')))
def test_an_answer_of_any_form_gives_a_sentence(body: Any) -> None:
    trouble = api_refused(403, body, "Forbidden")
    assert trouble.words and trouble.detail


def pod(**status: Any) -> dict[str, Any]:
    return {"status": {"phase": "Pending", **status}}


def waiting(name: str, reason: str, message: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "ready": False,
        "state": {"waiting": {"reason": reason, "message": message}},
    }


@pytest.mark.parametrize(
    ("found", "code", "detail"),
    [
        (None, "cluster-away", "not created"),
        (
            pod(containerStatuses=[waiting("notebook", "ImagePullBackOff", "x: not found")]),
            "pod-image",
            "container notebook: ImagePullBackOff: x: not found",
        ),
        (
            pod(
                initContainerStatuses=[waiting("escape-hub-session", "ErrImagePull")],
                containerStatuses=[waiting("notebook", "PodInitializing")],
            ),
            "pod-image",
            "container escape-hub-session: ErrImagePull",
        ),
        (
            pod(initContainerStatuses=[waiting("escape-hub-session", "CrashLoopBackOff", "b")]),
            "pod-broken",
            "CrashLoopBackOff",
        ),
        (
            pod(containerStatuses=[waiting("notebook", "CreateContainerConfigError", "no uid")]),
            "pod-broken",
            "no uid",
        ),
        (
            pod(conditions=[{"type": "PodScheduled", "status": "False", "message": "0/1 nodes"}]),
            "pod-room",
            "0/1 nodes",
        ),
        (
            pod(containerStatuses=[waiting("notebook", "ContainerCreating")]),
            "pod-slow",
            "notebook waiting, not ready",
        ),
        ({}, "pod-slow", "phase unknown"),
    ],
)
def test_a_pod_that_does_not_come_up_tells_why(found: Any, code: str, detail: str) -> None:
    trouble = stuck(found, 60)
    assert trouble.code == code
    assert detail in trouble.detail
    assert "container" not in trouble.words

"""A session in a real pod, seen from its kernel, from the cluster and from the hub."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.kube_api import KubeApi
from tests.cluster.kube_stage import PYTHON, KubeStage, PodFile, answers, outage, wait_until
from tests.cluster.manifests import restarts, states
from tests.harness import Person
from tests.harness.processes import wait_for
from tests.harness.session_view import look
from tests.hub.story import assert_files_are_right, assert_rucio_cfg_is_right
from tests.soak.watch import READER, Judge

JSON_MERGE = "application/merge-patch+json"

#: Run in the kernel: when the first process of the notebook began, and each part of the path.
BEGIN = """
import json, os, time
ticks = int(open("/proc/1/stat").read().rsplit(")", 1)[1].split()[19])
began = time.time() - (time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK"))
directory = os.path.dirname(os.environ["RUCIO_CONFIG"])
parts = [directory]
while parts[-1] != "/":
    parts.append(os.path.dirname(parts[-1]))
print(json.dumps(dict(
    began=began,
    links=[p for p in parts + [os.path.join(directory, n) for n in os.listdir(directory)]
           if os.path.islink(p)],
    account=os.path.exists("/var/run/secrets/kubernetes.io"),
    in_memory=[l.split()[2] for l in open("/proc/mounts") if l.split()[1] == "/run/escape-hub"],
)))
"""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Iterator[KubeStage]:
    namespace = cluster.namespace("sessions", {"pod-security.kubernetes.io/enforce": "restricted"})
    directory = tmp_path_factory.mktemp("pods")
    with KubeStage(directory, cluster, namespace) as running:
        yield running
        for name, text in running.everything_public().items():
            assert running.canaries.look_in(name, text.encode()) == []
    assert running.leaks() == []
    cluster.delete_namespace(namespace)


@pytest.fixture
def tidy(stage: KubeStage) -> Iterator[None]:
    """No pod is left from one test to the next."""
    yield
    stage.cluster.start_api()
    for pod in stage.pods():
        stage.cluster.api.delete(
            "Pod", stage.namespace, pod["metadata"]["name"], gracePeriodSeconds=0
        )


@pytest.mark.usefixtures("tidy")
def test_a_session_finds_its_files_before_its_kernel_and_leaves_nothing(stage: KubeStage) -> None:
    alice = stage.person()
    alice.spawn(PYTHON)
    kernel = alice.start_kernel()
    view = look(alice, kernel)
    assert_files_are_right(view, stage.iam)
    assert_rucio_cfg_is_right(view)
    assert view.uid == 1000
    assert view.directory["path"] == "/run/escape-hub/alice"

    seen: dict[str, Any] = json.loads(alice.run(kernel, BEGIN))
    assert view.files["rucio.cfg"]["mtime"] / 1e9 < seen["began"]
    assert view.files["eos.token"]["mtime"] / 1e9 < seen["began"]
    assert seen["links"] == []
    assert seen["account"] is False
    assert seen["in_memory"] == ["tmpfs"]

    pod = stage.pod_of()
    found = states(pod)
    assert found["escape-hub-session"]["started"] and found["notebook"]["ready"]
    # The image of the notebook carries the extension: with both, one writes.
    log = stage.cluster.pod_log(stage.namespace, "jupyter-alice", "notebook")
    assert "another agent of this session writes its files" in log

    issued = stage.iam.issued()
    tokens = [value for values in issued.values() for value in values]
    public = stage.everything_public()
    assert not [name for name, text in public.items() for t in tokens if len(t) > 15 and t in text]

    alice.stop_server()
    assert stage.pods() == []
    left = list((stage.cluster.agent_config.pods).glob("*"))
    assert left == []


@pytest.mark.usefixtures("tidy")
def test_an_image_with_the_extension_needs_no_sidecar(stage: KubeStage) -> None:
    alice = stage.person()
    alice.spawn({"profile": "own"})
    assert "initContainerStatuses" not in stage.pod_of()["status"]
    view = look(alice, alice.start_kernel())
    assert_files_are_right(view, stage.iam)
    assert view.uid == 1000
    alice.stop_server()
    assert stage.pods() == []


# -- ten lifetimes -------------------------------------------------------------------------

LIFETIME = 20
NEVER = 10_000


@pytest.mark.usefixtures("tidy")
def test_files_stay_fresh_over_ten_lifetimes_and_a_killed_sidecar(stage: KubeStage) -> None:
    limit = 10 * LIFETIME + 5
    with short_lives(stage, LIFETIME):
        judge = Judge(stage.iam, begin_reading(stage, limit, target=NEVER))
        wait_for("some tokens", lambda: judge.distinct() >= 10, limit, every=1)
        kill_the_sidecar(stage)
        verdict = judge.verdict(limit + 60)
    print(f"\nten lifetimes in a pod: {verdict}")
    assert verdict.faults == {}
    assert min(verdict.distinct.values()) >= 10
    assert verdict.least_remaining > 0
    assert restarts("escape-hub-session", stage.pod_of()) == 1
    assert restarts("notebook", stage.pod_of()) == 0


@pytest.mark.usefixtures("tidy")
def test_files_stay_fresh_over_a_hub_that_is_killed_and_started_again(stage: KubeStage) -> None:
    with short_lives(stage, 90):
        judge = Judge(stage.iam, begin_reading(stage, 300, target=3))
        before = stage.pod_of()
        stage.hub.kill()
        stage.start_hub()
        verdict = judge.verdict(360)
    print(f"\na hub's restart, seen in a pod: {verdict}")
    assert verdict.faults == {}
    assert verdict.least_remaining > 0
    assert stage.pod_of()["metadata"]["uid"] == before["metadata"]["uid"]
    alice = stage.person()
    assert alice.server_ready()
    alice.stop_server()
    assert stage.pods() == []


@contextmanager
def short_lives(stage: KubeStage, seconds: int) -> Iterator[None]:
    stage.iam.faults(access_token_lifetime=seconds)
    yield
    stage.iam.faults()


def begin_reading(stage: KubeStage, seconds: float, target: int) -> Any:
    """Alice signs in, starts a reader in her session, and closes her browser."""
    alice = stage.person()
    alice.spawn(PYTHON)
    output = "/home/jovyan/reader.jsonl"
    command = [sys.executable, str(READER), output, str(seconds), str(target)]
    alice.run(
        alice.start_kernel(),
        f"import subprocess; subprocess.Popen({command!r}, start_new_session=True)",
    )
    alice.close()
    return PodFile(stage, output)


def kill_the_sidecar(stage: KubeStage) -> None:
    place = (stage.namespace, "jupyter-alice", "escape-hub-session")
    pid = stage.cluster.container_pid(*place)
    stage.cluster.on_node(["kill", "-9", str(pid)], check=True)


# -- starts that cannot succeed ------------------------------------------------------------


def assert_nothing_is_left(stage: KubeStage) -> None:
    wait_for("every pod to go", lambda: stage.pods() == [], 30, every=0.3)
    assert "JUPYTERHUB_API_TOKEN'" not in stage.hub.log_text


@pytest.mark.usefixtures("tidy")
def test_a_missing_image_is_a_sentence(stage: KubeStage) -> None:
    alice = stage.person()
    status, page = stage.failed_start(alice, {"profile": "gone"})
    assert status == 500
    assert "The image of this environment cannot be had" in page
    assert "pod-image" in page
    assert "[pod-image]: container notebook: " in stage.hub.log_text
    assert_nothing_is_left(stage)
    alice.spawn(PYTHON)  # another environment starts
    alice.stop_server()


@pytest.mark.usefixtures("tidy")
def test_a_quota_that_is_used_up_is_a_sentence(stage: KubeStage) -> None:
    cluster = stage.cluster
    quota = {"apiVersion": "v1", "kind": "ResourceQuota"}
    quota |= {"metadata": {"name": "full", "namespace": stage.namespace}}
    cluster.apply({**quota, "spec": {"hard": {"pods": "0"}}})

    def counted() -> bool:
        found = cluster.api.find("ResourceQuota", stage.namespace, "full") or {}
        return bool(found.get("status", {}).get("hard"))

    cluster.wait("the quota to count", counted)
    alice = stage.person()
    try:
        status, page = wait_for(  # admission learns of a new quota within a second
            "a refusal", lambda: refused_or_none(stage, alice), 20, every=0.5
        )
    finally:
        cluster.api.delete("ResourceQuota", stage.namespace, "full")
    assert status == 429
    assert "the limit of this service is reached" in page
    assert "cluster-quota" in page
    assert "[cluster-quota]: pods" in stage.hub.log_text
    assert_nothing_is_left(stage)


def refused_or_none(stage: KubeStage, person: Person) -> tuple[int, str] | None:
    answer = person.api("POST", f"users/{person.name}/server", json=PYTHON)
    if answer.status_code in (201, 202):
        wait_for("the start to end", lambda: not stage.pending(person), 90, every=0.3)
        person.stop_server()
        return None
    return answer.status_code, answer.json()["message"]


@pytest.mark.parametrize(
    ("resource", "verb", "code"),
    [("pods", "create", "cluster-role"), ("pods", "list", "")],
)
@pytest.mark.usefixtures("tidy")
def test_a_right_that_the_hub_lacks_is_named(
    stage: KubeStage, resource: str, verb: str, code: str
) -> None:
    mark = len(stage.hub.log_text)
    alice = stage.person()
    with without_right(stage, resource, verb):
        if code:
            status, page = stage.failed_start(alice)
            assert status == 500
            assert "not allowed to do that in the cluster" in page
            assert f"[{code}]: {resource} is forbidden" in stage.hub.log_text[mark:]
        wanted = f'cannot {verb} resource "{resource}"'
        wait_for("the right's name", lambda: wanted in stage.hub.log_text[mark:], 60, every=0.5)
    assert_nothing_is_left(stage)
    cluster_role_is_read = lambda: stage.cluster.api.list("Pod", stage.namespace) == []  # noqa: E731
    wait_for("the role", cluster_role_is_read, 10)


@contextmanager
def without_right(stage: KubeStage, resource: str, verb: str) -> Iterator[None]:
    """The shipped Role without one verb."""
    cluster, version = stage.cluster, "rbac.authorization.k8s.io/v1"
    role = cluster.api.get("Role", stage.namespace, "hub", version)
    rules = [dict(rule) for rule in role["rules"]]
    for rule in rules:
        if resource in rule["resources"]:
            rule["verbs"] = [v for v in rule["verbs"] if v != verb]
    path = cluster.api.path("Role", stage.namespace, "hub", version)
    cluster.api.request("PATCH", path, {"rules": rules}, content_type=JSON_MERGE)
    try:
        yield
    finally:
        body = {"rules": role["rules"]}
        cluster.api.request("PATCH", path, body, content_type=JSON_MERGE)


def test_the_shipped_role_is_as_small_as_it_can_be(stage: KubeStage) -> None:
    """Whoever takes a verb out sees a test above, or a start, fail; nothing more is granted."""
    path = stage.cluster.service_account_kubeconfig(stage.namespace, "hub")
    hub = KubeApi(path)
    try:
        for verb, resource in [
            ("create", "pods"),
            ("list", "pods"),
            ("watch", "pods"),
            ("delete", "pods"),
            ("list", "events"),
            ("watch", "events"),
            ("create", "persistentvolumeclaims"),
        ]:
            assert hub.may(verb, resource, stage.namespace), (verb, resource)
        for verb, resource in [
            ("get", "secrets"),
            ("list", "secrets"),
            ("update", "pods"),
            ("patch", "pods"),
            ("create", "pods/exec"),
            ("list", "nodes"),
            ("create", "serviceaccounts/token"),
        ]:
            assert not hub.may(verb, resource, stage.namespace), (verb, resource)
        assert not hub.may("list", "pods", "default")
    finally:
        hub.close()


# -- the issuer is away --------------------------------------------------------------------


@pytest.mark.usefixtures("tidy")
def test_without_a_living_token_and_without_the_iam_a_session_starts_and_says_so(
    stage: KubeStage,
) -> None:
    with short_lives(stage, 5):
        alice = stage.person("bob")
        time.sleep(6)
        stage.iam.faults(token={"mode": "503", "grant": "any"})
        alice.spawn(PYTHON)
        kernel = alice.start_kernel()
        view = json.loads(alice.run(kernel, STATUS))
        assert view["names"] == ["agent.lock", "rucio.cfg", "status.json"]
        assert view["status"]["state"] == "late"
        stage.iam.faults()

        def healed() -> bool:
            return bool(json.loads(alice.run(kernel, STATUS))["status"]["state"] == "fresh")

        wait_for("the files, now that the IAM answers", healed, 60, every=1)
    alice.stop_server()


STATUS = """
import json, os
d = os.path.dirname(os.environ["RUCIO_CONFIG"])
print(json.dumps(dict(names=sorted(os.listdir(d)), status=json.load(open(d + "/status.json")))))
"""


# -- the API of the cluster is away --------------------------------------------------------


@pytest.mark.usefixtures("tidy")
def test_a_start_in_an_outage_of_twenty_seconds_succeeds(stage: KubeStage) -> None:
    bob = stage.person("bob")
    bob.spawn(PYTHON)
    alice = stage.person()
    began = time.monotonic()
    with outage(stage.cluster):
        answer = alice.api("POST", "users/alice/server", json=PYTHON)
        assert answer.status_code == 202, answer.text
        wait_until(began + 20)
        assert bob.server_ready()
        assert answers(f"{bob.lab}api")
    wait_for("alice's server", alice.server_ready, 60, every=0.3)
    assert bob.server_ready()
    alice.stop_server()
    bob.stop_server()
    assert_nothing_is_left(stage)


@pytest.mark.usefixtures("tidy")
def test_an_outage_of_ninety_seconds_heals_within_a_minute(stage: KubeStage) -> None:
    bob = stage.person("bob")
    bob.spawn(PYTHON)
    alice = stage.person()
    mark = len(stage.hub.log_text)
    began = time.monotonic()
    with outage(stage.cluster):
        status, page = stage.failed_start(alice, timeout=110)
        assert status == 503
        assert "The cluster does not answer at the moment" in page
        assert "cluster-away" in page
        wait_until(began + 90)
        assert bob.server_ready()
        assert answers(f"{bob.lab}api")
    log = stage.hub.log_text[mark:]
    assert "giving up" in log  # KubeSpawner's reflectors did, as they do upstream
    back = time.monotonic()
    # A pod that ends behind the hub's back is noticed again.
    stage.cluster.api.delete("Pod", stage.namespace, "jupyter-bob", gracePeriodSeconds=0)
    wait_for("the hub to notice", lambda: not bob.server(), 60, every=0.5)
    alice.spawn(PYTHON, timeout=60 - (time.monotonic() - back))
    print(f"\nafter 90 s without the API: healed {time.monotonic() - back:.1f} s after its return")
    alice.stop_server()
    assert_nothing_is_left(stage)


@pytest.mark.usefixtures("tidy")
def test_a_hub_that_starts_while_the_api_is_away_keeps_its_servers(stage: KubeStage) -> None:
    bob = stage.person("bob")
    bob.spawn(PYTHON)
    stage.hub.kill()
    with outage(stage.cluster):
        stage.start_hub()
        again = stage.person("bob")
        assert again.server_ready()
        assert answers(f"{bob.lab}api")
    assert again.server_ready()
    again.stop_server()
    assert_nothing_is_left(stage)

"""The rules of the node agent that are pure: every case of each."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.node_agent.backoff import Backoff
from tests.cluster.node_agent.oci import (
    ConfigError,
    ImageUser,
    capabilities,
    capability_names,
    expand,
    process_user,
)
from tests.cluster.node_agent.ownership import set_volume_ownership
from tests.cluster.node_agent.sources import pod_field, token_owner
from tests.cluster.node_agent.status import ContainerState, phase
from tests.cluster.node_agent.volumes import quantity

IMAGE = ImageUser(1000, 100, {0: 0, 1000: 100})


def pod_of(context: dict[str, Any], *containers: dict[str, Any]) -> dict[str, Any]:
    meta = {"name": "p", "namespace": "n", "uid": "u", "labels": {"a/b": "c"}}
    listed = [{"name": f"c{i}", **c} for i, c in enumerate(containers)]
    return {"metadata": meta, "spec": {"securityContext": context, "containers": listed}}


@pytest.mark.parametrize(
    ("pod_context", "context", "wanted"),
    [
        ({}, {}, (1000, 100, [])),
        ({}, {"runAsUser": 1000}, (1000, 100, [])),
        ({}, {"runAsUser": 7}, (7, 0, [])),
        ({"runAsUser": 7, "runAsGroup": 8}, {}, (7, 8, [])),
        ({"runAsUser": 7}, {"runAsUser": 9, "runAsGroup": 3}, (9, 3, [])),
        ({"fsGroup": 100, "supplementalGroups": [5, 4]}, {}, (1000, 100, [4, 5, 100])),
    ],
)
def test_a_process_gets_the_user_and_groups_that_kubernetes_says(
    pod_context: dict[str, Any], context: dict[str, Any], wanted: tuple[int, int, list[int]]
) -> None:
    manifest = pod_of(pod_context, {"securityContext": context})
    user = process_user(manifest, manifest["spec"]["containers"][0], IMAGE)
    assert (user["uid"], user["gid"], user["additionalGids"]) == wanted


def test_a_root_process_is_refused_where_the_manifest_says_non_root() -> None:
    manifest = pod_of({"runAsNonRoot": True}, {"securityContext": {"runAsUser": 0}})
    with pytest.raises(ConfigError, match="breaks non-root policy"):
        process_user(manifest, manifest["spec"]["containers"][0], IMAGE)


def test_capabilities_are_dropped_before_they_are_added_and_never_exceed_the_machines() -> None:
    available = {"CHOWN", "SYS_ADMIN", "KILL"}

    def kept(context: dict[str, Any], uid: int = 0) -> list[str]:
        return list(capabilities({"securityContext": context}, uid, available)["effective"])

    assert kept({}) == ["CAP_CHOWN", "CAP_KILL"]
    assert kept({"capabilities": {"drop": ["ALL"], "add": ["KILL"]}}) == ["CAP_KILL"]
    assert kept({"privileged": True}) == ["CAP_CHOWN", "CAP_KILL", "CAP_SYS_ADMIN"]
    assert kept({"privileged": True}, uid=1000) == []
    assert capability_names(0b100001) == {"CHOWN", "KILL"}


def state(kind: str = "main", **fields: Any) -> ContainerState:
    return ContainerState("c", "image", kind, **fields)


def running(kind: str = "main") -> ContainerState:
    return state(kind, waiting=None, container_id="id", started=True, ready=True)


def ended(code: int, kind: str = "main", final: bool = True) -> ContainerState:
    return state(kind, waiting=None, container_id="id", exit_code=code, final=final)


@pytest.mark.parametrize(
    ("init", "main", "wanted"),
    [
        ([], [state()], "Pending"),
        ([], [running()], "Running"),
        ([], [running(), state()], "Pending"),
        ([], [ended(0), running()], "Running"),
        ([], [ended(0), ended(0)], "Succeeded"),
        ([], [ended(0), ended(1)], "Failed"),
        ([], [ended(1, final=False)], "Running"),
        ([ended(0, "init")], [running()], "Running"),
        ([ended(1, "init", final=False)], [state()], "Pending"),
        ([ended(1, "init")], [state()], "Failed"),
        ([running("sidecar")], [ended(0)], "Succeeded"),
        ([ended(1, "sidecar", final=False)], [state()], "Pending"),
        ([ended(1, "sidecar", final=False)], [running()], "Running"),
    ],
)
def test_the_phase_of_a_pod_follows_its_containers(
    init: list[ContainerState], main: list[ContainerState], wanted: str
) -> None:
    assert phase(init, main) == wanted


def test_a_group_is_given_bits_and_nobody_loses_any(tmp_path: Path) -> None:
    folder, private = tmp_path / "folder", tmp_path / "folder/private"
    folder.mkdir(mode=0o700)
    private.touch(mode=0o600)
    link = folder / "link"
    link.symlink_to("private")
    set_volume_ownership(tmp_path, None, read_only=True)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600

    if os.geteuid() != 0:
        pytest.skip("needs root, to give files away")
    set_volume_ownership(tmp_path, 100, read_only=True)
    assert (stat.S_IMODE(private.stat().st_mode), private.stat().st_gid) == (0o640, 100)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o2750
    assert link.lstat().st_gid == 100
    set_volume_ownership(tmp_path, 100, read_only=False)
    assert stat.S_IMODE(private.stat().st_mode) == 0o660


def test_variables_are_expanded_once_and_unknown_ones_stay() -> None:
    env = {"A": "$(B)", "B": "b"}
    assert expand("$(A) $(B) $(C) $$(B) $B", env) == "$(B) b $(C) $(B) $B"


def test_fields_of_the_pod_are_found_by_their_path() -> None:
    manifest = pod_of({}, {})
    assert pod_field(manifest, "metadata.name") == "p"
    assert pod_field(manifest, "metadata.labels['a/b']") == "c"
    assert pod_field(manifest, "metadata.labels") == 'a/b="c"'
    assert pod_field(manifest, "spec.nodeName") == ""


def test_a_token_is_given_to_the_user_that_all_containers_share() -> None:
    one, two = {"securityContext": {"runAsUser": 1}}, {"securityContext": {"runAsUser": 2}}
    assert token_owner(pod_of({"runAsUser": 1}, {}, one)) == 1
    assert token_owner(pod_of({"runAsUser": 1}, {}, two)) is None
    assert token_owner(pod_of({}, {})) is None


def test_waits_double_from_nothing_to_the_limit() -> None:
    backoff = Backoff(1.0, 5.0)
    assert [backoff.next() for _ in range(6)] == [0, 1, 2, 4, 5, 5]


def test_quantities_are_read_in_both_kinds_of_units() -> None:
    assert [quantity(t) for t in ("4Mi", "1.5Gi", "2k", "7")] == [4 * 2**20, 3 * 2**29, 2000, 7]

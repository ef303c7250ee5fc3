"""What a session adds to a pod is valid, hardened, and holds nothing it does not need."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest
from hypothesis import given
from hypothesis import strategies as st

from escape_hub.core import pod as parts
from escape_hub.errors import SettingsError

SETTINGS = parts.SidecarSettings(
    "registry.example.org/session:1", resources={"limits": {"memory": "96Mi"}}
)
ENV = [
    {"name": "JUPYTERHUB_API_TOKEN", "value": "x"},
    {"name": "ESCAPE_HUB_SESSION", "value": "{}"},
    {"name": "MY_PASSWORD", "value": "y"},
    {"name": "JUPYTERHUB_API_URL", "value": "http://hub"},
]


def a_sidecar(**user: Any) -> dict[str, Any]:
    who = user or {"runAsUser": 1000}
    return parts.sidecar(SETTINGS, user=who, env=ENV, mounts=[parts.memory_mount("/run/e")])


def whole(sidecar: dict[str, Any] | None = None, **lake: Any) -> dict[str, Any]:
    """A pod of these parts."""
    volumes, mounts = parts.lake_mounts(lake.get("mounts", {}))
    mounts = [parts.memory_mount("/run/e"), *mounts]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {
            "initContainers": [sidecar or a_sidecar()],
            "containers": [{"name": "notebook", "image": "i", "volumeMounts": mounts}],
            "volumes": [parts.memory_volume("4Mi"), *volumes],
        },
    }


@pytest.mark.parametrize("version", ["1.29", "1.33", "1.36"])
def test_the_parts_make_a_valid_pod_in_every_version_with_native_sidecars(version: str) -> None:
    mounts = {
        "/eos/eulake_1": "/var/eos/eulake_1",
        "/scratch": {"persistentVolumeClaim": {"claimName": "scratch"}},
        "/other": "/data",
    }
    kubernetes_validate.validate(whole(mounts=mounts), version, strict=True)


def test_the_validation_itself_refuses_a_field_that_does_not_exist() -> None:
    pod = whole()
    pod["spec"]["initContainers"][0]["restartPolcy"] = "Always"
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(pod, "1.36", strict=True)


def test_the_sidecar_can_do_nothing_but_write_its_files() -> None:
    context = a_sidecar(runAsUser=1000, runAsGroup=100)["securityContext"]
    assert context == {
        "runAsUser": 1000,
        "runAsGroup": 100,
        "runAsNonRoot": True,
        "privileged": False,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def test_the_sidecar_starts_before_the_notebook_and_stays() -> None:
    sidecar = a_sidecar()
    assert sidecar["restartPolicy"] == "Always"
    assert sidecar["command"][-1] == "run"
    assert sidecar["startupProbe"]["exec"]["command"][-1] == "check"
    probe = sidecar["startupProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] >= 30


def test_the_sidecar_is_given_the_session_s_variables_and_no_others() -> None:
    names = [e["name"] for e in a_sidecar()["env"]]
    assert names == ["JUPYTERHUB_API_TOKEN", "ESCAPE_HUB_SESSION", "JUPYTERHUB_API_URL"]


def test_the_volume_is_in_memory_and_limited() -> None:
    assert parts.memory_volume("4Mi")["emptyDir"] == {"medium": "Memory", "sizeLimit": "4Mi"}


# -- the user ------------------------------------------------------------------------------


def test_the_sidecar_runs_as_the_notebook_s_user_wherever_that_is_said() -> None:
    assert parts.sidecar_user({"runAsUser": 1000}, None) == {"runAsUser": 1000}
    pod = {"runAsUser": 5, "runAsGroup": 6, "fsGroup": 7}
    assert parts.sidecar_user(None, pod) == {"runAsUser": 5, "runAsGroup": 6}
    both = parts.sidecar_user({"runAsUser": 1000}, pod)
    assert both == {"runAsUser": 1000, "runAsGroup": 6}


@pytest.mark.parametrize(("notebook", "reason"), [({}, "is not set"), ({"runAsUser": 0}, "is 0")])
def test_a_user_that_is_unknown_or_root_is_refused(notebook: dict[str, int], reason: str) -> None:
    with pytest.raises(SettingsError, match=f"KubeSpawner.uid {reason}"):
        parts.sidecar_user(notebook, {})


# -- the token directory ---------------------------------------------------------------------


def test_a_token_directory_below_the_volume_is_fine() -> None:
    parts.check_token_dir("/run/escape-hub/alice", "/run/escape-hub")
    parts.check_token_dir("/run/escape-hub/alice", "/run/escape-hub/")


@pytest.mark.parametrize(
    "token_dir",
    ["/run/escape-hub", "/run/escape-hub/", "/tmp/alice", "/run/escape-hub2/a", "/run"],
)
def test_a_token_directory_outside_the_volume_is_refused(token_dir: str) -> None:
    with pytest.raises(SettingsError, match="must lie below token_mount"):
        parts.check_token_dir(token_dir, "/run/escape-hub")


# -- the lake ----------------------------------------------------------------------------------


def test_the_directory_above_is_mounted_where_the_names_agree() -> None:
    volumes, mounts = parts.lake_mounts({"/eos/eulake_1": "/var/eos/eulake_1"})
    assert volumes[0]["hostPath"] == {"path": "/var/eos", "type": "DirectoryOrCreate"}
    assert mounts[0]["mountPath"] == "/eos"
    assert mounts[0]["mountPropagation"] == "HostToContainer"
    assert mounts[0]["name"] == volumes[0]["name"]


def test_two_lakes_of_one_directory_are_one_volume() -> None:
    volumes, mounts = parts.lake_mounts({"/eos/a": "/eos/a", "/eos/b": "/eos/b"})
    assert len(volumes) == len(mounts) == 1


@pytest.mark.parametrize(
    ("path", "origin"),
    [("/scratch", "/eos/scratch"), ("/eos", "/eos"), ("/eos/x", "/x"), ("/eos/x", "/var/y")],
)
def test_else_the_very_directory_is_mounted(path: str, origin: str) -> None:
    volumes, mounts = parts.lake_mounts({path: origin})
    assert (mounts[0]["mountPath"], volumes[0]["hostPath"]["path"]) == (path, origin)


def test_a_volume_s_source_is_handed_on_as_it_is() -> None:
    volumes, mounts = parts.lake_mounts({"/eos/x": {"csi": {"driver": "eosxd.csi.cern.ch"}}})
    assert volumes[0]["csi"] == {"driver": "eosxd.csi.cern.ch"}
    assert mounts[0]["mountPath"] == "/eos/x"
    assert mounts[0]["mountPropagation"] == "HostToContainer"


@pytest.mark.parametrize(
    ("path", "origin"),
    [("eos", "/eos"), ("/eos", "eos"), ("/", "/eos"), ("/eos", "/"), ("/a/../b", "/b"), ("/a", "")],
)
def test_a_mount_that_cannot_work_is_refused(path: str, origin: str) -> None:
    with pytest.raises(SettingsError, match="lake_mounts"):
        parts.lake_mounts({path: origin})


def test_two_things_at_one_place_are_refused() -> None:
    with pytest.raises(SettingsError, match="two different things would be mounted at '/eos'"):
        parts.lake_mounts({"/eos/a": "/x/a", "/eos/b": "/y/b"})


@given(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3, unique=True))
def test_every_path_of_the_lake_is_reachable_below_a_mount(names: list[str]) -> None:
    wanted = {f"/eos/{n}": f"/var/eos/{n}" for n in names} | {"/scratch": "/eos/scratch"}
    volumes, mounts = parts.lake_mounts(wanted)
    assert {v["name"] for v in volumes} == {m["name"] for m in mounts}
    for path in wanted:
        assert len(parts.mount_for(mounts, path)) == 1
    assert parts.mount_for(mounts, "/scratch2") == []


# -- groups --------------------------------------------------------------------------------------


def test_groups_of_the_person_become_supplemental_groups() -> None:
    gids = {"escape/cms": 2001, "escape/atlas": 2002}
    found = parts.supplemental_groups([100, 2001], gids, {"escape", "escape/cms"})
    assert found == [100, 2001]
    assert parts.supplemental_groups([], gids, {"escape/atlas"}) == [2002]

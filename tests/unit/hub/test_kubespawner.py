"""The pod of a session, from KubeSpawner's own manifest and the operator's settings."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kubernetes_validate
import pytest
from kubespawner import KubeSpawner
from traitlets.config import Config

from escape_hub.core.audiences import parse_audiences
from escape_hub.core.auth_state import AuthState
from escape_hub.core.environment_choice import select
from escape_hub.core.session_plan import ENV, SessionPlan
from escape_hub.errors import SettingsError
from escape_hub.hub.kubespawner import EscapeKubeSpawner, EscapeKubeSpawnerMixin
from escape_hub.hub.spawn_messages import StartRefusedError
from escape_hub.hub.spawner_traits import check_at_start

KUBECONFIG = """
current-context: none
contexts: [{name: none, context: {cluster: none, user: none}}]
clusters: [{name: none, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: none, user: {}}]
"""
CATALOGUE = """
environments:
  python: {name: Python, default: true, kubernetes: {image: "i/python:1"}}
  cms:
    name: CMS
    allowed_groups: [escape/cms]
    resources: {cpu: 2, memory: 4G, gpu: 1}
    kubernetes:
      image: i/cms:1
      node_selector: {gpu: "yes"}
      kubespawner_override: {extra_labels: {team: cms}, volumes: [], init_containers: []}
    profile_options:
      size:
        name: Size
        choices:
          small: {name: Small}
          large: {name: Large, resources: {memory: 8G}}
"""
AUDIENCES = {
    "eos": {
        "audience": "eos-eulake",
        "scope": "openid",
        "format": "eos",
        "endpoint": "iam.example.org/userinfo",
    },
    "rucio": {"audience": "rucio", "scope": "openid"},
}
TOKEN = "the-servers-own-api-token"


@pytest.fixture(autouse=True)
def no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KubeSpawner reads the address of a cluster as soon as it is made; nobody listens there."""
    file = tmp_path / "kubeconfig"
    file.write_text(KUBECONFIG)
    setting = "kubernetes_asyncio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
    monkeypatch.setattr(setting, str(file))


@pytest.fixture
def catalogue_file(tmp_path: Path) -> str:
    file = tmp_path / "environments.yaml"
    file.write_text(CATALOGUE)
    return str(file)


def spawner(cls: type = EscapeKubeSpawner, **settings: Any) -> Any:
    """As the hub has it just before the start, for alice."""
    config = Config()
    config.KubeSpawner.uid = 1000
    config.KubeSpawner.fs_gid = 100
    config.EscapeKubeSpawnerMixin.sidecar_image = "registry.example.org/session:1"
    for name, value in settings.items():
        config[cls.__name__][name] = value
    made = cls(_mock=True, config=config, authenticator=SimpleNamespace())
    made.user.name = made.user.escaped_name = "alice"
    made.hub = SimpleNamespace(
        public_host="", base_url="/hub/", api_url="http://hub:8081/hub/api", url="http://hub"
    )
    made.authenticator.audience_settings = parse_audiences(AUDIENCES)
    made.authenticator.broker = made.authenticator.renewal = None
    made.api_token = TOKEN
    made._groups = frozenset({"escape"})
    made._plan = made.session_plan(AuthState("https://iam", "sub"))
    return made


async def manifest(made: Any) -> dict[str, Any]:
    """Valid, and as it is sent."""
    found: dict[str, Any] = made.api.api_client.sanitize_for_serialization(
        await made.get_pod_manifest()
    )
    kubernetes_validate.validate(found, "1.36", strict=True)
    return found


def named(items: list[dict[str, Any]], name: str) -> dict[str, Any]:
    return next(item for item in items if item["name"] == name)


def env_of(container: dict[str, Any]) -> dict[str, str]:
    return {e["name"]: e["value"] for e in container["env"] if "value" in e}


async def test_the_sidecar_runs_as_the_notebook_and_shares_its_volume() -> None:
    pod = (await manifest(spawner()))["spec"]
    notebook, sidecar = named(pod["containers"], "notebook"), pod["initContainers"][-1]
    assert sidecar["image"] == "registry.example.org/session:1"
    assert sidecar["securityContext"]["runAsUser"] == 1000
    assert notebook["securityContext"]["runAsUser"] == 1000
    assert named(pod["volumes"], "escape-hub-session")["emptyDir"]["medium"] == "Memory"
    for container in (notebook, sidecar):
        mount = named(container["volumeMounts"], "escape-hub-session")
        assert mount["mountPath"] == "/run/escape-hub"
    plan = SessionPlan.from_json(env_of(sidecar)[ENV])
    assert plan.token_dir == "/run/escape-hub/alice"
    assert env_of(notebook)["OAUTH2_TOKEN"] == "FILE:/run/escape-hub/alice/eos.token"
    assert env_of(notebook)[ENV] == env_of(sidecar)[ENV]


async def test_no_service_account_s_token_goes_in_unless_the_operator_says_so() -> None:
    assert (await manifest(spawner()))["spec"]["automountServiceAccountToken"] is False
    theirs = spawner(service_account="session")
    assert (await manifest(theirs))["spec"]["automountServiceAccountToken"] is False
    theirs = spawner(service_account="session", automount_service_account_token=True)
    assert (await manifest(theirs))["spec"]["automountServiceAccountToken"] is True


async def test_the_only_secret_in_the_pod_is_the_server_s_own_token() -> None:
    pod = (await manifest(spawner()))["spec"]
    notebook, sidecar = named(pod["containers"], "notebook"), pod["initContainers"][-1]
    theirs = [n for n, v in env_of(notebook).items() if v == TOKEN]
    assert [n for n, v in env_of(sidecar).items() if v == TOKEN] == ["JUPYTERHUB_API_TOKEN"]
    # KubeSpawner also gives the notebook JPY_API_TOKEN, its old name.
    assert set(theirs) <= {"JUPYTERHUB_API_TOKEN", "JPY_API_TOKEN"}
    assert json.dumps(pod).count(TOKEN) == len(theirs) + 1


async def test_with_the_extension_there_is_a_volume_and_no_sidecar() -> None:
    pod = (await manifest(spawner(delivery="extension", uid=None)))["spec"]
    assert not pod.get("initContainers")
    assert named(pod["volumes"], "escape-hub-session")
    notebook = named(pod["containers"], "notebook")
    assert named(notebook["volumeMounts"], "escape-hub-session")


async def test_the_operator_s_own_containers_and_volumes_stay() -> None:
    own = spawner(
        init_containers=[{"name": "first", "image": "i"}],
        volumes=[{"name": "home", "persistentVolumeClaim": {"claimName": "home-{username}"}}],
        volume_mounts=[{"name": "home", "mountPath": "/home/jovyan"}],
    )
    pod = (await manifest(own))["spec"]
    assert [c["name"] for c in pod["initContainers"]] == ["first", "escape-hub-session"]
    assert named(pod["volumes"], "home")["persistentVolumeClaim"]["claimName"] == "home-alice"
    sidecar = pod["initContainers"][-1]
    assert "home" not in [m["name"] for m in sidecar["volumeMounts"]]


async def test_nobody_knows_the_user_of_an_image(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(StartRefusedError, match="not set up correctly"):
        await spawner(uid=None).get_pod_manifest()
    assert "KubeSpawner.uid is not set" in caplog.text


async def test_the_user_can_come_from_the_pod_s_security_context() -> None:
    made = spawner(uid=None, pod_security_context={"runAsUser": 1001, "runAsGroup": 7})
    sidecar = (await manifest(made))["spec"]["initContainers"][-1]
    assert sidecar["securityContext"]["runAsUser"] == 1001
    assert sidecar["securityContext"]["runAsGroup"] == 7


# -- the lake ------------------------------------------------------------------------------


async def test_the_lake_is_mounted_by_default_and_scratch_is_the_sidecar_s_too() -> None:
    pod = (await manifest(spawner()))["spec"]
    notebook, sidecar = named(pod["containers"], "notebook"), pod["initContainers"][-1]
    lake = {m["mountPath"]: m for m in notebook["volumeMounts"] if "mountPropagation" in m}
    assert set(lake) == {"/eos", "/scratch"}
    assert {m["mountPropagation"] for m in lake.values()} == {"HostToContainer"}
    paths = [m["mountPath"] for m in sidecar["volumeMounts"]]
    assert paths == ["/run/escape-hub", "/scratch"]
    assert SessionPlan.from_json(env_of(sidecar)[ENV]).scratch_dir == "/scratch/alice"


async def test_without_the_lake_nothing_of_it_is_in_the_pod() -> None:
    made = spawner(lake_mounts={})
    pod = (await manifest(made))["spec"]
    assert [v["name"] for v in pod["volumes"]] == ["escape-hub-session"]
    assert made._plan.scratch_dir == ""


async def test_groups_of_the_person_become_groups_of_the_pod() -> None:
    made = spawner(group_gids={"escape": 2001, "escape/cms": 2002}, supplemental_gids=[50])
    for _ in range(2):  # what is added for one start is not there twice in the next
        context = (await manifest(made))["spec"]["securityContext"]
        assert context["supplementalGroups"] == [50, 2001]
    made.supplemental_gids = lambda _spawner: [60]
    assert (await manifest(made))["spec"]["securityContext"]["supplementalGroups"] == [60, 2001]
    assert callable(made.supplemental_gids)


# -- environments ----------------------------------------------------------------------------


async def test_the_environment_is_what_is_started(catalogue_file: str) -> None:
    made = spawner(environments_file=catalogue_file)
    made._groups = frozenset({"escape/cms"})
    made.user_options = {"profile": "cms", "size": "large", "size--unlisted-choice": "x", "mine": 1}
    made.apply_selection(select(made.catalogue, made._groups, made.user_options))
    await made.load_user_options()
    pod = await manifest(made)
    notebook = named(pod["spec"]["containers"], "notebook")
    assert notebook["image"] == "i/cms:1"
    assert notebook["resources"]["limits"] == {
        "cpu": 2.0,
        "memory": 8 * 1024**3,
        "nvidia.com/gpu": "1",
    }
    assert pod["spec"]["nodeSelector"] == {"gpu": "yes"}
    assert pod["metadata"]["labels"]["team"] == "cms"
    # A profile that empties lists takes nothing of the session away.
    assert pod["spec"]["initContainers"][-1]["name"] == "escape-hub-session"
    assert named(pod["spec"]["volumes"], "escape-hub-session")
    assert made.user_options["mine"] == 1


async def test_an_operator_s_own_class_works_as_well() -> None:
    class Theirs(KubeSpawner):
        async def get_pod_manifest(self) -> Any:
            pod = await super().get_pod_manifest()
            pod.metadata.labels["theirs"] = "yes"
            return pod

    class Both(EscapeKubeSpawnerMixin, Theirs):
        pass

    pod = await manifest(spawner(Both))
    assert pod["metadata"]["labels"]["theirs"] == "yes"
    assert pod["spec"]["initContainers"][-1]["name"] == "escape-hub-session"


# -- settings ----------------------------------------------------------------------------------


def hub(**settings: Any) -> Any:
    config = Config()
    for name, value in settings.items():
        config.EscapeKubeSpawner[name] = value
    log = logging.getLogger("test")
    return SimpleNamespace(spawner_class=EscapeKubeSpawner, config=config, log=log)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "sidecar_image is not set"),
        ({"sidecar_image": "i", "token_dir": "/tmp/{session}"}, "must lie below token_mount"),
        ({"sidecar_image": "i", "lake_mounts": {"eos": "/eos"}}, "lake_mounts"),
        ({"sidecar_image": "i", "scratch_dir": "/scratch"}, "scratch_dir: '/scratch' is the same"),
    ],
)
def test_a_setting_that_cannot_work_stops_the_hub(settings: dict[str, Any], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        check_at_start(hub(**settings), ["rucio"])


@pytest.mark.parametrize(
    "settings",
    [
        {"delivery": "extension"},
        {"sidecar_image": "i"},
        {"sidecar_image": "i", "token_mount": "/tokens"},
        {"sidecar_image": "i", "scratch_dir": "", "lake_mounts": {}},
    ],
)
def test_settings_that_work_pass(settings: dict[str, Any]) -> None:
    check_at_start(hub(**settings), ["rucio"])

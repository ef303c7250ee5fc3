"""What an operator sets is checked when the hub starts, and means the same on every spawner."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from jupyterhub.spawner import LocalProcessSpawner
from kubespawner import KubeSpawner
from traitlets.config import Config

from escape_hub.core.environment_choice import options_from_form, select
from escape_hub.core.environments import Catalogue
from escape_hub.errors import SettingsError
from escape_hub.hub.catalogue import parse
from escape_hub.hub.spawner_traits import check_at_start
from escape_hub.hub.spawners import EscapeLocalProcessSpawner, EscapeSimpleLocalProcessSpawner
from escape_hub.hub.spawning import EscapeSpawnerMixin

CATALOGUE = """
environments:
  lab:
    name: Lab
    local:
      cmd: [my-singleuser]
      args: [--mine]
      env: {MINE: "1"}
      notebook_dir: /data
      default_url: /lab
"""


KUBECONFIG = """
current-context: none
contexts: [{name: none, context: {cluster: none, user: none}}]
clusters: [{name: none, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: none, user: {}}]
"""


class OnKubernetes(EscapeSpawnerMixin, KubeSpawner):
    """An operator's own class."""


def hub(spawner: type, **settings: Any) -> Any:
    """As much of a hub as the check looks at; settings as ``Section__name``."""
    config = Config()
    for name, value in settings.items():
        section, trait = name.split("__")
        config[section][trait] = value
    return SimpleNamespace(spawner_class=spawner, config=config, log=logging.getLogger("test"))


@pytest.mark.parametrize("spawner", [EscapeLocalProcessSpawner, OnKubernetes])
def test_a_bad_catalogue_stops_the_hub_with_file_line_and_reason(
    spawner: type, tmp_path: Path
) -> None:
    file = tmp_path / "environments.yaml"
    file.write_text("environments:\n  a:\n    nmae: A\n")
    app = hub(spawner, EscapeSpawnerMixin__environments_file=str(file))
    with pytest.raises(SettingsError, match=r"environments.yaml:3: environments.a.nmae: unknown"):
        check_at_start(app, ["rucio"])


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"EscapeSpawnerMixin__token_dir": "/tmp/tokens"}, "the same for all users"),
        ({"EscapeLocalProcessSpawner__token_dir": "tokens"}, "absolute path"),
        (
            {
                "EscapeSpawnerMixin__rucio_host": "https://rucio.example.org",
                "EscapeSpawnerMixin__rucio_audience": "rucoi",
            },
            "rucio_audience is 'rucoi'",
        ),
    ],
)
def test_a_setting_that_cannot_work_is_named(settings: dict[str, str], reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        check_at_start(hub(EscapeLocalProcessSpawner, **settings), ["rucio"])


def test_the_nearest_section_is_the_one_that_is_checked() -> None:
    app = hub(
        EscapeLocalProcessSpawner,
        EscapeSpawnerMixin__token_dir="wrong",
        EscapeLocalProcessSpawner__token_dir="/tmp/{username}",
    )
    check_at_start(app, ["rucio"])
    check_at_start(hub(EscapeLocalProcessSpawner), [])


def test_a_spawner_that_gives_no_access_is_said_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    check_at_start(hub(LocalProcessSpawner), ["rucio"])
    assert "LocalProcessSpawner, which gives sessions no access" in caplog.text


@pytest.fixture
def catalogue_file(tmp_path: Path) -> str:
    file = tmp_path / "environments.yaml"
    file.write_text(CATALOGUE)
    return str(file)


@pytest.fixture
def no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """KubeSpawner reads the address of a cluster as soon as it is made; nobody listens there."""
    file = tmp_path / "kubeconfig"
    file.write_text(KUBECONFIG)
    setting = "kubernetes_asyncio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
    monkeypatch.setattr(setting, str(file))


@pytest.mark.usefixtures("no_cluster")
async def test_the_catalogue_replaces_kubespawner_s_form(catalogue_file: str) -> None:
    spawner = OnKubernetes(_mock=True, environments_file=catalogue_file)
    assert spawner.options_form is OnKubernetes.environment_form
    assert spawner.options_from_form is options_from_form
    assert spawner.apply_user_options is not None


def test_without_a_catalogue_the_spawner_is_as_upstream_made_it() -> None:
    spawner = EscapeLocalProcessSpawner()
    assert spawner.options_form == ""
    assert spawner.options_from_form({"a": ["b"]}) == {"a": ["b"]}
    assert spawner.apply_user_options is None


@pytest.mark.parametrize("spawner", [EscapeLocalProcessSpawner, EscapeSimpleLocalProcessSpawner])
def test_a_local_spawner_starts_what_the_environment_says(spawner: type) -> None:
    catalogue: Catalogue = parse(CATALOGUE, name="x")
    config = Config()
    config.Spawner.environment = {"THEIRS": "2"}
    config.Spawner.args = ["--allow-root"]
    found: Any = spawner(config=config)
    found.apply_selection(select(catalogue, (), {}))
    assert found.cmd == ["my-singleuser"]
    assert found.args == ["--allow-root", "--mine"]
    assert found.environment == {"THEIRS": "2", "MINE": "1"}
    assert (found.notebook_dir, found.default_url) == ("/data", "/lab")
    # What the operator configured is not changed for the next session.
    assert config.Spawner.environment == {"THEIRS": "2"}

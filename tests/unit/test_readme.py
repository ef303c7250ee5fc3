"""What README promises an operator is configuration that works."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from traitlets.config import Config

from escape_hub.hub.authenticator import EscapeAuthenticator
from escape_hub.hub.spawners import EscapeLocalProcessSpawner

README = Path(__file__).resolve().parents[2] / "README.md"


def readme_config() -> Config:
    block = re.search(r"```python\n(.*?)```", README.read_text(), re.S)
    assert block is not None
    c = Config()
    exec(block.group(1), {"c": c})  # noqa: S102 - our own README
    return c


async def test_the_ten_lines_of_the_readme_configure_both_audiences(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OAUTH_CLIENT_SECRET", "a-secret-of-the-operator")
    authenticator = EscapeAuthenticator(config=readme_config())
    found = {a.name: (a.audience, a.format, a.endpoint) for a in authenticator.audience_settings}
    assert found == {
        "eos": ("eos-eulake", "eos", "iam-escape.cloud.cnaf.infn.it/userinfo"),
        "rucio": ("rucio", "bare", ""),
    }
    await authenticator.issuer_client.aclose()


def test_the_ten_lines_of_the_readme_configure_the_spawner() -> None:
    c = readme_config()
    assert c.JupyterHub.spawner_class == "escape-local"
    spawner = EscapeLocalProcessSpawner(config=c)
    assert spawner.rucio_host == "https://escape-rucio.example.org"


def test_the_scope_of_the_readme_is_the_one_the_endpoint_asks_for() -> None:
    fragment = Path(README.parent / "hub_config/jupyterhub_config.d/40_roles.py").read_text()
    c = readme_config()
    for scope in c.JupyterHub.custom_scopes:
        assert scope in fragment

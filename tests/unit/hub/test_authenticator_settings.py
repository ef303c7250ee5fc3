"""A configuration that cannot work stops the hub with one line that says what to write."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import certifi
import pytest
from jupyterhub import scopes
from traitlets import HasTraits
from traitlets.config import Config

from escape_hub.errors import SettingsError
from escape_hub.hub.authenticator import EscapeAuthenticator
from escape_hub.hub.settings_traits import EscapeTraits
from escape_hub.hub.startup import FORCED, REPLACED
from escape_hub.hub.swan_names import OLD_CLASS, SAME_NAMES, SWAN_NAMES
from tests.fakes.iam_peer import Peer
from tests.unit.hub.in_process import (
    AUDIENCES,
    TOKEN_SCOPE,
    QuietHub,
    hub_config,
    initialize,
    use_crypt_key,
)


def config(**settings: Any) -> Config:
    c = Config()
    c.EscapeAuthenticator.issuer = "https://iam.example.org/"
    c.EscapeAuthenticator.client_id = "escape-hub"
    c.EscapeAuthenticator.client_secret = "a-secret"
    c.EscapeAuthenticator.audiences = AUDIENCES
    for name, value in settings.items():
        setattr(c.EscapeAuthenticator, name, value)
    return c


def made(**settings: Any) -> EscapeAuthenticator:
    return EscapeAuthenticator(config=config(**settings))


def test_the_defaults_are_those_of_the_escape_iam() -> None:
    found = made()
    assert found.login_service == "ESCAPE IAM"
    assert found.scope == ["openid", "profile", "email", "offline_access"]
    assert found.username_claim == "preferred_username"
    assert found.enable_auth_state
    assert found.enable_pkce
    assert found.refresh_pre_spawn
    assert found.manage_groups
    assert found.auth_refresh_age > 0
    assert found.signing_algorithms == ["RS256", "ES256"]
    assert found.rules.empty


def test_settings_reach_the_issuers_client_and_the_policy() -> None:
    bundle = certifi.where()
    found = made(
        expected_issuer="https://iam.example.org",
        client_auth="client_secret_post",
        ca_file=bundle,
        http_proxy="http://proxy.example.org:3128",
        outage_grace=60,
        max_session_age=3600,
        blocked_check_interval=600,
        renewal_rate=1,
        renewal_concurrency=2,
    )
    settings, policy = found.issuer_settings, found.policy
    assert settings.expected_issuer == "https://iam.example.org"
    assert settings.client_auth == "client_secret_post"
    assert settings.ca_file == bundle
    assert settings.proxy == "http://proxy.example.org:3128"
    assert (policy.outage_grace, policy.max_session_age) == (60, 3600)
    assert (policy.check_interval, policy.rate, policy.in_flight) == (600, 1, 2)


def test_groups_can_be_allowed_without_any_other_setting() -> None:
    assert made(allowed_groups={"escape"}).rules.allowed_groups == {"escape"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"client_id": ""}, "client_id"),
        ({"client_secret": ""}, "client_secret"),
        ({"issuer": "http://iam.example.org/"}, "https"),
        ({"signing_algorithms": ["HS256"]}, "HS256"),
        ({"http_proxy": "proxy:3128"}, "http_proxy"),
        ({"audiences": {}}, "audiences is empty"),
        ({"audiences": {"eos": {**AUDIENCES["eos"], "endpoint": "iam.example.org:443"}}}, "port"),
        ({"scope": ["profile"]}, "openid"),
        ({"auth_refresh_age": 0}, "auth_refresh_age"),
        ({"enable_auth_state": False}, "enable_auth_state"),
        ({"enable_pkce": False}, "PKCE"),
        ({"refresh_pre_spawn": False}, "refresh_pre_spawn"),
        ({"extra_authorize_params": {"nonce": "1"}}, "nonce"),
        ({"extra_authorize_params": {"code_challenge_method": "plain"}}, "code_challenge_method"),
    ],
)
def test_what_cannot_work_or_protects_nobody_is_refused(
    settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingsError, match=words):
        made(**settings)


def test_the_default_audiences_ask_for_the_endpoint_of_eos() -> None:
    c = config()
    del c.EscapeAuthenticator["audiences"]
    with pytest.raises(SettingsError, match=r"audiences\['eos'\].*'endpoint'"):
        EscapeAuthenticator(config=c)


@pytest.mark.parametrize("name", sorted(SWAN_NAMES))
def test_a_name_of_swan_is_refused_and_the_new_one_named(name: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(SWAN_NAMES[name])):
        made(**{name: "whatever"})
    c = config()
    c[OLD_CLASS][name] = "whatever"
    with pytest.raises(SettingsError, match=re.escape(SWAN_NAMES[name])):
        EscapeAuthenticator(config=c)


@pytest.mark.parametrize("name", sorted(SWAN_NAMES))
def test_what_replaces_a_name_of_swan_exists(name: str) -> None:
    new = SWAN_NAMES[name].split()[0].rstrip(":,")
    assert (
        new == "nothing" or new.startswith("c.Spawner.") or EscapeAuthenticator.class_traits()[new]
    )
    assert name not in EscapeTraits.class_traits()


@pytest.mark.parametrize("name", SAME_NAMES)
def test_what_has_the_same_name_as_in_swan_is_still_there(name: str) -> None:
    assert EscapeAuthenticator.class_traits()[name].metadata["config"]


@pytest.mark.parametrize("name", sorted(REPLACED))
def test_a_setting_of_upstream_without_effect_is_refused(name: str) -> None:
    assert name in EscapeAuthenticator.class_traits()
    c = config()
    c.GenericOAuthenticator[name] = EscapeAuthenticator.class_traits()[name].default()
    with pytest.raises((SettingsError, ValueError), match=re.escape(name)):
        EscapeAuthenticator(config=c)


def test_every_forced_setting_is_a_trait() -> None:
    assert set(FORCED) <= set(EscapeAuthenticator.class_traits())


OWN = sorted(set(EscapeTraits.class_traits()) - set(HasTraits.class_traits()))


@pytest.mark.parametrize("name", OWN)
def test_every_setting_explains_itself(name: str) -> None:
    trait = EscapeTraits.class_traits()[name]
    assert trait.metadata["config"], "not configurable"
    assert len(trait.help.split()) > 15
    assert ".. versionadded:: 0.1" in trait.help


def test_the_secret_is_read_once_from_the_environment_and_taken_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import os

    monkeypatch.setenv("ESCAPE_HUB_CLIENT_SECRET", "from-outside")
    c = config()
    del c.EscapeAuthenticator["client_secret"]
    found = EscapeAuthenticator(config=c)
    assert found.issuer_settings.client_secret == "from-outside"
    assert "ESCAPE_HUB_CLIENT_SECRET" not in os.environ


def test_made_alone_and_without_issuer_it_is_its_base_class() -> None:
    found = EscapeAuthenticator(token_url="https://x.example.org/token", allowed_users={"alice"})
    assert not found.manage_groups
    assert not found.enable_auth_state
    assert found.login_service == "OAuth 2.0"


async def refusal_at_start(c: Config) -> str:
    """What the hub logs as its last word; it must end with status 1 and without a traceback."""
    app = QuietHub(config=c)
    QuietHub.clear_instance()
    with pytest.raises(SystemExit) as caught:
        await initialize(app)
    assert caught.value.code == 1
    app.db.close()
    app.db.get_bind().dispose()
    assert not [r for r in app.records if r.exc_info]
    critical = [r.getMessage() for r in app.records if r.levelname == "CRITICAL"]
    assert len(critical) == 1
    assert "\n" not in critical[0]
    return critical[0]


@pytest.fixture
async def hub_settings(tmp_path: Path) -> Any:
    use_crypt_key("11" * 32)
    async with Peer() as iam:
        yield hub_config(iam, 9, tmp_path)
    use_crypt_key("11" * 32)


async def test_a_hub_without_an_issuer_ends_with_one_line(hub_settings: Config) -> None:
    hub_settings.EscapeAuthenticator.issuer = ""
    assert "issuer is empty" in await refusal_at_start(hub_settings)


async def test_a_hub_without_a_crypt_key_ends_with_one_line(hub_settings: Config) -> None:
    use_crypt_key("")
    last = await refusal_at_start(hub_settings)
    assert "JUPYTERHUB_CRYPT_KEY is not set" in last
    assert "openssl rand -hex 32" in last


async def test_a_value_of_the_wrong_kind_ends_with_one_line(hub_settings: Config) -> None:
    hub_settings.EscapeAuthenticator.outage_grace = "long"
    assert "outage_grace" in await refusal_at_start(hub_settings)


async def test_a_secret_of_the_wrong_kind_is_not_shown(hub_settings: Config) -> None:
    hub_settings.EscapeAuthenticator.client_secret = 271828182845
    last = await refusal_at_start(hub_settings)
    assert "client_secret" in last
    assert "271828182845" not in last


async def test_a_hub_without_the_tokens_scope_ends_and_names_the_fragment(
    hub_settings: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(scopes.scope_definitions, TOKEN_SCOPE, raising=False)
    hub_settings.JupyterHub.custom_scopes = {}
    hub_settings.JupyterHub.load_roles = []
    assert "40_roles.py" in await refusal_at_start(hub_settings)


@pytest.mark.parametrize(
    ("hub_roles", "words"),
    [
        ({"instructor": {"teacher"}}, "load_roles"),
        ({"admin": {"boss"}}, "admin_roles"),
        ({"user": {"guest"}}, "by itself"),
        ({"helper": set()}, "empty"),
        ({"helper": "teacher"}, "hub_roles"),
    ],
)
async def test_a_hub_role_that_cannot_be_given_ends_with_one_line(
    hub_settings: Config, hub_roles: dict[str, Any], words: str
) -> None:
    hub_settings.JupyterHub.load_roles.append({"name": "helper", "scopes": ["list:users"]})
    hub_settings.EscapeAuthenticator.hub_roles = hub_roles
    last = await refusal_at_start(hub_settings)
    assert "hub_roles" in last
    assert words in last


async def test_a_hub_that_lets_nobody_in_says_so_and_which_settings_do(
    hub_settings: Config,
) -> None:
    hub_settings.EscapeAuthenticator.allowed_groups = set()
    app = QuietHub(config=hub_settings)
    await initialize(app)
    warnings = [r.getMessage() for r in app.records if r.levelname == "WARNING"]
    assert [w for w in warnings if "Nobody can sign in" in w and "allowed_groups" in w]
    await app.cleanup()
    app.db.close()
    app.db.get_bind().dispose()

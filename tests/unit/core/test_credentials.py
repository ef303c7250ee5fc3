"""The exact bytes of the files that a session holds, and what is never written."""

from __future__ import annotations

import configparser
import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escape_hub.core.audiences import Audience
from escape_hub.core.credentials import MAX_TOKEN_LENGTH, rucio_cfg, token_text
from escape_hub.core.session_plan import ENV, RucioClient, SessionPlan
from escape_hub.core.tokens import AccessToken
from escape_hub.errors import MalformedTokenError, SettingsError

EOS = Audience("eos", "eos-eulake", "openid", "eos.token", "eos", "EOS", "iam.example.org/userinfo")
RUCIO = Audience("rucio", "rucio", "openid profile", "rucio.token")
CLIENT = RucioClient("https://rucio.example.org", "https://auth.example.org", "alice")
PLAN = SessionPlan("/dev/shm/escape-hub.alice", (EOS, RUCIO), CLIENT)


def test_the_eos_file_is_scheme_token_endpoint_without_a_newline() -> None:
    assert token_text(EOS, "a.b-c_d.e") == "oauth2:a.b-c_d.e:iam.example.org/userinfo"


def test_a_bare_file_is_the_token_alone() -> None:
    assert token_text(RUCIO, "a.b-c_d.e") == "a.b-c_d.e"


@given(st.text(max_size=40))
def test_what_eos_would_split_wrongly_is_never_written(token: str) -> None:
    try:
        text = token_text(EOS, token)
    except MalformedTokenError as error:
        assert len(token) < 4 or token not in error.message
    else:
        assert text.split(":") == ["oauth2", token, "iam.example.org/userinfo"]
        assert text.split() == [text]


def test_a_token_that_no_header_could_carry_is_refused() -> None:
    with pytest.raises(MalformedTokenError):
        token_text(RUCIO, "a" * (MAX_TOKEN_LENGTH + 1))


def test_rucio_cfg_says_what_the_client_needs_and_leaves_out_what_is_not_set() -> None:
    cfg = configparser.ConfigParser()
    cfg.read_string(rucio_cfg(PLAN))
    assert dict(cfg["client"]) == {
        "rucio_host": "https://rucio.example.org",
        "auth_host": "https://auth.example.org",
        "auth_type": "oidc",
        "auth_token_file_path": "/dev/shm/escape-hub.alice/rucio.token",
        "account": "alice",
        "oidc_audience": "rucio",
        "oidc_scope": "openid profile",
        "request_retries": "3",
    }


def test_a_percent_sign_survives_the_clients_interpolation() -> None:
    cfg = configparser.ConfigParser()
    cfg.read_string(rucio_cfg(replace(PLAN, rucio=replace(CLIENT, ca_cert="/etc/100%.pem"))))
    assert cfg["client"]["ca_cert"] == "/etc/100%.pem"


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        (replace(PLAN, rucio=None), "no Rucio client"),
        (replace(PLAN, rucio=replace(CLIENT, audience="lake")), "'lake' is not among"),
        (replace(PLAN, rucio=replace(CLIENT, account="alice\n[x]")), "line break"),
    ],
)
def test_a_rucio_cfg_that_cannot_work_is_refused(plan: SessionPlan, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        rucio_cfg(plan)


def test_a_plan_survives_its_way_through_the_environment() -> None:
    environment = PLAN.environment()
    assert SessionPlan.from_json(environment[ENV]) == PLAN
    assert environment["OAUTH2_TOKEN"] == "FILE:/dev/shm/escape-hub.alice/eos.token"
    assert environment["RUCIO_CONFIG"] == "/dev/shm/escape-hub.alice/rucio.cfg"
    assert not [name for name in environment if name.startswith("BEARER")]


def test_a_plan_without_eos_and_rucio_sets_neither_variable() -> None:
    plan = SessionPlan("/dev/shm/x", (RUCIO,))
    assert set(plan.environment()) == {ENV}
    assert SessionPlan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"version": 99}', json.dumps({"version": 1, "audiences": [{"x": 1}]})],
)
def test_a_plan_of_another_version_says_which_package_to_install(text: str) -> None:
    with pytest.raises(SettingsError, match="install the hub's version"):
        SessionPlan.from_json(text)


def test_a_token_never_shows_itself() -> None:
    token = AccessToken("secret-value", 200.0, 100.0)
    assert "secret-value" not in f"{token} {token!r} {[token]}"
    assert (token.lifetime, token.remaining(150.0)) == (100.0, 50.0)
    assert token.is_valid(150.0, 49.0) and not token.is_valid(150.0, 50.0)

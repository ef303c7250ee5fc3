"""Settings of the issuer: what is wrong is told by name, with the mend, without a secret."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from escape_hub.errors import SettingsError
from escape_hub.settings import IssuerSettings


def settings(**changed: Any) -> IssuerSettings:
    made: dict[str, Any] = {
        "issuer": "https://iam.example.org/",
        "client_id": "hub",
        "client_secret": "s3cret",
        **changed,
    }
    return IssuerSettings(**made)


def test_defaults_are_safe() -> None:
    found = settings()
    assert found.client_auth == "client_secret_basic"
    assert found.signing_algorithms == ("RS256", "ES256")
    assert (found.connect_timeout, found.total_timeout, found.clock_skew) == (3, 30, 60)


def test_they_are_frozen_and_show_no_secret() -> None:
    found = settings(proxy="http://alice:pass@proxy.example.org:3128")
    assert "s3cret" not in repr(found)
    assert "pass" not in repr(found)
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.issuer = "x"  # type: ignore[misc]


@pytest.mark.parametrize(
    "changed",
    [
        {"issuer": "http://127.0.0.1:8081/"},
        {"issuer": "http://localhost:8081/"},
        {"expected_issuer": "https://iam.example.org"},
        {"client_auth": "client_secret_post"},
        {"signing_algorithms": ["PS256", "EdDSA"]},
        {"proxy": "http://proxy.example.org:3128"},
        {"clock_skew": 0},
    ],
)
def test_good_ones_pass(changed: dict[str, Any]) -> None:
    settings(**changed)


@pytest.mark.parametrize(
    ("changed", "name", "mend"),
    [
        ({"issuer": ""}, "issuer", "https://iam.example.org/"),
        ({"issuer": "http://iam.example.org/"}, "issuer", "https"),
        ({"issuer": "iam.example.org"}, "issuer", "https"),
        ({"issuer": "https://iam.example.org/?x=1"}, "issuer", "without query"),
        (
            {"issuer": "https://iam.example.org/.well-known/openid-configuration"},
            "issuer",
            "leave out",
        ),
        ({"expected_issuer": "x"}, "expected_issuer", "https"),
        ({"expected_issuer": ""}, "expected_issuer", "https"),
        ({"client_id": ""}, "client_id", "register"),
        ({"client_secret": ""}, "client_secret", "confidential"),
        ({"client_auth": "private_key_jwt"}, "client_auth", "client_secret_basic"),
        ({"signing_algorithms": ()}, "signing_algorithms", "RS256"),
        ({"signing_algorithms": "RS256"}, "signing_algorithms", "list"),
        ({"signing_algorithms": ("HS256",)}, "signing_algorithms", "RS256"),
        ({"signing_algorithms": ("none",)}, "signing_algorithms", "RS256"),
        ({"proxy": "proxy.example.org:3128"}, "proxy", "http://"),
        ({"proxy": "http://proxy:port"}, "proxy", "http://"),
        ({"connect_timeout": 0}, "connect_timeout", "more than 0"),
        ({"total_timeout": 1e9}, "total_timeout", "at most"),
        ({"clock_skew": -1}, "clock_skew", "between"),
        ({"clock_skew": 3600}, "clock_skew", "mend the clocks"),
    ],
)
def test_a_wrong_one_is_named_with_its_mend(changed: dict[str, Any], name: str, mend: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}") as caught:
        settings(**changed)
    assert mend in caught.value.message


def test_a_wrong_proxy_is_not_repeated() -> None:
    with pytest.raises(SettingsError) as caught:
        settings(proxy="ftp://alice:pass@proxy")
    assert "pass" not in caught.value.message

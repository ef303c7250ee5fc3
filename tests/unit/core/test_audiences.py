"""What an operator may write as an audience, and what each mistake is answered with."""

from __future__ import annotations

from typing import Any

import pytest

from escape_hub.core.audiences import Audience, check_endpoint, parse_audiences
from escape_hub.errors import SettingsError

GOOD = {"audience": "rucio", "scope": "openid profile"}
EOS = {**GOOD, "audience": "eos-eulake", "format": "eos", "endpoint": "iam.example.org/userinfo"}


def test_an_audience_gets_its_file_format_and_label_from_its_name() -> None:
    assert parse_audiences({"rucio": GOOD}) == (
        Audience("rucio", "rucio", "openid profile", "rucio.token", "bare", "rucio", ""),
    )


def test_every_key_of_an_audience_is_kept() -> None:
    raw = {**EOS, "file": "lake.eos", "label": "EOS storage"}
    assert parse_audiences({"eos": raw}) == (
        Audience(
            "eos",
            "eos-eulake",
            "openid profile",
            "lake.eos",
            "eos",
            "EOS storage",
            "iam.example.org/userinfo",
        ),
    )


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ({}, "is empty"),
        ({"rucio": "rucio"}, "must be a mapping"),
        ({"Rucio!": GOOD}, "lower-case"),
        ({"rucio": {**GOOD, "scopes": "x"}}, "unknown keys ['scopes']"),
        ({"rucio": {**GOOD, "label": 7}}, "'label' must be a string"),
        ({"rucio": {"scope": "openid"}}, "'audience' is missing"),
        ({"rucio": {"audience": "rucio"}}, "'scope' must be"),
        ({"rucio": {**GOOD, "scope": "openid  profile"}}, "'scope' must be"),
        ({"rucio": {**GOOD, "scope": "openid offline_access"}}, "take it out"),
        ({"rucio": {**GOOD, "file": "../rucio"}}, "plain file name"),
        ({"rucio": {**GOOD, "format": "jwt"}}, "'format' must be one of"),
        ({"rucio": {**GOOD, "endpoint": "iam.example.org"}}, "belongs to format 'eos'"),
        ({"eos": {**EOS, "endpoint": ""}}, "needs 'endpoint'"),
        ({"rucio": {**GOOD, "file": "rucio.cfg"}}, "is taken"),
        ({"a": {**GOOD, "file": "x"}, "b": {**GOOD, "file": "x"}}, "is taken"),
        ({"eos": EOS, "pilot": EOS}, "only one audience"),
    ],
)
def test_a_mistake_names_the_entry_and_the_mend(raw: dict[str, Any], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse_audiences(raw, setting="EscapeAuthenticator.audiences")
    assert said in caught.value.message
    assert caught.value.message.startswith("EscapeAuthenticator.audiences")


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("https://iam.example.org/userinfo", "has a scheme"),
        ("iam.example.org:8443/userinfo", "has a port"),
        ("iam example.org", "is not a host"),
        ("", "is not a host"),
    ],
)
def test_an_endpoint_that_eos_would_misread_is_refused(endpoint: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        check_endpoint(endpoint, where="audiences['eos']")


def test_an_endpoint_of_host_and_path_is_kept_as_it_is() -> None:
    assert check_endpoint("iam.example.org/userinfo", where="x") == "iam.example.org/userinfo"

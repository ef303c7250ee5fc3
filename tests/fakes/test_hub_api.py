"""The stand-in for the hub's token endpoint keeps the contract it stands for."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.fakes.hub_api import Behaviour, FakeHub


def ask(hub: FakeHub, path: str = "/escape/tokens", token: str | None = None) -> dict[str, Any]:
    headers = {"Authorization": f"token {token or hub.api_token}"}
    request = urllib.request.Request(hub.url + path, headers=headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310
        found: dict[str, Any] = json.load(response)
        return found


def test_a_good_reply_has_every_field_of_the_contract() -> None:
    with FakeHub(Behaviour(audiences={"rucio": "rucio"})) as hub:
        found = ask(hub)
    assert set(found) == {
        "version", "generation", "next_poll", "state", "message", "reference", "audiences",
    }  # fmt: skip
    entry = found["audiences"]["rucio"]
    assert {"audience", "label", "state", "access_token", "expires_in", "expires_at"} <= set(entry)
    assert entry["access_token"] in hub.issued


def test_only_the_sessions_own_token_is_answered() -> None:
    with FakeHub(Behaviour()) as hub, pytest.raises(urllib.error.HTTPError) as caught:
        ask(hub, token="wrong")
    caught.value.close()
    assert caught.value.code == 401


def test_the_control_changes_what_comes_next() -> None:
    body = json.dumps({"mode": "refuse", "refusal": [409, {"reason": "needs_login"}]}).encode()
    with FakeHub(Behaviour()) as hub:
        address = hub.url.replace("/hub/api", "/control")
        request = urllib.request.Request(address, data=body, method="PUT")  # noqa: S310
        with urllib.request.urlopen(request, timeout=5) as response:  # noqa: S310
            assert response.status == 204
        with pytest.raises(urllib.error.HTTPError) as caught:
            ask(hub)
        caught.value.close()
    assert caught.value.code == 409


def test_one_audience_can_be_spoilt_or_left_out() -> None:
    audiences = {"eos": "eos-eulake", "rucio": "rucio"}
    overrides = {"eos": {"access_token": "spoilt"}, "rucio": None}
    with FakeHub(Behaviour(audiences=audiences, overrides=overrides)) as hub:
        found = ask(hub)["audiences"]
    assert found["eos"]["access_token"] == "spoilt"
    assert "rucio" not in found

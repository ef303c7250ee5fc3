"""The whole main job over HTTP on the current hub line, and who may ask for tokens."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.harness import Hub, Iam, Person
from tests.harness.session_view import look
from tests.hub.story import tell


@pytest.fixture(scope="module")
def iam_options() -> dict[str, Any]:
    return {"access_token_lifetime": 60}


def test_alice_logs_in_works_with_fresh_files_and_leaves_nothing_behind(
    hub: Hub, iam: Iam, alice: Person
) -> None:
    tell(hub, iam, alice)


def ask(hub: Hub, token: str, **params: Any) -> httpx.Response:
    return httpx.get(
        f"{hub.url}hub/api/escape/tokens",
        headers={"Authorization": f"token {token}"},
        params=params,
    )


def test_only_the_servers_own_token_gets_the_owners_access_tokens(
    hub: Hub, iam: Iam, alice: Person, bob: Person
) -> None:
    alice.login()
    alice.spawn()
    own = look(alice, alice.start_kernel()).env["JUPYTERHUB_API_TOKEN"]

    answer = ask(hub, own)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert set(body["audiences"]) == {"eos", "rucio"}
    assert body["audiences"]["eos"]["expires_in"] > 0
    assert body["next_poll"] > 0
    assert "refresh" not in answer.text

    assert ask(hub, own, min_valid_period="-1").status_code == 400
    assert ask(hub, own, min_valid_period="soon").status_code == 400

    assert ask(hub, "0" * 32).status_code in {401, 403}
    by_cookie = alice.api("GET", "escape/tokens")
    assert by_cookie.status_code == 403
    made = alice.api("POST", "users/alice/tokens", json={"note": "Server at /user/alice/"})
    assert made.status_code == 201, made.text
    refused = ask(hub, made.json()["token"])
    assert refused.status_code == 403
    assert refused.json()["reason"] == "forbidden"

    bob.login()
    bobs = bob.api("POST", "users/bob/tokens", json={"note": "mine"}).json()["token"]
    assert ask(hub, bobs).status_code == 403
    alice.stop_server()
    assert ask(hub, own).status_code in {401, 403}

"""A guest on a shared server: nothing of the owner's from our endpoints; what a terminal gives."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.harness import Hub, Iam, Person
from tests.harness.session_view import look
from tests.harness.stage import Stage
from tests.hub.at_work import AtWork

SHARES = """
c.JupyterHub.load_roles = [{
    "name": "user",
    "scopes": ["self", "custom:escape:tokens!user", "shares!user", "read:users:name"],
}]
"""


@pytest.fixture(scope="module")
def hub_options() -> dict[str, Any]:
    return {"extra": SHARES}


class Guest(Person):
    """Somebody who visits alice's server."""

    @property
    def lab(self) -> str:
        return f"{self.hub}user/alice/"

    def open_lab(self) -> httpx.Response:
        page = self.client.get(self.lab)
        if "/oauth2/authorize" in str(page.url):  # the hub asks whom one would trust
            page = self.submit(page)
        assert page.status_code == 200, (page.url, page.text[:1000])
        assert str(page.url).startswith(self.lab), page.url
        return page


@pytest.fixture(scope="module")
def alice(stage: Stage) -> Iterator[AtWork]:
    """At work on a server that she shares with bob."""
    at_work = AtWork.begin(stage)
    known = Guest(stage.hub.url, "bob")
    known.login()
    known.close()
    answer = at_work.person.api("POST", "shares/alice/", json={"user": "bob"})
    assert answer.status_code == 200, answer.text
    yield at_work
    at_work.close()


@pytest.fixture
def bob(hub: Hub, alice: AtWork) -> Iterator[Guest]:
    guest = Guest(hub.url, "bob")
    guest.login()
    guest.open_lab()
    yield guest
    guest.close()


def secrets_in(iam: Iam, *texts: str) -> list[str]:
    """The kinds of what the IAM issued that are in ``texts``."""
    together = "\n".join(texts)
    return sorted(
        {kind for kind, values in iam.issued().items() for value in values if value in together}
    )


def grants(iam: Iam, user: str) -> Any:
    return iam.counters()["users"].get(user)


def test_our_endpoints_know_a_guest_only_as_who_he_is(iam: Iam, alice: AtWork, bob: Guest) -> None:
    hers, before = grants(iam, "alice"), alice.look()
    tokens = bob.api("GET", "escape/tokens")
    assert (tokens.status_code, tokens.json()["reason"]) == (403, "forbidden")
    asked = {"user": "alice", "username": "alice", "server": "alice/"}
    status = bob.api("GET", "escape/status", params=asked)
    renewed = bob.api("POST", "escape/renew", params=asked)
    for answer in (status, renewed):
        assert answer.status_code == 200, answer.text
    his = bob.api("GET", "escape/status").json()["audiences"][0]["renewed_at"]
    assert his != alice.status()["audiences"][0]["renewed_at"]
    assert secrets_in(iam, tokens.text, status.text, renewed.text) == []
    assert grants(iam, "alice") == hers
    assert alice.look().eos_token == before.eos_token


def test_the_status_in_the_owners_server_holds_no_token(
    iam: Iam, alice: AtWork, bob: Guest
) -> None:
    shown = bob.lab_api("GET", "escape-hub/status")
    poked = bob.lab_api("POST", "escape-hub/status")
    for answer in (shown, poked):
        assert answer.status_code == 200, answer.text
        assert answer.json()["state"] == "fresh"
        assert secrets_in(iam, answer.text) == []
        assert alice.server_token not in answer.text


def test_an_api_token_of_the_guest_for_that_server_opens_none_of_our_endpoints(
    hub: Hub, iam: Iam, alice: AtWork, bob: Guest
) -> None:
    wish = {"scopes": ["access:servers!server=alice/", "custom:escape:tokens!user"]}
    made = bob.api("POST", "users/bob/tokens", json={"note": "Server at /user/alice/", **wish})
    assert made.status_code == 201, made.text
    headers = {"Authorization": f"token {made.json()['token']}"}
    shown = httpx.get(f"{alice.person.lab}escape-hub/status", headers=headers)
    assert shown.status_code == 200  # it does open the server itself
    assert secrets_in(iam, shown.text) == []
    for path in ("tokens", "status"):
        answer = httpx.get(f"{hub.url}hub/api/escape/{path}", headers=headers)
        assert answer.status_code == 403, answer.text
        assert secrets_in(iam, answer.text) == []


def test_what_the_hub_shows_a_guest_of_the_owner_holds_no_token(
    iam: Iam, alice: AtWork, bob: Guest
) -> None:
    pages = [bob.client.get(f"{bob.hub}hub/{path}").text for path in ("home", "token")]
    answers = [bob.api("GET", path) for path in ("users/alice", "users/bob/shared", "user")]
    assert [a.status_code for a in answers[1:]] == [200, 200]
    assert "auth_state" not in "".join(a.text for a in answers)
    assert secrets_in(iam, *pages, *(a.text for a in answers)) == []


def test_a_kernel_gives_a_guest_all_that_the_owners_processes_have_as_the_documentation_says(
    hub: Hub, alice: AtWork, bob: Guest
) -> None:
    """SECURITY.md, the guest: if this is ever false, say so there."""
    found = look(bob, bob.start_kernel())
    assert found.eos_token == alice.look().eos_token
    headers = {"Authorization": f"token {found.env['JUPYTERHUB_API_TOKEN']}"}
    assert httpx.get(f"{hub.url}hub/api/escape/tokens", headers=headers).status_code == 200
    # The end of the share is the end of the guest; what he took lives on, until it expires
    # or the server stops.
    ended = alice.person.api("DELETE", "shares/alice/")
    assert ended.status_code == 204, ended.text
    alice.person.stop_server()
    assert httpx.get(f"{hub.url}hub/api/escape/tokens", headers=headers).status_code == 401

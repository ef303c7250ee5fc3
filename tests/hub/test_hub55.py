"""The older hub line that Zero-to-JupyterHub ships: log in, spawn, renew, stop."""

from __future__ import annotations

import os
from typing import Any

import httpx
import pytest

from tests.harness import Hub, Iam, Person
from tests.harness.processes import wait_for
from tests.harness.stage import Stage
from tests.hub.at_work import AtWork
from tests.hub.story import tell

pytestmark = pytest.mark.hub55


@pytest.fixture(scope="module")
def hub_options() -> dict[str, Any]:
    # Every request a second after the last one has the hub look at the sign-in.
    extra = "c.EscapeAuthenticator.auth_refresh_age = 1"
    return {"python": f"{os.environ['ESCAPE_HUB_VENV55']}/bin/python", "extra": extra}


@pytest.fixture(scope="module")
def iam_options() -> dict[str, Any]:
    return {"access_token_lifetime": 60}


def test_the_main_job_works_on_the_older_hub_line(hub: Hub, iam: Iam, alice: Person) -> None:
    tell(hub, iam, alice)


def test_a_servers_own_requests_are_heard_also_when_its_owner_must_sign_in_again(
    stage: Stage,
) -> None:
    alice = AtWork.begin(stage)
    headers = {"Authorization": f"token {alice.server_token}"}
    stage.iam.revoke_user("alice")
    assert alice.person.api("POST", "escape/renew").json()["state"] == "sign_in"

    def is_sent_to_sign_in() -> bool:
        home = f"{stage.hub.url}hub/home"
        return alice.person.client.get(home, follow_redirects=False).is_redirect

    wait_for("a page to lead to the sign-in", is_sent_to_sign_in, 30)
    # A refresh that says no to a token would be a bare 403 on JupyterHub 5, for each of them.
    assert httpx.get(f"{stage.hub.url}hub/api/user", headers=headers).status_code == 200
    answer = httpx.get(f"{stage.hub.url}hub/api/escape/tokens", headers=headers)
    assert (answer.status_code, answer.json()["reason"]) == (409, "needs_login")
    alice.close()

"""Logging out while a session runs: it goes on, or it ends, as `shutdown_on_logout` says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Hub, Iam, Person
from tests.harness.processes import wait_for
from tests.harness.stage import Stage
from tests.hub.at_work import AtWork

LIFETIME = 12
SHUT_DOWN = "c.JupyterHub.shutdown_on_logout = True"


@pytest.fixture(scope="module")
def iam_options() -> dict[str, Any]:
    return {"access_token_lifetime": LIFETIME}


@pytest.fixture(scope="module")
def session(stage: Stage) -> Iterator[Path]:
    """The directory of the running session of alice, who has closed her browser."""
    at_work = AtWork.begin(stage)
    path = Path(at_work.look().directory["path"])
    at_work.close()
    yield path


def sign_out(person: Person) -> None:
    """Ends at the login page, and the cookies are worth nothing any more."""
    page = person.client.get(f"{person.hub}hub/logout")
    assert page.status_code == 200
    assert str(page.url) == f"{person.hub}hub/login"
    home = person.client.get(f"{person.hub}hub/home", follow_redirects=False)
    assert home.status_code == 302
    assert "/hub/login" in home.headers["Location"]


def refresh_token(iam: Iam) -> str:
    """The one in use."""
    return str(iam.issued()["refresh_tokens"][-1])


def refreshes(iam: Iam) -> int:
    grants = iam.counters()["users"]["alice"].get("refresh_token", {})
    return int(grants.get("ok", 0))


def tokens_in(session: Path) -> dict[str, str]:
    """Name and content of the files; those of a session that has ended are gone."""
    found = {}
    for path in session.glob("*.token"):
        try:
            found[path.name] = path.read_text()
        except FileNotFoundError:
            continue
    return found


def test_a_session_that_goes_on_after_a_logout_keeps_fresh_files(
    hub: Hub, iam: Iam, alice: Person, session: Path
) -> None:
    alice.login()
    sign_out(alice)
    before = tokens_in(session)
    assert set(before) == {"eos.token", "rucio.token"}
    refreshed = refreshes(iam)
    for _ in range(2):  # the first ones may still be those of the login

        def renewed(old: dict[str, str] = before) -> dict[str, str] | None:
            now = tokens_in(session)
            both = set(now) == set(old) and all(now[name] != old[name] for name in old)
            return now if both else None

        before = wait_for("files that are renewed for nobody who looks", renewed, 3 * LIFETIME)
    assert iam.introspect(before["rucio.token"])["active"]
    assert refreshes(iam) > refreshed
    assert iam.introspect(refresh_token(iam))["active"], "it was revoked though it is needed"
    assert "Traceback" not in hub.log_text


def test_with_shutdown_on_logout_session_files_and_refresh_token_go(
    stage: Stage, iam: Iam, session: Path
) -> None:
    hub = stage.hub
    hub.stop()
    hub.extra = SHUT_DOWN
    stage.start_hub()
    alice = Person(hub.url)
    alice.login()
    assert alice.server_ready(), "the session has survived the hub's restart"
    token = refresh_token(iam)
    assert iam.introspect(token)["active"]
    sign_out(alice)
    assert not iam.introspect(token)["active"]
    wait_for("the session to end", lambda: not session.exists(), 30)

    # Without a session a logout ends the access as well; and a login begins anew.
    alice.login()
    assert alice.server() == {}
    assert alice.api("GET", "escape/status").json()["state"] == "fresh"
    token = refresh_token(iam)
    sign_out(alice)
    assert not iam.introspect(token)["active"]
    assert "Traceback" not in hub.log_text
    alice.close()

"""A third service of the lake is a matter of configuration, and of nobody else's access."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness import Iam
from tests.harness.session_view import SessionView
from tests.harness.stage import Stage
from tests.hub.at_work import AtWork, token_files

AUDIENCE = "https://dcache.example.org/"
#: All that an operator writes.
EXTRA = f"""
c.EscapeAuthenticator.audiences["dcache"] = {{
    "audience": {AUDIENCE!r},
    "scope": "openid storage.read:/",
    "file": "dcache.token",
    "label": "dCache storage",
}}
"""
TWO, THREE = {"eos.token", "rucio.token"}, {"eos.token", "rucio.token", "dcache.token"}


@pytest.fixture(scope="module")
def hub_options() -> dict[str, Any]:
    return {"extra": EXTRA}


@pytest.fixture(scope="module")
def iam_options() -> dict[str, Any]:
    return {"access_token_lifetime": 60}


@pytest.fixture(scope="module")
def alice(stage: Stage) -> Iterator[AtWork]:
    """She signed in and started her session while the IAM refused the third audience."""
    stage.iam.faults(refuse_audience=[AUDIENCE])
    at_work = AtWork.begin(stage)
    yield at_work
    at_work.close()


def states(view: SessionView) -> dict[str, str]:
    return {row["name"]: row["state"] for row in view.status["audiences"]}


def test_a_refusal_of_the_third_at_login_does_not_stop_the_other_two(
    iam: Iam, alice: AtWork
) -> None:
    view = alice.look()
    assert token_files(view) == TWO
    assert states(view) == {"eos": "fresh", "rucio": "fresh", "dcache": "refused"}
    for token, audience in ((view.eos_token, "eos-eulake"), (view.rucio_token, "rucio")):
        verdict = iam.introspect(token)
        assert verdict["active"]
        assert audience in verdict["aud"]
    assert "dCache storage" in alice.page()


def test_the_third_gets_a_file_of_its_own_without_a_line_of_code(iam: Iam, alice: AtWork) -> None:
    iam.faults()
    view = alice.wait_until(
        "the third file, by itself", lambda now: token_files(now) == THREE, timeout=40
    )
    file = view.files["dcache.token"]
    assert file["mode"] == "0o600"
    assert file["uid"] == view.uid
    verdict = iam.introspect(file["text"])
    assert verdict["active"]
    assert AUDIENCE in verdict["aud"]
    assert set(verdict["scope"].split()) == {"openid", "storage.read:/"}
    assert set(states(view).values()) == {"fresh"}

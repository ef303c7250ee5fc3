"""The IAM answers 503, or hangs: shorter than a token lives, and past its expiry."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.harness import Person
from tests.harness.processes import wait_for
from tests.harness.session_view import SessionView, look
from tests.harness.stage import Stage

LONG, SHORT = 100, 20
#: How long after the IAM's return the files may take to be fresh.
PATIENCE = 35


def fault(mode: str) -> dict[str, Any]:
    one = {"mode": mode}
    return {"token": {**one, "grant": "any"}, "userinfo": one, "jwk": one, "discovery": one}


def remaining(stage: Stage, token: str) -> float:
    verdict = stage.iam.introspect(token)
    return float(verdict["exp"]) - time.time() if verdict["active"] else -1.0


def assert_no_login_page(alice: Person, stage: Stage) -> None:
    """Pages of the hub and of the lab answer, none of them is a login page or an error."""
    for path in ("hub/home", "user/alice/lab"):
        answer = alice.client.get(f"{stage.hub.url}{path}", follow_redirects=False)
        assert answer.status_code == 200, (path, answer.status_code, answer.headers)
    status = alice.api("GET", "escape/status")
    assert status.status_code == 200


def wait_for_new(alice: Person, kernel: str, old: SessionView, timeout: float) -> SessionView:
    def fresh() -> SessionView | None:
        now = look(alice, kernel)
        both = now.eos_token != old.eos_token and now.rucio_token != old.rucio_token
        return now if both else None

    return wait_for("fresh files after the outage", fresh, timeout, every=0.5)


def at_work(stage: Stage) -> tuple[Person, str]:
    """Alice in a running session, with something in her kernel that an outage must not cost."""
    alice = Person(stage.hub.url, "alice")
    alice.login()
    alice.spawn()
    kernel = alice.start_kernel()
    alice.run(kernel, "witness = 'still here'")
    return alice, kernel


@pytest.mark.parametrize("mode", ["503", "hang"])
def test_an_outage_shorter_than_a_tokens_life_is_noticed_by_nobody(
    tmp_path: Path, mode: str
) -> None:
    with Stage(tmp_path, {}, {"access_token_lifetime": LONG}) as stage:
        alice, kernel = at_work(stage)
        before = look(alice, kernel)
        # The outage covers the moment the renewal is due, at half the life.
        outage(stage, alice, mode, lambda: remaining(stage, before.rucio_token) < 0.4 * LONG)
        returned = time.monotonic()
        stage.iam.faults()
        wait_for_new(alice, kernel, before, PATIENCE)
        print(f"\n{mode}, shorter: fresh {time.monotonic() - returned:.1f} s after the return")
        assert remaining(stage, before.rucio_token) > 0, "a file had expired before it was renewed"
        alice.close()
    assert stage.leaks() == []


@pytest.mark.parametrize("mode", ["503", "hang"])
def test_an_outage_past_expiry_costs_nobody_a_session(tmp_path: Path, mode: str) -> None:
    with Stage(tmp_path, {}, {"access_token_lifetime": SHORT}) as stage:
        alice, kernel = at_work(stage)
        outage(stage, alice, mode, lambda: remaining(stage, look(alice, kernel).rucio_token) < 0)
        assert alice.run(kernel, "print(witness)") == "still here\n"
        # A request that hangs counts as "renewing" until it times out, after at most 30 s.
        told = wait_for("status.json to say so", lambda: is_late(alice, kernel), 45, every=0.5)
        assert alice.api("GET", "escape/status").json()["state"] == "late"
        assert "does not answer" in alice.client.get(f"{stage.hub.url}hub/home").text
        returned = time.monotonic()
        stage.iam.faults()
        wait_for_new(alice, kernel, told, PATIENCE)
        print(f"\n{mode}, longer: fresh {time.monotonic() - returned:.1f} s after the return")
        alice.close()
    assert stage.leaks() == []


def is_late(alice: Person, kernel: str) -> SessionView | None:
    view = look(alice, kernel)
    return view if view.status["state"] == "late" else None


def outage(stage: Stage, alice: Person, mode: str, over: Callable[[], bool]) -> None:
    """Switch the fault on and wait for ``over()``; it stays on; pages answer meanwhile."""
    stage.iam.faults(**fault(mode))

    def watch() -> bool:
        assert_no_login_page(alice, stage)
        return over()

    wait_for("the end of the outage", watch, 2 * LONG, every=1.0)


def test_the_harness_can_tell_that_the_iam_is_away(tmp_path: Path) -> None:
    """The fault is real: without it the tests above would pass for nothing."""
    with Stage(tmp_path, {}, {}) as stage:
        stage.iam.faults(**fault("503"))
        grant = {"grant_type": "refresh_token", "refresh_token": "none"}
        assert httpx.post(f"{stage.iam.issuer}token", data=grant).status_code == 503

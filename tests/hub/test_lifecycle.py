"""What the IAM can do to a person at work, and what the hub, the files and the pages make of it.

One session for all tests here: it lives through everything, and its kernel with it.
Each test begins with a sign-in, which heals whatever the one before did.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.harness import Hub, Iam
from tests.harness.processes import wait_for
from tests.harness.session_view import SessionView
from tests.harness.stage import Stage
from tests.hub.at_work import AtWork, token_files

LIFETIME = 12
BOTH = {"eos.token", "rucio.token"}
#: What a busy machine may add to a time that is promised. Seconds.
SLACK = 4.0


@pytest.fixture(scope="module")
def hub_options() -> dict[str, Any]:
    return {"extra": "c.EscapeAuthenticator.auth_refresh_age = 16"}


@pytest.fixture(scope="module")
def iam_options() -> dict[str, Any]:
    return {"access_token_lifetime": LIFETIME}


@pytest.fixture(scope="module")
def at_work(stage: Stage) -> Iterator[AtWork]:
    alice = AtWork.begin(stage)
    yield alice
    alice.close()


@pytest.fixture
def alice(at_work: AtWork, iam: Iam) -> Iterator[AtWork]:
    """Alice with new files; afterwards the same server and the same kernel still run."""
    server = at_work.person.server()["started"]
    sign_in_anew(at_work)
    yield at_work
    at_work.assert_kernel_lives()
    iam.faults()
    at_work.person.login()
    assert at_work.person.server()["started"] == server


def sign_in_anew(alice: AtWork) -> SessionView:
    """A login in another tab; back in JupyterLab the new files are there."""
    before = alice.look()
    alice.person.login()

    def new(now: SessionView) -> bool:
        alice.poke()
        return is_renewed(before, now) and now.status["state"] == "fresh"

    return alice.wait_until("the files of a new sign-in", new)


def is_renewed(before: SessionView, now: SessionView) -> bool:
    """Both files hold other tokens than before."""
    return token_files(now) == BOTH and all(
        name not in before.files or now.files[name]["text"] != before.files[name]["text"]
        for name in BOTH
    )


def says(state: str) -> Callable[[SessionView], bool]:
    return lambda view: view.status["state"] == state


def logins(iam: Iam) -> int:
    return int(iam.counters()["users"]["alice"]["authorization_code"]["ok"])


def test_a_refused_client_logs_nobody_out_and_is_the_operators_matter(
    hub: Hub, iam: Iam, alice: AtWork
) -> None:
    before, signed_in = alice.look(), logins(iam)
    iam.faults(invalid_client=True)
    told = alice.wait_until("status.json to say refused", says("refused"))
    assert "ask the operator" in told.status["message"]
    assert token_files(told) == BOTH

    mark = len(hub.log_text)

    def checked() -> bool:
        """Pages answer until the hub has looked at the sign-in, and once more."""
        looked = "Refreshing auth for alice" in hub.log_text[mark:]
        assert "ask the operator" in alice.page()
        alice.page("user/alice/lab")
        return looked

    wait_for("the hub to look at the sign-in", checked, 30, every=0.5)
    log = hub.log_text
    assert "For the operator (refresh client-refused): " in log
    assert "check client_id and client_secret" in log
    assert "user=alice audience=refresh outcome=operator reference=client-refused" in log

    iam.faults()
    healed = alice.wait_until("fresh files, by itself", says("fresh"))
    assert is_renewed(before, healed)
    assert logins(iam) == signed_in


def test_a_dead_refresh_token_leaves_the_files_until_their_own_expiry_and_a_login_heals_it(
    iam: Iam, alice: AtWork
) -> None:
    before = alice.look()
    ends = {
        "eos.token": float(iam.introspect(before.eos_token)["exp"]),
        "rucio.token": float(iam.introspect(before.rucio_token)["exp"]),
    }
    iam.revoke_user("alice")
    assert alice.renew_now()["state"] == "sign_in"
    assert "the sign-in is no longer valid" in alice.page()

    told = alice.wait_until("status.json to say so", says("sign_in"))
    assert token_files(told) == BOTH, "the last files go at their own expiry, and not before"
    assert "sign in again" in told.status["message"]
    assert told.status["sign_in_url"]

    seen: dict[str, float] = {}
    while len(seen) < len(BOTH):
        began, files = time.time(), token_files(alice.look())
        for name in BOTH - files:
            seen.setdefault(name, time.time())
        assert began < max(ends.values()) + 2 * SLACK, "an expired file stays"
    for name, gone in seen.items():
        assert ends[name] <= gone <= ends[name] + SLACK, name
    alice.assert_kernel_lives()

    healed = sign_in_anew(alice)
    assert is_renewed(before, healed)
    assert healed.env == before.env


def assert_wiped_within_one_poll(alice: AtWork, reason: str) -> None:
    """The hub finds out at its next renewal; from then on the session has one poll."""
    wait_for("the hub to find out", lambda: alice.status()["state"] == "sign_in", 30, every=0.1)
    known, view = time.time(), alice.look()
    promised = known if says("sign_in")(view) else view.status["next_poll_at"]
    assert reason in alice.status()["message"]
    gone = alice.wait_until("the files to go", lambda view: not token_files(view))
    assert time.time() <= max(known, promised) + SLACK
    assert gone.status["state"] == "sign_in"
    assert reason in gone.status["message"]


def test_a_suspended_persons_files_go_within_one_poll_and_say_why(iam: Iam, alice: AtWork) -> None:
    iam.faults(suspended=["alice"])
    assert_wiped_within_one_poll(alice, "has suspended this account")


def test_who_leaves_the_last_allowed_group_loses_the_files_within_one_poll(
    iam: Iam, alice: AtWork
) -> None:
    iam.faults(users={"alice": {"groups": ["another"]}})
    assert_wiped_within_one_poll(alice, "is missing one of the groups 'escape'")


def test_an_unsigned_policy_is_shown_and_heals_without_a_login_once_it_is_signed(
    iam: Iam, alice: AtWork
) -> None:
    before, signed_in = alice.look(), logins(iam)
    iam.faults(aup_unsigned=["alice"])
    text = "alice needs to sign AUP"
    told = alice.wait_until("status.json to show it", says("sign_in"))
    assert text in told.status["message"]
    assert text in alice.page()

    iam.faults()
    healed = alice.wait_until("fresh files once it is signed", says("fresh"))
    assert is_renewed(before, healed)
    assert logins(iam) == signed_in, "the refresh token was kept, no login was needed"


def test_an_audience_that_is_refused_does_not_hold_up_the_other(iam: Iam, alice: AtWork) -> None:
    before = alice.look()
    iam.faults(refuse_audience=["rucio"])
    told = alice.wait_until("status.json to say so", says("refused"))
    rows = {row["name"]: row for row in told.status["audiences"]}
    assert rows["eos"]["state"] == "fresh"
    assert rows["rucio"]["state"] == "refused"
    assert rows["rucio"]["reference"] == "exchange-denied"
    assert told.eos_token != before.eos_token
    assert told.rucio_token == before.rucio_token, "the last good one stays"

    again = alice.wait_until("EOS alone to go on", lambda v: v.eos_token != told.eos_token)
    assert iam.introspect(again.eos_token)["active"]
    iam.faults()
    alice.wait_until("both to be fresh", says("fresh"))

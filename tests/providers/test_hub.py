"""The whole way at services that others wrote: a browser, a hub, a session and its files.

One hub and one browser a provider. Every case signs in anew, in a browser without
cookies; alice's session is started by the first and goes on until the last.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import sync_playwright

from tests.browser.pages import launch
from tests.harness.processes import wait_for
from tests.harness.session_view import SessionView
from tests.hub.at_work import AtWork, token_files
from tests.hub.burst import joins, refused, requests, send_at_once, stopped
from tests.providers.conftest import calm
from tests.providers.hub_stage import LONG, HubStage, hub_for, key_ids, tokens_of
from tests.providers.peers import Line, LogoutReceiver
from tests.providers.provider import Provider
from tests.providers.sign_in import Note

#: Seconds that access lives which a test awaits the end of.
OVER = 5


@pytest.fixture(scope="module")
def _running(
    provider: Provider,
    stage_parts: tuple[Line, LogoutReceiver],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[HubStage]:
    hub = hub_for(provider, tmp_path_factory.mktemp(f"hub-{provider.name}"))
    line, receiver = stage_parts
    # Closed with the module: while it is open no other test can run an event loop.
    with sync_playwright() as playwright, launch(playwright) as chromium:
        try:
            hub.start(provider)
            receiver.hub = f"{hub.url}hub/escape/backchannel_logout"
            yield HubStage(provider, line, receiver, hub, chromium)
        finally:
            receiver.hub = ""
            hub.end_with_sessions()


@pytest.fixture
def stage(_running: HubStage, stage_parts: tuple[Line, LogoutReceiver]) -> Iterator[HubStage]:
    """The hub at the provider, with nothing lost on the way."""
    calm(*stage_parts)
    yield _running
    calm(*stage_parts)
    _running.close()


def assert_files(stage: HubStage, view: SessionView, record_property: Note) -> None:
    """Each audience has its token, which the provider stands by; or the status says why not."""
    if stage.provider.capabilities.exchange == "no":
        assert token_files(view) == set()
        rows = {row["name"]: (row["state"], row["reference"]) for row in view.status["audiences"]}
        assert rows == dict.fromkeys(("eos", "rucio"), ("refused", "exchange-unsupported"))
        record_property("not offered", "no exchange: the session's status says so")
        return
    assert token_files(view) == {"eos.token", "rucio.token"}
    for audience, token in tokens_of(view).items():
        assert stage.accepts(token, audience)["aud"] in (audience, [audience])
    if stage.provider.capabilities.exchange == "grant of our own":
        record_property("note", "grant of our own")


def renewed(stage: HubStage, alice: AtWork, before: SessionView) -> SessionView:
    """The session's files once they hold other tokens than ``before``."""
    stage.wait_until_good(alice)
    if stage.provider.capabilities.exchange == "no":
        return alice.look()
    old = set(tokens_of(before).values())
    return stage.wait_for_files(
        alice, "new tokens in the files", lambda view: not old & set(tokens_of(view).values())
    )


def test_sign_in_and_session(stage: HubStage, record_property: Note) -> None:
    """Hub: a sign-in in a browser leads to a session with files that the provider accepts."""
    alice = stage.at_work(stage.sign_in())
    assert_files(stage, alice.look(), record_property)


def test_renewal(stage: HubStage) -> None:
    """Hub: access that is due is renewed by itself, again and again, and the files are new."""
    with stage.short_tokens():
        alice = stage.at_work(stage.sign_in())
        before = alice.look()
        stage.wait_for_refresh()
        stage.line.heard.clear()
        # The second one presents what the first one got.
        stage.wait_for_refresh()
    renewed(stage, alice, before)
    alice.assert_kernel_lives()


def test_twenty_requests_at_once(stage: HubStage) -> None:
    """Hub: twenty requests at once with access that is over are one refresh, and all are served."""
    alice = stage.at_work(stage.sign_in())
    server_token, joined = alice.server_token, joins(alice)
    with stage.short_tokens(OVER):
        window = stage.sign_in()
        at_work = stage.again(alice, window)
        made = requests(at_work, server_token)
        with stopped(stage.hub) as go_on:
            over_at = time.time() + OVER + 0.5
            stage.provider.set_access_token_lifetime(LONG)
            stage.line.heard.clear()
            wait_for("the access to be over", lambda: time.time() > over_at)
            answers = in_thread(send_at_once(made, go_on))
    assert refused(answers) == []
    assert stage.line.heard[Line.REFRESH] == 1
    assert joins(at_work) - joined >= 8, "they did not come at once"
    # A second presentation would have ended the sign-in: it still exchanges.
    stage.wait_until_good(at_work)
    assert stage.is_good(at_work.renew_now())


def in_thread(work: object) -> list[httpx.Response]:
    """Run a coroutine where no event loop runs: the browser's does in this thread."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()  # type: ignore[arg-type]


def test_lost_reply(stage: HubStage, record_property: Note) -> None:
    """Hub: after a lost reply to a refresh the session goes on, and a sign-in mends the rest."""
    with stage.short_tokens(20):
        alice = stage.at_work(stage.sign_in())
        before = alice.look()
    stage.line.losing = "replies to refreshes"
    wait_for("a reply to a refresh to be lost", lambda: stage.line.lost, 30, every=0.05)
    stage.line.losing = "nothing"
    if stage.provider.capabilities.access_token_outlives_refresh:
        renewed(stage, alice, before)
        assert stage.line.heard[Line.REFRESH] == 1, "a spent refresh token was presented again"
    else:
        stage.wait_for_the_end(alice)
        record_property("note", "its access token has ended with the refresh: sign in again")
    alice = stage.at_work(stage.sign_in())
    alice.assert_kernel_lives()


def test_session_ended_at_the_provider(stage: HubStage) -> None:
    """Hub: a session ended at the provider leads to a sign-in, and the kernel outlives it."""
    with stage.short_tokens():
        window = stage.sign_in()
        alice = stage.at_work(window)
    stage.provider.revoke_user_session("alice")
    stage.wait_for_the_end(alice)
    window.assert_signed_out()
    window.sign_in()
    alice = stage.at_work(window)
    alice.assert_kernel_lives()


def test_sign_out(stage: HubStage, record_property: Note) -> None:
    """Hub: signing out ends the sign-in at the provider too, and leads back to the hub."""
    window = stage.sign_in("bob")
    window.sign_out()
    assert window.page.url == f"{stage.hub.url}hub/login"
    # bob has no session: nothing needs his refresh token any more.
    assert stage.line.heard[Line.REVOCATION] == 1
    window.assert_signed_out()
    window.sign_in("bob")
    assert window.passwords == 2, "the provider still knew who it was"
    if stage.provider.capabilities.rp_logout == "confirmation page":
        record_property("note", "asks the person to confirm")
    answer = httpx.post(stage.published()["end_session_endpoint"], trust_env=False)
    assert (answer.status_code not in (404, 405)) == stage.provider.capabilities.logout_by_post
    if not stage.provider.capabilities.logout_by_post:
        record_property("note", 'takes no POST, so with `logout_method = "get"`')


def test_sign_out_at_the_provider(stage: HubStage, record_property: Note) -> None:
    """Hub: signing out at the provider itself ends browser, tokens and files (back-channel)."""
    window = stage.sign_in()
    alice = stage.at_work(window)
    view = alice.look()
    window.sign_out_at(stage.published()["end_session_endpoint"])
    if not stage.provider.capabilities.backchannel_logout:
        assert stage.receiver.empty()
        assert stage.is_good(alice.status())
        record_property("not offered", "the hub hears of it at the next refresh, or not at all")
        return
    stage.receiver.take()
    assert stage.receiver.answers[-1] == 200
    wait_for("a revocation", lambda: stage.line.heard[Line.REVOCATION], 20)
    window.assert_signed_out()
    # The kernel's own door may be closed to her by now; the files are on this machine.
    directory = Path(view.directory["path"])

    def gone() -> bool:
        alice.poke()
        return not list(directory.glob("*.token"))

    wait_for("the files to go", gone, 30, every=0.3)
    alice = stage.at_work(stage.sign_in())
    alice.assert_kernel_lives()


def test_key_rotation(stage: HubStage) -> None:
    """Hub: signing keys change at the provider; renewals and sign-ins go on, nobody notices."""
    with stage.short_tokens():
        alice = stage.at_work(stage.sign_in())
        before = alice.look()
        stage.line.heard.clear()
        stage.provider.rotate_keys()
    stage.wait_for_refresh()
    stage.wait_until_good(alice)
    if stage.provider.capabilities.exchange != "no":
        old = key_ids(before)
        stage.wait_for_files(alice, "the new key's files", lambda view: not old & key_ids(view))
    stage.at_work(stage.sign_in()).assert_kernel_lives()

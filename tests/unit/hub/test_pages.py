"""The pages people see, from a real hub with a real issuer."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from escape_hub.core.auth_state import Failure, NeedsLogin
from escape_hub.hub import pages
from escape_hub.hub.spawning import EscapeSpawnerMixin
from tests.unit.hub.browser import Browser
from tests.unit.hub.in_process import HubInTest, InProcessSpawner

pytestmark = pytest.mark.asyncio(loop_scope="module")

CATALOGUE = """
environments:
  python: {name: "Python & more", contents: ["<script>alert(1)</script>"]}
  cms: {name: CMS open data, allowed_groups: [escape/cms]}
"""


class Session(EscapeSpawnerMixin, InProcessSpawner):
    """With the catalogue above."""


@pytest.fixture(scope="module")
def hub_config(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], None]:
    directory = tmp_path_factory.mktemp("pages")
    (directory / "environments.yaml").write_text(CATALOGUE)
    (directory / "logout.html").write_text("{% extends 'escape/logout.html' %}")
    (directory / "about.html").write_text("theirs")

    def configure(c: Any) -> None:
        c.JupyterHub.spawner_class = Session
        c.JupyterHub.allow_named_servers = True
        c.JupyterHub.template_paths = [str(directory)]
        c.JupyterHub.template_vars = {"escape_service_name": "Our <Lake>"}
        c.EscapeSpawnerMixin.environments_file = str(directory / "environments.yaml")

    return configure


class Text(HTMLParser):
    """The words of a page, its references to other files, and the rows of the access panel."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.words, self.references, self._silent = "", [], 0
        self.hidden: dict[str, bool] = {}
        self.feed(page)
        self.words = " ".join(self.words.split()).replace(" ,", ",")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self._silent += tag in ("script", "style", "noscript")
        self.references += [v for k, v in attrs if k in ("src", "href", "action") and v]
        if name := found.get("id"):
            self.hidden[name] = "hidden" in found

    def handle_endtag(self, tag: str) -> None:
        self._silent -= tag in ("script", "style", "noscript")

    def handle_data(self, data: str) -> None:
        if not self._silent:
            self.words += f" {data}"


async def read(browser: Browser, path: str) -> Text:
    return Text((await browser.page(await browser.get(path))).text)


async def change(hub: HubInTest, **changes: Any) -> None:
    store = hub.authenticator.runtime.store
    state = await hub.state("alice")
    await store.save("alice", state.next(**changes))


# -- signing in ----------------------------------------------------------------------------


async def test_the_login_page_has_one_sentence_and_one_button(
    hub: HubInTest, alice: Browser
) -> None:
    page = await read(alice, "hub/login?next=%2Fhub%2Fhome")
    assert "Sign in once, and your storage and the catalogue are simply there" in page.words
    assert "Sign in with ESCAPE IAM" in page.words
    assert "/hub/oauth_login?next=%2Fhub%2Fhome" in page.references
    assert "does not answer" not in page.words
    assert "token" not in page.words.lower()


async def test_the_login_page_says_when_the_issuer_is_known_to_be_away(
    hub: HubInTest, alice: Browser
) -> None:
    breaker = hub.authenticator.broker.admission.breaker
    for _ in range(20):
        breaker.failed(hub.clock.now())
    try:
        assert breaker.is_open
        page = await read(alice, "hub/login")
        assert "ESCAPE IAM does not answer at the moment" in page.words
    finally:
        breaker.succeeded(hub.clock.now())


async def test_a_refusal_says_why_what_to_do_and_a_reference(
    hub: HubInTest, alice: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    hub.authenticator.allowed_groups = {"elsewhere"}
    page = Text((await alice.page(await alice.login())).text)
    assert "You are not allowed in here yet" in page.words
    assert "missing the group 'elsewhere'" in page.words
    reference = re.search(r"Reference: (\S+)", page.words)
    assert reference is not None
    assert reference[1] in caplog.text


# -- home ------------------------------------------------------------------------------------


async def test_home_shows_each_audience_by_the_name_people_know(
    hub: HubInTest, alice: Browser
) -> None:
    await alice.login()
    page = await read(alice, "hub/home")
    assert "Data lake access" in page.words
    for label in ("EOS storage", "Rucio catalogue"):
        assert re.search(
            rf"{label} fresh fresh until \d\d:\d\d UTC, renews by itself last renewal", page.words
        ), page.words
    assert page.hidden["escape-sign-in"]
    assert "Nothing is running." in page.words


async def test_home_and_the_status_endpoint_tell_the_same(hub: HubInTest, alice: Browser) -> None:
    await alice.login()
    await alice.get("hub/home")
    reply = (await alice.api("GET", "escape/status")).json()
    shown = await pages.access(hub.authenticator, hub.app.hub, hub.user("alice"))
    assert shown is not None
    assert shown["sign_in_url"] == reply["sign_in_url"]
    assert [(r["name"], r["state"]) for r in shown["rows"]] == [
        (a["name"], a["state"]) for a in reply["audiences"]
    ]


@pytest.mark.parametrize(
    ("failures", "audience", "words"),
    [
        (
            {"rucio": Failure("operator", "invalid-scope", "issuer's own words", 0)},
            "Rucio catalogue",
            "refused valid until .*ask the operator \\(reference: invalid-scope\\)",
        ),
        (
            {"eos": Failure("user_action", "user-action", "Sign the policy.", 0)},
            "Sign the policy. \\(reference: user-action\\)",
            "EOS storage sign in again valid until",
        ),
    ],
)
async def test_what_is_wrong_stands_beside_its_audience(
    hub: HubInTest, alice: Browser, failures: dict[str, Failure], audience: str, words: str
) -> None:
    await alice.login()
    await change(hub, failures=failures)
    page = await read(alice, "hub/home")
    assert re.search(f"{audience} {words}", page.words), page.words
    assert "issuer's own words" not in page.words


async def test_an_issuer_that_is_late_is_said_with_the_time_that_is_left(
    fresh_hub: HubInTest, fresh_alice: Browser
) -> None:
    await fresh_alice.login()
    await fresh_alice.get("hub/home")
    await fresh_hub.iam.faults(token={"mode": "503"})
    fresh_hub.clock.shift = 3600 - 60
    await fresh_hub.authenticator.broker.renew("alice")
    page = await read(fresh_alice, "hub/home")
    assert re.search("EOS storage late valid until .* does not answer", page.words), page.words


async def test_with_another_authenticator_home_is_upstream_s() -> None:
    class OfSomebodyElse:
        pass

    assert await pages.access(OfSomebodyElse(), None, None) is None


async def test_who_must_sign_in_sees_the_reason_once_and_the_way(
    hub: HubInTest, alice: Browser
) -> None:
    await alice.login()
    await alice.get("hub/home")
    user = hub.user("alice")
    reason = NeedsLogin("session-over", "your sign-in has ended", hub.clock.now())
    await change(hub, needs_login=reason)
    shown = await pages.access(hub.authenticator, hub.app.hub, user)
    assert shown is not None
    assert shown["state"] == "sign_in"
    assert shown["summary"] == "your sign-in has ended (reference: session-over)"
    assert {row["tail"] for row in shown["rows"]} == {""}
    assert shown["sign_in_url"] == "/hub/oauth_login?next=%2Fhub%2Fhome"
    await user.save_auth_state({"access_token": "of another authenticator"})
    shown = await pages.access(hub.authenticator, hub.app.hub, user)
    assert shown is not None
    assert shown["state"] == "sign_in"


async def test_home_names_the_environment_of_each_server(hub: HubInTest, alice: Browser) -> None:
    await alice.login()
    await alice.get("hub/home")
    await alice.api("POST", "users/alice/server", json={"profile": "cms"})
    await alice.api("POST", "users/alice/servers/lab", json={"profile": "python"})
    for spawner in hub.user("alice").spawners.values():
        if spawner._spawn_future:
            await spawner._spawn_future
    page = await read(alice, "hub/home")
    assert re.search(r"Sessions CMS open data since \d\d:\d\d UTC", page.words), page.words
    assert re.search(r"Python & more \(lab\) since \d\d:\d\d UTC", page.words), page.words


# -- every page ------------------------------------------------------------------------------

PAGES = ["hub/home", "hub/spawn", "hub/token", "hub/nothing-here", "hub/user/alice/"]


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_has_our_look_and_nothing_from_another_host(
    hub: HubInTest, alice: Browser, path: str
) -> None:
    await alice.login()
    page = await read(alice, path)
    assert "Our <Lake>" in page.words
    foreign = [r for r in page.references if "//" in r and not r.startswith(hub.url)]
    assert [r for r in foreign if "jupyterhub.readthedocs.io" not in r] == []
    assert any("escape/static/escape.css" in r for r in page.references)


async def test_what_an_operator_writes_is_text_and_never_markup(
    hub: HubInTest, alice: Browser
) -> None:
    await alice.login()
    page = await alice.page(await alice.get("hub/spawn"))
    assert "<script>alert(1)" not in page.text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page.text


async def test_our_files_are_served_and_nothing_beside_them(alice: Browser) -> None:
    for name in ("escape.css", "access.js", "logo.svg", "waves.svg"):
        assert (await alice.get(f"hub/escape/static/{name}")).status_code == 200
    for name in ("../pages.py", "%2e%2e/pages.py", "none.css"):
        assert (await alice.get(f"hub/escape/static/{name}")).status_code in {403, 404}


async def test_an_operator_s_template_wins_and_can_extend_ours(hub: HubInTest) -> None:
    for name in ("jinja2_env", "jinja2_env_sync"):
        env = hub.app.tornado_settings[name]
        assert env.get_template("about.html").filename.endswith("/about.html")
        assert Path(env.get_template("logout.html").filename).parent != pages.TEMPLATES
        assert Path(env.get_template("escape/logout.html").filename).parent == pages.TEMPLATES
        assert Path(env.get_template("home.html").filename).parent == pages.TEMPLATES
        assert Path(env.get_template("templates/home.html").filename).parent != pages.TEMPLATES

"""What a session is given, in a real hub with a real issuer: only the server is a stand-in."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio
from jupyterhub.spawner import LocalProcessSpawner

from escape_hub.core.auth_state import NeedsLogin
from escape_hub.core.session_plan import ENV, SessionPlan
from escape_hub.errors import SettingsError
from escape_hub.hub.spawning import EscapeSpawnerMixin
from tests.unit.hub.browser import Browser
from tests.unit.hub.in_process import HubInTest, InProcessSpawner

pytestmark = pytest.mark.asyncio(loop_scope="module")

CATALOGUE = """
environments:
  python: {name: Python, default: true}
  cms:
    name: CMS open data
    allowed_groups: [escape/cms]
    resources: {cpu: 2, memory: 4G}
    profile_options:
      size:
        name: Size
        choices:
          small: {name: Small}
          large: {name: Large, resources: {memory: 8G}}
"""


class Session(EscapeSpawnerMixin, InProcessSpawner):
    """Remembers the environment it was started with."""

    async def start(self) -> tuple[str, int]:
        self.env_at_start = self.get_env()
        return await super().start()


@pytest.fixture(scope="module")
def hub_config(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Any], None]:
    file = tmp_path_factory.mktemp("catalogue") / "environments.yaml"
    file.write_text(CATALOGUE)

    def configure(c: Any) -> None:
        c.JupyterHub.spawner_class = Session
        c.JupyterHub.allow_named_servers = True
        c.Spawner.environment = {"BEARER_TOKEN": "x", "BEARER_TOKEN_FILE": "/x", "MINE": "y"}
        del c.Spawner.server_token_scopes
        c.EscapeSpawnerMixin.environments_file = str(file)
        c.EscapeSpawnerMixin.token_dir = "/dev/shm/test.{session}"
        c.EscapeSpawnerMixin.rucio_host = "https://rucio.example.org"
        c.EscapeSpawnerMixin.issuer_patience = 0.5

    return configure


@pytest_asyncio.fixture(loop_scope="module")
async def bob(hub: HubInTest) -> AsyncIterator[Browser]:
    browser = Browser(hub)
    yield browser
    await browser.client.aclose()


async def start(hub: HubInTest, browser: Browser, options: Any = None, *, name: str = "") -> Any:
    """Ask the API for a server, and wait until its start is over: ``(answer, spawner)``."""
    await browser.get("hub/home")
    user = hub.user("alice")
    path = f"users/alice/servers/{name}" if name else "users/alice/server"
    answer = await browser.api("POST", path, json={} if options is None else options)
    spawner = user.spawners[name]
    if spawner._spawn_future is not None:
        await asyncio.wait([spawner._spawn_future])
    return answer, spawner


# -- what the session finds --------------------------------------------------------------


async def test_a_session_is_given_paths_and_settings_and_no_token(
    hub: HubInTest, alice: Browser
) -> None:
    await alice.login()
    answer, spawner = await start(hub, alice)
    assert answer.status_code in {201, 202}, answer.text
    env = spawner.env_at_start
    plan = SessionPlan.from_json(env[ENV])
    assert plan.token_dir == "/dev/shm/test.alice"
    assert env["OAUTH2_TOKEN"] == "FILE:/dev/shm/test.alice/eos.token"
    assert env["RUCIO_CONFIG"] == "/dev/shm/test.alice/rucio.cfg"
    assert plan.rucio is not None
    assert (plan.rucio.account, plan.rucio.auth_host) == ("alice", "https://rucio.example.org")
    assert plan.sign_in_path == "/hub/oauth_login"
    assert env["MINE"] == "y"
    assert not [name for name in env if name.startswith("BEARER")]
    state = await hub.state("alice")
    secrets = [state.refresh_token, state.login_token.value]
    secrets += [token.value for token in state.exchanged.values()]
    assert not [name for name, value in env.items() for s in secrets if s and s in value]


async def test_each_server_of_a_user_has_a_directory_of_its_own(
    hub: HubInTest, alice: Browser
) -> None:
    await alice.login()
    _, one = await start(hub, alice)
    _, other = await start(hub, alice, name="lab")
    found = {SessionPlan.from_json(s.env_at_start[ENV]).token_dir for s in (one, other)}
    assert found == {"/dev/shm/test.alice", "/dev/shm/test.alice.lab"}


async def test_the_server_s_own_token_may_fetch_its_owner_s_tokens(
    hub: HubInTest, alice: Browser, bob: Browser
) -> None:
    await alice.login()
    _, spawner = await start(hub, alice)
    headers = {"Authorization": f"token {spawner.api_token}"}
    answer = await bob.get("hub/api/escape/tokens", headers=headers)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()["audiences"]) == {"eos", "rucio"}


async def test_scopes_an_operator_adds_do_not_push_ours_out() -> None:
    spawner = Session(server_token_scopes=["read:users!user"])
    assert spawner.server_token_scopes == ["read:users!user", "custom:escape:tokens!user"]


# -- environments ------------------------------------------------------------------------


async def test_the_form_shows_what_the_groups_allow(alice: Browser, bob: Browser) -> None:
    await alice.login()
    page = await alice.page(await alice.get("hub/spawn"))
    assert 'id="env-python" value="python" required checked' in page.text
    assert "CMS open data" in page.text
    await bob.login("bob")
    page = await bob.page(await bob.get("hub/spawn"))
    assert "Python" in page.text
    assert "CMS open data" not in page.text


async def test_the_choice_is_applied_and_preselected_next_time(
    hub: HubInTest, alice: Browser
) -> None:
    await alice.login()
    _, spawner = await start(hub, alice, {"profile": "cms", "size": "large", "junk": 1})
    assert (spawner.cpu_limit, spawner.mem_limit) == (2.0, 8 * 1024**3)
    await hub.user("alice").stop("")
    page = await alice.page(await alice.get("hub/spawn"))
    assert 'value="cms" required checked' in page.text
    assert '<option value="large" selected>' in page.text


async def test_the_form_s_own_fields_start_what_was_chosen(hub: HubInTest, alice: Browser) -> None:
    await alice.login()
    await alice.get("hub/spawn")
    form = {"profile": "cms", "profile-option-cms--size": "small", "_xsrf": alice.xsrf}
    answer = await alice.client.post(f"{hub.url}hub/spawn", data=form)
    assert answer.status_code == 302, answer.text
    spawner = hub.user("alice").spawners[""]
    assert spawner.user_options == {"profile": "cms", "size": "small"}


@pytest.mark.parametrize("way", ["api", "form", "address"])
async def test_an_environment_of_other_groups_is_refused_whatever_the_way(
    hub: HubInTest, alice: Browser, way: str, caplog: pytest.LogCaptureFixture
) -> None:
    await hub.iam.faults(users={"alice": {"groups": ["escape"]}})
    await alice.login()
    await alice.get("hub/spawn")
    if way == "api":
        answer, _ = await start(hub, alice, {"profile": "cms"})
        words = answer.json()["message"]
    elif way == "form":
        form = {"profile": "cms", "_xsrf": alice.xsrf}
        answer = await alice.client.post(f"{hub.url}hub/spawn", data=form)
        words = answer.text
    else:
        answer = await alice.get("hub/spawn", params={"profile": "cms"})
        words = answer.text
    assert answer.status_code == 403, answer.text
    assert "is for members of" in words
    assert "escape/cms" in words
    assert "environment-not-allowed" in words
    assert "[environment-not-allowed]" in caplog.text
    assert not hub.user("alice").active


async def test_who_left_the_group_is_refused_from_the_next_renewal_on(
    fresh_hub: HubInTest, fresh_alice: Browser
) -> None:
    await fresh_alice.login()
    await fresh_alice.get("hub/home")
    await fresh_hub.iam.faults(users={"alice": {"groups": ["escape"]}})
    fresh_hub.clock.shift = fresh_hub.iam.shift = 3600 - 60
    answer, _ = await start(fresh_hub, fresh_alice, {"profile": "cms"})
    assert answer.status_code == 403, answer.text


async def test_an_environment_that_is_gone_is_refused_with_a_sentence(
    hub: HubInTest, alice: Browser
) -> None:
    await alice.login()
    answer, _ = await start(hub, alice, {"profile": "old"})
    assert answer.status_code == 400
    assert "'old' is not offered here" in answer.json()["message"]
    page = await alice.page(await alice.get("hub/spawn"))
    assert "Your last environment, old, is no longer available to you." in page.text
    assert 'value="python" required checked' in page.text


async def test_without_options_the_default_is_started(hub: HubInTest, alice: Browser) -> None:
    await alice.login()
    _, spawner = await start(hub, alice)
    assert spawner.user_options == {"profile": "python"}


# -- the issuer is late, or the person must sign in ----------------------------------------


@pytest.mark.parametrize("fault", [{"token": {"mode": "503"}}, {"delay": 2}])
async def test_an_issuer_that_is_away_or_slow_holds_up_no_start(
    hub: HubInTest, alice: Browser, fault: dict[str, Any]
) -> None:
    await alice.login()
    state = await hub.state("alice")
    await hub.authenticator.runtime.store.save("alice", state.next(exchanged={}))
    await hub.iam.faults(**fault)
    user = hub.user("alice")
    await user.spawn()
    spawner = user.spawners[""]
    events = [event["message"] async for event in spawner.progress()]
    assert events[:3] == [
        "Signing in to the data lake",
        "EOS storage and Rucio catalogue answered late: starting without it, it will follow",
        "Starting Python",
    ]


async def test_a_start_that_waits_for_the_issuer_shows_the_starting_page_meanwhile(
    hub: HubInTest, alice: Browser
) -> None:
    await alice.login()
    await alice.get("hub/spawn")
    state = await hub.state("alice")
    await hub.authenticator.runtime.store.save("alice", state.next(exchanged={}))
    hub.user("alice").spawners[""].issuer_patience = 10
    await hub.iam.faults(delay=2)
    answer = await alice.client.post(f"{hub.url}hub/spawn", data={"_xsrf": alice.xsrf})
    page = await alice.page(answer)
    assert "Starting your session" in page.text
    await hub.user("alice").spawners[""]._spawn_future


async def test_the_starting_page_says_what_was_signed_in_to(hub: HubInTest, alice: Browser) -> None:
    await alice.login()
    _, spawner = await start(hub, alice)
    events = [event["message"] async for event in spawner.progress()]
    assert events[1] == "Signed in to EOS storage and Rucio catalogue"


async def test_who_must_sign_in_again_is_told_before_anything_starts(
    hub: HubInTest, alice: Browser
) -> None:
    await alice.login()
    state = await hub.state("alice")
    reason = NeedsLogin("session-over", "Your sign-in has ended.", hub.clock.now())
    await hub.authenticator.runtime.store.save("alice", state.next(needs_login=reason))
    user = hub.user("alice")
    with pytest.raises(
        Exception, match=r"Your sign-in has ended. \(reference: session-over\)"
    ) as e:
        await user.spawn()
    assert "/hub/oauth_login?next=%2Fhub%2Fspawn%2Falice" in e.value.jupyterhub_html_message
    assert e.value.status_code == 403


# -- renewal -----------------------------------------------------------------------------


async def test_a_user_is_renewed_from_the_first_server_to_the_last(
    hub: HubInTest, alice: Browser
) -> None:
    await alice.login()
    user, renewal = hub.user("alice"), hub.authenticator.renewal
    await start(hub, alice)
    await start(hub, alice, name="lab")
    assert "alice" in renewal.scheduled
    await user.stop("")
    assert "alice" in renewal.scheduled
    await user.stop("lab")
    assert "alice" not in renewal.scheduled


# -- settings ----------------------------------------------------------------------------


async def test_a_claim_that_rucio_needs_and_is_missing_stops_the_start(
    hub: HubInTest, alice: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    await alice.login()
    user = hub.user("alice")
    user.spawners[""].rucio_account = "{rucio_account}"
    answer, _ = await start(hub, alice)
    assert answer.status_code == 500
    assert "not set up correctly" in answer.json()["message"]
    assert "needs the claim 'rucio_account'" in caplog.text


async def test_an_account_can_be_computed_from_the_claims(hub: HubInTest, alice: Browser) -> None:
    await alice.login()
    spawner = hub.user("alice").spawners[""]
    spawner.rucio_account = lambda claims: f"x-{claims['preferred_username']}"
    _, spawner = await start(hub, alice)
    assert json.loads(spawner.env_at_start[ENV])["rucio"]["account"] == "x-alice"


@pytest.mark.parametrize(
    ("account", "words"),
    [
        (lambda claims: claims["nobody-has-it"], "failed with KeyError"),
        (lambda claims: None, "gave NoneType"),
        (lambda claims: " ", "gave an empty one"),
    ],
)
async def test_a_computed_account_that_is_none_stops_the_start_with_the_reason_in_the_log(
    hub: HubInTest, alice: Browser, caplog: pytest.LogCaptureFixture, account: Any, words: str
) -> None:
    await alice.login()
    hub.user("alice").spawners[""].rucio_account = account
    answer, _ = await start(hub, alice)
    assert answer.status_code == 500
    assert "not set up correctly" in answer.json()["message"]
    assert words in caplog.text


async def test_another_authenticator_is_named_as_the_mistake() -> None:
    class Theirs:
        pass

    class Ours(EscapeSpawnerMixin, LocalProcessSpawner):
        pass

    spawner = Ours(authenticator=Theirs())
    with pytest.raises(SettingsError, match="authenticator_class = 'escape', not Theirs"):
        _ = spawner.escape_authenticator


IN_MEMORY = os.path.ismount("/dev/shm")


async def test_the_default_directory_is_in_memory_where_there_is_such_a_place() -> None:
    parent = "/dev/shm" if IN_MEMORY else "/tmp"
    assert EscapeSpawnerMixin().token_dir == f"{parent}/escape-hub.{{session}}"

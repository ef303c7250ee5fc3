"""The hub's groups and roles follow the issuer's, at the login and at each renewal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from jupyterhub import orm, roles

from tests.unit.hub.browser import Browser
from tests.unit.hub.in_process import TOKEN_SCOPE, HubInTest
from tests.unit.hub.sessions import Session, refused, spawn

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOUR = 3600
#: Claims as issuers have them: the setting, and how a list of names is told there.
SHAPES: dict[str, Callable[[list[str]], dict[str, Any]]] = {
    "groups": lambda names: {"groups": names},
    "wlcg.groups": lambda names: {"wlcg.groups": names},
    "roles": lambda names: {"roles": names},
    "resource_access.escape-hub.roles": lambda names: {
        "resource_access": {"account": {"roles": ["escape"]}, "escape-hub": {"roles": names}}
    },
}


@pytest.fixture
def hub_config() -> Callable[[Any], None]:
    def change(c: Any) -> None:
        c.JupyterHub.load_roles = [
            {"name": "user", "scopes": ["self", f"{TOKEN_SCOPE}!user"]},
            {"name": "instructor", "scopes": ["list:users"]},
            {"name": "by-hand", "scopes": ["list:services"]},
        ]
        c.EscapeAuthenticator.hub_roles = {"instructor": {"teacher", "tutor"}}

    return change


@pytest.fixture
def hub(fresh_hub: HubInTest) -> HubInTest:
    return fresh_hub


@pytest.fixture
def alice(fresh_alice: Browser) -> Browser:
    return fresh_alice


async def becomes(hub: HubInTest, claims: dict[str, Any], groups: list[str]) -> None:
    """What the issuer says of alice from now on."""
    await hub.iam.faults(users={"alice": {"claims": claims, "groups": groups}})


async def an_hour_later(hub: HubInTest, browser: Browser) -> int:
    """A page after the tokens' time, which renews them; its status."""
    hub.clock.shift += HOUR - 60
    hub.iam.shift += HOUR - 60
    hub.user("alice")._auth_refreshed = None
    return (await browser.get("hub/home")).status_code


def groups_of(hub: HubInTest) -> set[str]:
    return {group.name for group in hub.user("alice").groups}


def roles_of(hub: HubInTest) -> set[str]:
    hub.app.db.expire_all()
    return {role.name for role in hub.user("alice").orm_user.roles}


@pytest.mark.parametrize("claim", SHAPES)
async def test_groups_of_any_claim_are_the_hubs_at_the_login_and_at_each_renewal(
    hub: HubInTest, alice: Browser, claim: str
) -> None:
    told = SHAPES[claim]
    hub.authenticator.auth_state_groups_key = f"oauth_user.{claim}"
    await becomes(hub, told(["escape", "cms"]), [])
    await alice.login()
    assert groups_of(hub) == {"escape", "cms"}
    await becomes(hub, told(["escape", "atlas"]), [])
    assert await an_hour_later(hub, alice) == 200
    assert groups_of(hub) == {"escape", "atlas"}
    session = Session(hub, await spawn(hub, alice))
    await becomes(hub, told([]), [])
    assert await an_hour_later(hub, alice) == 302
    assert groups_of(hub) == set()
    body = refused(await session.ask(), 409, "needs_login")
    assert (body["reference"], body["wipe"]) == ("not-allowed", True)
    assert "missing the group 'escape'" in body["message"]
    assert (await alice.login()).headers["Location"].startswith("/hub/oauth_refused/")


@pytest.mark.parametrize("claim", ["roles", "resource_access.escape-hub.roles"])
async def test_who_loses_the_last_allowed_role_loses_the_access(
    hub: HubInTest, alice: Browser, claim: str
) -> None:
    hub.authenticator.allowed_groups = set()
    hub.authenticator.allowed_roles = {"scientist"}
    hub.authenticator.roles_claim = claim
    await becomes(hub, SHAPES[claim](["scientist"]), [])
    await alice.login()
    assert (await alice.get("hub/home")).status_code == 200
    await becomes(hub, SHAPES[claim](["visitor"]), [])
    assert await an_hour_later(hub, alice) == 302
    assert "the role 'scientist'" in (await hub.state("alice")).needs_login.message


@pytest.mark.parametrize("claim", ["roles", "resource_access.escape-hub.roles"])
async def test_a_role_of_the_hub_follows_the_issuers(
    hub: HubInTest, alice: Browser, claim: str
) -> None:
    hub.authenticator.roles_claim = claim
    told = SHAPES[claim]
    await becomes(hub, told(["tutor"]), ["escape"])
    await alice.login()
    assert roles_of(hub) == {"user", "instructor"}
    await alice.get("hub/home")
    assert (await alice.api("GET", "users")).status_code == 200
    await becomes(hub, told(["student"]), ["escape"])
    assert await an_hour_later(hub, alice) == 200
    assert roles_of(hub) == {"user"}
    assert (await alice.api("GET", "users")).status_code == 403
    await becomes(hub, told(["teacher", "student"]), ["escape"])
    assert await an_hour_later(hub, alice) == 200
    assert roles_of(hub) == {"user", "instructor"}


async def test_a_login_takes_a_role_away_as_well_and_leaves_others_alone(
    hub: HubInTest, alice: Browser
) -> None:
    await alice.login()
    row = hub.user("alice").orm_user
    for name in ("instructor", "by-hand"):
        roles.grant_role(hub.app.db, entity=row, rolename=name)
    await alice.login()
    assert roles_of(hub) == {"user", "by-hand"}


async def test_who_is_not_allowed_any_more_keeps_no_role(hub: HubInTest, alice: Browser) -> None:
    await becomes(hub, {"roles": ["teacher"]}, ["escape"])
    await alice.login()
    await becomes(hub, {"roles": []}, [])
    assert await an_hour_later(hub, alice) == 302
    assert roles_of(hub) == {"user"}
    assert orm.Role.find(hub.app.db, "instructor") is not None


async def test_an_operators_hook_may_replace_what_is_stored(hub: HubInTest, alice: Browser) -> None:
    def replace(authenticator: Any, handler: Any, model: dict[str, Any]) -> dict[str, Any]:
        return {**model, "auth_state": {"of": "the operator"}}

    hub.authenticator.post_auth_hook = replace
    assert (await alice.login()).headers["Location"] == "/hub/spawn"

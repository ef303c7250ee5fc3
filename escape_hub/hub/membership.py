"""Who may come in: the authenticator's settings applied to a person's claims.

The rules themselves are pure, in `escape_hub.core.authorization`. They are asked at
the login and again at each renewal, which also brings the hub's groups and admin
flag in step with what the issuer says now.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import isawaitable
from typing import Any

from jupyterhub import orm, roles
from oauthenticator.generic import GenericOAuthenticator

from escape_hub.core.auth_state import AuthState, ForeignAuthStateError
from escape_hub.core.authorization import (
    AccessRules,
    Person,
    claim_values,
    is_admin,
    is_allowed,
    require_allowed,
)
from escape_hub.hub.settings_traits import EscapeTraits


class Membership(EscapeTraits, GenericOAuthenticator):
    """The half of `EscapeAuthenticator` that judges; no authenticator of its own."""

    runtime: Any

    @property
    def rules(self) -> AccessRules:
        """The allow and admin rules as they are configured now."""
        return AccessRules(
            allow_all=self.allow_all,
            allowed_users=frozenset(self.allowed_users),
            allowed_groups=frozenset(self.allowed_groups),
            allowed_roles=frozenset(self.allowed_roles),
            allowed_scopes=frozenset(self.allowed_scopes),
            admin_users=frozenset(self.admin_users),
            admin_groups=frozenset(self.admin_groups),
            admin_roles=frozenset(self.admin_roles),
            blocked_users=frozenset(self.blocked_users),
            contact=self.contact,
        )

    async def person(
        self, username: str, claims: Mapping[str, Any], scopes: tuple[str, ...] = ()
    ) -> Person:
        """Who it is, with the groups and roles that the claims give them."""
        groups = await self.get_user_groups({self.user_auth_state_key: dict(claims)})
        return Person(
            username,
            groups=frozenset(groups),
            roles=claim_values(claims, self.roles_claim),
            # An issuer that says nothing of the scope granted what was asked (RFC 6749 5.1).
            scopes=frozenset(scopes or self.scope),
        )

    async def get_user_groups(self, auth_state: Mapping[str, Any]) -> set[str]:
        """Groups by ``auth_state_groups_key``; a claim's name may itself hold dots."""
        key = self.auth_state_groups_key
        if not self.issuer:
            return set(await super().get_user_groups(auth_state))
        if callable(key):
            found = key(auth_state)
            return set(await found if isawaitable(found) else found)
        return set(claim_values(auth_state, key))

    async def check_allowed(self, username: str, auth_model: Any) -> bool:
        """Deny by default. `authenticate` has refused already, with a reason for people."""
        if not self.issuer or auth_model is None:
            return bool(await super().check_allowed(username, auth_model))
        state = auth_model["auth_state"]
        claims = state[self.user_auth_state_key]
        return is_allowed(self.rules, await self.person(username, claims, tuple(state["scope"])))

    async def authorize(self, username: str, claims: Mapping[str, Any]) -> None:
        """At each renewal: bring the hub's groups and admin flag in step, then judge again.

        Raises `NotAllowedError` when no rule lets the person in any more.
        """
        scopes = await self._granted(username) if self.allowed_scopes else ()
        person = await self.person(username, claims, scopes)
        self._put_in_step(person)
        require_allowed(self.rules, person)

    async def _granted(self, username: str) -> tuple[str, ...]:
        """The scope that the issuer granted last, which the broker has stored by now."""
        state: AuthState | None = await self.runtime.store.load(username)
        return state.scope if state else ()

    def _put_in_step(self, person: Person) -> None:
        # What `auth_to_user` does at a login; a refresh must not go that way, for it
        # would store the auth_state a second time, outside the broker's lock.
        app = self.parent
        row = orm.User.find(app.db, person.username)
        if row is None:
            return
        user = app.users[row]
        admin = is_admin(self.rules, person)
        if admin is not None and admin != user.admin:
            user.admin = admin
            roles.assign_default_roles(app.db, entity=user)
            app.db.commit()
        if self.manage_groups:
            user.sync_groups(sorted(person.groups))
        self._put_roles_in_step(row, person)

    async def roles_after_login(self, user: Any, store: Any) -> None:
        """What `auth_to_user` does not do at a login: ``hub_roles`` by the claims just stored."""
        try:
            state = await store.load(user.name)
        except ForeignAuthStateError:
            state = None  # an operator's hook stored something else
        if state is not None and self.hub_roles:
            person = await self.person(user.name, state.claims, state.scope)
            self._put_roles_in_step(user.orm_user, person)

    def _put_roles_in_step(self, row: Any, person: Person) -> None:
        # Not by JupyterHub's manage_roles: that takes every other role away, "user" too,
        # and forbids load_roles.
        db = self.parent.db
        for name, wanted in self.hub_roles.items():
            change = roles.grant_role if person.roles & set(wanted) else roles.strip_role
            change(db, entity=row, rolename=name)

"""Who may come in, and who administers: rules over an identity and its claims.

Deny by default: with no rule configured nobody comes in. The rules are asked at
every login and again at every renewal, with the claims of that moment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from escape_hub.errors import NotAllowedError

#: How many values of a claim are looked at; more is no membership list but an attack.
MAX_VALUES = 2000
#: Characters of a group or role: as many as JupyterHub's table of groups holds.
MAX_LENGTH = 255


def claim_values(claims: Mapping[str, Any], path: str) -> frozenset[str]:
    """The strings under ``path``, a claim's name with ``.`` between nested names.

    A literal name wins over a nested one, for ``wlcg.groups`` is one name (WLCG
    token profile 1.3), while ``resource_access.hub.roles`` is three. A single
    string counts as a list of one. Left out is whatever is no string, and what a
    database cannot hold or a page cannot show: empty, too long, with control characters.
    """
    found = _lookup(claims, path.split("."))
    if isinstance(found, str):
        found = [found]
    if isinstance(found, list | tuple | set | frozenset):
        return frozenset([v for v in found if _is_name(v)][:MAX_VALUES])
    return frozenset()


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_LENGTH and value.isprintable()


def _lookup(node: Any, parts: list[str]) -> Any:
    if not parts:
        return node
    if not isinstance(node, Mapping):
        return None
    for length in range(len(parts), 0, -1):
        name = ".".join(parts[:length])
        if name in node and (found := _lookup(node[name], parts[length:])) is not None:
            return found
    return None


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who was identified: hub user name, groups and roles by the claims."""

    username: str
    groups: frozenset[str] = frozenset()
    roles: frozenset[str] = frozenset()
    scopes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class AccessRules:
    """What the operator configured; each set holds exact names.

    ``allowed_scopes`` lets in whoever was granted all of them (OAuthenticator 16).
    ``contact`` says whom to ask, for people.
    """

    allow_all: bool = False
    allowed_users: frozenset[str] = frozenset()
    allowed_groups: frozenset[str] = frozenset()
    allowed_roles: frozenset[str] = frozenset()
    allowed_scopes: frozenset[str] = frozenset()
    admin_users: frozenset[str] = frozenset()
    admin_groups: frozenset[str] = frozenset()
    admin_roles: frozenset[str] = frozenset()
    blocked_users: frozenset[str] = frozenset()
    contact: str = field(default="the administrators of this service")

    @property
    def empty(self) -> bool:
        """Whether nobody at all could come in."""
        return not (
            self.allow_all
            or self.allowed_users
            or self.allowed_groups
            or self.allowed_roles
            or self.allowed_scopes
            or self.admin_users
            or self.admin_groups
            or self.admin_roles
        )


def is_admin(rules: AccessRules, person: Person) -> bool | None:
    """True or False where a rule decides; None leaves the hub's own setting alone.

    With a group or role rule the claims are authoritative: who left the group is
    no administrator any more. ``admin_users`` is never taken away by a claim.
    """
    if person.username in rules.admin_users:
        return True
    if rules.admin_groups or rules.admin_roles:
        return bool(person.groups & rules.admin_groups or person.roles & rules.admin_roles)
    return None


def is_allowed(rules: AccessRules, person: Person) -> bool:
    """Whether a rule lets ``person`` in; blocked users are never let in."""
    if person.username in rules.blocked_users:
        return False
    return bool(
        rules.allow_all
        or person.username in rules.allowed_users
        or person.groups & rules.allowed_groups
        or person.roles & rules.allowed_roles
        or (rules.allowed_scopes and rules.allowed_scopes <= person.scopes)
        or is_admin(rules, person)
    )


def require_allowed(rules: AccessRules, person: Person) -> None:
    """Raise `NotAllowedError` that says what is missing and whom to ask."""
    if is_allowed(rules, person):
        return
    if person.username in rules.blocked_users:
        raise NotAllowedError(
            f"The account {person.username!r} is blocked here. Ask {rules.contact}.",
            code="blocked",
        )
    raise NotAllowedError(
        f"You are signed in as {person.username!r}, and that account {_missing(rules)}. "
        f"Ask {rules.contact}."
    )


def _missing(rules: AccessRules) -> str:
    groups = sorted(rules.allowed_groups | rules.admin_groups)
    roles = sorted(rules.allowed_roles | rules.admin_roles)
    wanted = []
    if groups:
        wanted.append(_choice("group", groups))
    if roles:
        wanted.append(_choice("role", roles))
    if wanted:
        return "is missing " + " or ".join(wanted)
    return "is not among those that this service lets in"


def _choice(what: str, names: list[str]) -> str:
    shown = ", ".join(repr(n) for n in names[:5]) + (", ..." if len(names) > 5 else "")
    return f"the {what} {shown}" if len(names) == 1 else f"one of the {what}s {shown}"

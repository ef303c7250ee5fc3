"""Who may come in, and who administers."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escape_hub.core.authorization import (
    AccessRules,
    Person,
    claim_values,
    is_admin,
    is_allowed,
    require_allowed,
)
from escape_hub.errors import NotAllowedError

ALICE = Person("alice", groups=frozenset({"escape", "escape/cms"}), roles=frozenset({"user"}))
NAMES = st.text(alphabet="abc", min_size=1, max_size=2)
SETS = st.frozensets(NAMES, max_size=3)
PEOPLE = st.builds(Person, username=NAMES, groups=SETS, roles=SETS, scopes=SETS)
RULES = st.builds(
    AccessRules,
    allow_all=st.booleans(),
    allowed_users=SETS,
    allowed_groups=SETS,
    allowed_roles=SETS,
    allowed_scopes=SETS,
    admin_users=SETS,
    admin_groups=SETS,
    admin_roles=SETS,
    blocked_users=SETS,
)
CLAIMS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("claims", "path", "expected"),
    [
        ({"groups": ["a", "b"]}, "groups", {"a", "b"}),
        ({"groups": "a"}, "groups", {"a"}),
        ({"wlcg.groups": ["/escape"]}, "wlcg.groups", {"/escape"}),
        ({"wlcg": {"groups": ["nested"]}}, "wlcg.groups", {"nested"}),
        ({"wlcg.groups": ["/a"], "wlcg": {"groups": ["b"]}}, "wlcg.groups", {"/a"}),
        ({"resource_access": {"my.hub": {"roles": ["r"]}}}, "resource_access.my.hub.roles", {"r"}),
        ({"oauth_user": {"wlcg.groups": ["/a"]}}, "oauth_user.wlcg.groups", {"/a"}),
        ({}, "groups", set()),
        ({"groups": None}, "groups", set()),
        ({"groups": {"escape": True}}, "groups", set()),
        ({"groups": ["a", 1, None, ["b"]]}, "groups", {"a"}),
        ({"groups": "a"}, "groups.more", set()),
    ],
)
def test_a_claim_is_found_by_its_name_or_by_nested_names(
    claims: dict[str, Any], path: str, expected: set[str]
) -> None:
    assert claim_values(claims, path) == expected


@pytest.mark.parametrize("name", ["", "\ud800", "a\x00b", "a\nb", "x" * 256, 7, None])
def test_what_no_database_can_hold_is_no_group(name: object) -> None:
    assert claim_values({"groups": [name, "escape"]}, "groups") == {"escape"}
    assert claim_values({"groups": name}, "groups") == frozenset()


@given(claims=st.dictionaries(st.text(max_size=3), CLAIMS), path=st.text(max_size=8))
def test_whatever_the_issuer_sends_is_strings_or_nothing(claims: dict[str, Any], path: str) -> None:
    assert all(isinstance(v, str) for v in claim_values(claims, path))


@pytest.mark.parametrize(
    ("rules", "allowed"),
    [
        (AccessRules(), False),
        (AccessRules(allow_all=True), True),
        (AccessRules(allowed_users=frozenset({"alice"})), True),
        (AccessRules(allowed_users=frozenset({"bob"})), False),
        (AccessRules(allowed_groups=frozenset({"escape"})), True),
        (AccessRules(allowed_groups=frozenset({"esc"})), False),
        (AccessRules(allowed_groups=frozenset({"Escape"})), False),
        (AccessRules(allowed_roles=frozenset({"user"})), True),
        (AccessRules(allowed_roles=frozenset({"escape"})), False),
        (AccessRules(admin_groups=frozenset({"escape/cms"})), True),
        (AccessRules(admin_users=frozenset({"alice"})), True),
        (AccessRules(allowed_scopes=frozenset({"openid"})), False),
        (AccessRules(allow_all=True, blocked_users=frozenset({"alice"})), False),
        (
            AccessRules(admin_users=frozenset({"alice"}), blocked_users=frozenset({"alice"})),
            False,
        ),
    ],
)
def test_a_rule_lets_in_whom_it_names_and_nobody_else(rules: AccessRules, allowed: bool) -> None:
    assert is_allowed(rules, ALICE) is allowed


def test_scopes_let_in_only_when_all_of_them_were_granted() -> None:
    rules = AccessRules(allowed_scopes=frozenset({"a", "b"}))
    assert not is_allowed(rules, Person("alice", scopes=frozenset({"a"})))
    assert is_allowed(rules, Person("alice", scopes=frozenset({"a", "b", "c"})))


@pytest.mark.parametrize(
    ("rules", "admin"),
    [
        (AccessRules(), None),
        (AccessRules(allowed_groups=frozenset({"escape"})), None),
        (AccessRules(admin_users=frozenset({"alice"})), True),
        (AccessRules(admin_users=frozenset({"bob"})), None),
        (AccessRules(admin_groups=frozenset({"escape/cms"})), True),
        (AccessRules(admin_groups=frozenset({"admins"})), False),
        (AccessRules(admin_roles=frozenset({"user"})), True),
        (AccessRules(admin_roles=frozenset({"root"})), False),
        (
            AccessRules(admin_users=frozenset({"alice"}), admin_groups=frozenset({"admins"})),
            True,
        ),
    ],
)
def test_the_admin_flag_follows_the_claims_only_where_a_rule_says_so(
    rules: AccessRules, admin: bool | None
) -> None:
    assert is_admin(rules, ALICE) is admin


def test_the_refusal_names_the_missing_group_and_whom_to_ask() -> None:
    rules = AccessRules(allowed_groups=frozenset({"escape"}), contact="helpdesk@example.org")
    with pytest.raises(NotAllowedError) as caught:
        require_allowed(rules, Person("bob", groups=frozenset({"other"})))
    assert "'bob'" in caught.value.message
    assert "the group 'escape'" in caught.value.message
    assert "helpdesk@example.org" in caught.value.message
    assert "other" not in caught.value.message


def test_the_refusal_lists_a_few_of_many_groups_and_the_roles() -> None:
    rules = AccessRules(
        allowed_groups=frozenset(f"g{n}" for n in range(9)), allowed_roles=frozenset({"r"})
    )
    with pytest.raises(NotAllowedError) as caught:
        require_allowed(rules, Person("bob"))
    assert "one of the groups 'g0', 'g1', 'g2', 'g3', 'g4', ..." in caught.value.message
    assert "the role 'r'" in caught.value.message


def test_a_blocked_person_is_told_so_and_not_which_group_would_help() -> None:
    rules = AccessRules(allowed_groups=frozenset({"x"}), blocked_users=frozenset({"alice"}))
    with pytest.raises(NotAllowedError) as caught:
        require_allowed(rules, ALICE)
    assert caught.value.code == "blocked"
    assert "'x'" not in caught.value.message


def test_without_groups_the_refusal_still_says_whom_to_ask() -> None:
    with pytest.raises(NotAllowedError, match="not among those.* Ask the administrators"):
        require_allowed(AccessRules(allowed_users=frozenset({"bob"})), ALICE)


@given(rules=RULES, person=PEOPLE)
def test_allowed_and_required_say_the_same_and_blocked_is_never_let_in(
    rules: AccessRules, person: Person
) -> None:
    allowed = is_allowed(rules, person)
    if allowed:
        require_allowed(rules, person)
        assert person.username not in rules.blocked_users
        assert not rules.empty
    else:
        with pytest.raises(NotAllowedError):
            require_allowed(rules, person)


@given(person=PEOPLE)
def test_without_any_rule_nobody_comes_in(person: Person) -> None:
    assert AccessRules().empty
    assert not is_allowed(AccessRules(), person)

"""The catalogue's rules, and who may use what."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escape_hub.core.environment_checks import CatalogueError, parse_catalogue
from escape_hub.core.environment_choice import (
    UnknownEnvironmentError,
    offered,
    options_from_form,
    preselect,
    profile_list,
    select,
)
from escape_hub.core.environments import Catalogue, Resources
from escape_hub.errors import NotAllowedError, SettingsError

RAW: dict[str, Any] = {
    "environments": {
        "python": {
            "name": "Python <3>",
            "description": "A & B",
            "contents": ["uproot"],
            "resources": {"cpu": 1, "memory": "2G"},
            "default": True,
        },
        "cms": {
            "name": "CMS",
            "allowed_groups": ["escape/cms", "escape/atlas"],
            "resources": {"cpu": 0.5, "memory": "8G", "gpu": 1},
            "profile_options": {
                "size": {
                    "name": "Size",
                    "choices": {
                        "small": {"name": "Small"},
                        "large": {
                            "name": "Large",
                            "default": True,
                            "resources": {"cpu": 8},
                            "local": {"env": {"B": "2"}, "args": ["--b"]},
                            "kubernetes": {"kubespawner_override": {"mem_limit": "64G"}},
                        },
                    },
                }
            },
            "local": {"cmd": ["lab"], "args": ["--a"], "env": {"A": "1", "B": "1"}},
            "kubernetes": {
                "image": "registry.example.org/cms:1",
                "node_selector": {"disk": "ssd"},
                "kubespawner_override": {"extra_labels": {"team": "cms"}},
            },
        },
    }
}
CMS = {"escape/cms"}


@pytest.fixture
def catalogue() -> Catalogue:
    return parse_catalogue(RAW)


def with_value(path: tuple[str | int, ...], value: object) -> dict[str, Any]:
    raw = copy.deepcopy(RAW)
    node: Any = raw
    for step in path[:-1]:
        node = node.setdefault(step, {}) if isinstance(node, dict) else node[step]
    node[path[-1]] = value
    return raw


# -- the file's rules ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("environments",), {}, "at least one environment"),
        (("environments",), None, "must be a mapping"),
        (("environments",), [], "not a list"),
        (("environment",), {}, "unknown; known here are environments"),
        (("environments", "Python 3"), {"name": "x"}, "lower-case letters"),
        (("environments", "a--b.c"), {"name": "x"}, "lower-case letters"),
        (("environments", 3), {"name": "x"}, "must be a string"),
        (("environments", "python", "name"), None, "is missing"),
        (("environments", "python", "name"), "  ", "must not be empty"),
        (("environments", "python", "name"), 3.11, "put it in quotes"),
        (("environments", "python", "title"), "x", "unknown; known here are allowed_groups"),
        (("environments", "python", "default"), "yes", "must be true or false"),
        (("environments", "cms", "default"), True, "'python' is the default already"),
        (("environments", "python", "contents"), "uproot", "must be a list"),
        (("environments", "python", "contents", 0), 3, "must be a string"),
        (("environments", "python", "allowed_groups"), [], "would allow nobody"),
        (("environments", "python", "allowed_groups"), "escape", "must be a list"),
        (("environments", "python", "resources", "cpu"), 0, "above 0"),
        (("environments", "python", "resources", "cpu"), True, "above 0"),
        (("environments", "python", "resources", "memory"), "2 GB", "is no amount"),
        (("environments", "python", "resources", "memory"), 2, "put it in quotes"),
        (("environments", "python", "resources", "gpu"), -1, "whole number"),
        (("environments", "python", "resources", "gpu"), True, "whole number"),
        (("environments", "python", "local", "env", "BEARER_TOKEN_FILE"), "/x", "take it out"),
        (("environments", "python", "local", "env", "OAUTH2_TOKEN"), "x", "take it out"),
        (("environments", "python", "local", "env", "JUPYTERHUB_USER"), "x", "take it out"),
        (
            ("environments", "cms", "kubernetes", "kubespawner_override", "environment"),
            {"BEARER_TOKEN": "x"},
            "take it out",
        ),
        (("environments", "cms", "kubernetes", "node_selector", "gpu"), True, "must be a string"),
        (("environments", "cms", "profile_options", "profile"), {}, "must be a mapping|missing"),
        (("environments", "cms", "profile_options", "size", "choices"), {}, "at least one choice"),
        (
            ("environments", "cms", "profile_options", "size", "choices", "small", "default"),
            True,
            "is the default already",
        ),
    ],
)
def test_a_fault_is_named_with_its_path_and_the_reason(
    path: tuple[str | int, ...], value: object, reason: str
) -> None:
    with pytest.raises(CatalogueError, match=reason) as caught:
        parse_catalogue(with_value(path, value))
    assert isinstance(caught.value, SettingsError)
    assert caught.value.path[0] == path[0]


def test_an_option_cannot_take_the_name_of_the_environment_s_own_field() -> None:
    option = {"name": "x", "choices": {"a": {"name": "A"}}}
    with pytest.raises(CatalogueError, match="that name is taken"):
        parse_catalogue(with_value(("environments", "cms", "profile_options", "profile"), option))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(json_values)
def test_whatever_stands_in_the_file_only_a_catalogue_error_comes_out(raw: object) -> None:
    for whole in (raw, {"environments": raw}, {"environments": {"a": raw}}):
        try:
            parse_catalogue(whole)
        except CatalogueError as error:
            assert error.reason


# -- who may use what ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("groups", "keys"),
    [
        (set(), ["python"]),
        ({"escape"}, ["python"]),
        ({"escape/cm"}, ["python"]),
        ({"escape/cms"}, ["python", "cms"]),
        ({"other", "escape/atlas"}, ["python", "cms"]),
    ],
)
def test_an_environment_with_groups_is_for_their_members_alone(
    catalogue: Catalogue, groups: set[str], keys: list[str]
) -> None:
    assert [e.key for e in offered(catalogue, groups)] == keys
    assert [p["slug"] for p in profile_list(catalogue, groups)] == keys
    assert preselect(catalogue, groups, {"profile": "cms"}).selection is not None
    if "cms" not in keys:
        with pytest.raises(NotAllowedError, match="escape/atlas' or 'escape/cms"):
            select(catalogue, groups, {"profile": "cms"})


def test_nothing_chosen_means_the_default(catalogue: Catalogue) -> None:
    for nothing in ({}, {"profile": ""}, {"profile": None}):
        assert select(catalogue, CMS, nothing).environment.key == "python"


def test_the_first_allowed_stands_in_for_a_default_that_is_not_allowed() -> None:
    raw = with_value(("environments", "python", "allowed_groups"), ["admins"])
    found = parse_catalogue(raw)
    assert select(found, CMS, {}).environment.key == "cms"
    assert [p["default"] for p in profile_list(found, CMS)] == [True]


def test_who_is_in_no_group_hears_which_ones_there_are() -> None:
    catalogue = parse_catalogue(
        with_value(("environments", "python", "allowed_groups"), ["admins"])
    )
    with pytest.raises(NotAllowedError, match="'admins', 'escape/atlas' or 'escape/cms'") as caught:
        select(catalogue, set(), {})
    assert caught.value.code == "environment-none"
    assert preselect(catalogue, set(), {}).selection is None
    assert profile_list(catalogue, set()) == []


def test_choices_come_with_their_default_and_are_checked(catalogue: Catalogue) -> None:
    assert select(catalogue, CMS, {"profile": "cms"}).choices["size"].key == "large"
    small = select(catalogue, CMS, {"profile": "cms", "size": "small"})
    assert small.user_options() == {"profile": "cms", "size": "small"}
    with pytest.raises(UnknownEnvironmentError, match="does not offer 'huge' for 'Size'"):
        select(catalogue, CMS, {"profile": "cms", "size": "huge"})


def test_a_choice_adds_to_what_its_environment_says(catalogue: Catalogue) -> None:
    large = select(catalogue, CMS, {"profile": "cms"})
    assert large.resources == Resources(8.0, "8G", 1)
    assert large.resources.words() == ("8 CPU cores", "8 GiB memory", "1 GPU")
    assert large.local.cmd == ("lab",)
    assert large.local.args == ("--a", "--b")
    assert large.local.env == {"A": "1", "B": "2"}


@given(st.dictionaries(st.text(max_size=12), json_values, max_size=4), st.sampled_from([(), CMS]))
def test_no_wish_ever_leads_to_an_environment_that_is_not_allowed(
    options: dict[str, Any], groups: set[str]
) -> None:
    catalogue = parse_catalogue(RAW)
    for wish in (options, {**options, "profile": "cms"}, {**options, "profile": "python"}):
        try:
            found = select(catalogue, groups, wish)
        except (NotAllowedError, UnknownEnvironmentError):
            continue
        assert found.environment.allows(groups)
        assert found.environment.key == (wish.get("profile") or "python")


# -- last time -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("groups", "last", "key", "gone"),
    [
        (CMS, {"profile": "cms", "size": "small"}, "cms", ""),
        (CMS, {"profile": "cms", "size": "gone"}, "cms", ""),
        (CMS, {}, "python", ""),
        (CMS, {"profile": "old"}, "python", "old"),
        (set(), {"profile": "cms"}, "python", "CMS"),
        (CMS, {"profile": ["cms"]}, "python", "['cms']"),
    ],
)
def test_the_last_choice_is_preselected_as_long_as_it_stands(
    catalogue: Catalogue, groups: set[str], last: dict[str, Any], key: str, gone: str
) -> None:
    found = preselect(catalogue, groups, last)
    assert found.selection is not None
    assert (found.selection.environment.key, found.gone) == (key, gone)


# -- KubeSpawner and forms ---------------------------------------------------------------


def test_profile_list_is_what_kubespawner_reads(catalogue: Catalogue) -> None:
    python, cms = profile_list(catalogue, CMS)
    assert (python["display_name"], python["description"]) == ("Python &lt;3&gt;", "A &amp; B")
    assert python["kubespawner_override"] == {"cpu_limit": 1.0, "mem_limit": "2G"}
    assert cms["kubespawner_override"] == {
        "image": "registry.example.org/cms:1",
        "cpu_limit": 0.5,
        "mem_limit": "8G",
        "extra_resource_limits": {"nvidia.com/gpu": "1"},
        "node_selector": {"disk": "ssd"},
        "extra_labels": {"team": "cms"},
    }
    large = cms["profile_options"]["size"]["choices"]["large"]
    assert large["default"] is True
    # What an operator passes on wins over what we make of `resources`.
    assert large["kubespawner_override"] == {"cpu_limit": 8.0, "mem_limit": "64G"}


def test_the_form_keeps_the_options_of_the_chosen_environment_alone() -> None:
    form = {
        "profile": ["cms"],
        "profile-option-cms--size": ["large"],
        "profile-option-cms--profile": ["python"],
        "profile-option-other--size": ["small"],
        "something_file": [{"body": b"x"}],
        "_xsrf": ["x"],
    }
    assert options_from_form(form) == {"profile": "cms", "size": "large"}
    assert options_from_form({}) == {}
    assert options_from_form({"profile": []}) == {}

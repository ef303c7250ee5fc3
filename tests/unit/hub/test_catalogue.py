"""A bad catalogue is refused with file, line and reason."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escape_hub.errors import SettingsError
from escape_hub.hub.catalogue import MAX_SIZE, load_catalogue, parse

CHECKOUT = Path(__file__).resolve().parents[3]


def test_the_catalogue_that_is_shipped_is_a_good_one() -> None:
    found = load_catalogue(CHECKOUT / "hub_config/environments.yaml")
    assert [e.key for e in found.environments if e.default] == ["python"]


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("", 1, "the file is empty"),
        ("# only a comment\n", 1, "the file is empty"),
        ("environments:\n  a: {name: A}\n  b: {name: B\n", 4, "expected ',' or '}'"),
        ("environments:\n\ta: 1\n", 2, "cannot start any token"),
        ("environments:\n  a:\n    name: A\n    nmae: A\n", 4, "environments.a.nmae: unknown"),
        ("environments:\n  a:\n    description: A\n", 2, "environments.a.name: is missing"),
        ("environments:\n  a: {name: A}\n\n  a: {name: B}\n", 4, "is there already, in line 2"),
        ("environments:\n  a:\n    name: A\n    contents:\n      - x\n      - 3\n", 6, "a number"),
        (
            "environments:\n  a:\n    name: A\n    resources:\n      cpu: 1\n      memory: 2 GB\n",
            6,
            "'2 GB' is no amount",
        ),
        ("environments:\n  a: !!python/object:os.system {}\n", 2, "could not determine"),
        ("environments: {}\n---\nenvironments: {}\n", 2, "expected a single document"),
        ("- a\n", 1, "must be a mapping"),
        ("environments:\n  1: {name: A}\n", 2, "put it in quotes"),
    ],
)
def test_a_fault_is_named_with_file_and_line(text: str, line: int, reason: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(text, name="environments.yaml")
    assert caught.value.message.startswith(f"environments.yaml:{line}: "), caught.value.message
    assert reason in caught.value.message


def test_what_looks_like_a_date_stays_a_text() -> None:
    found = parse("environments:\n  a:\n    name: A\n    contents: [2026-11-24]\n", name="x")
    assert found.environments[0].contents == ("2026-11-24",)


def test_anchors_can_be_used_for_what_repeats() -> None:
    text = "environments:\n  a: &a\n    name: A\n    resources: {cpu: 1}\n  b: *a\n"
    assert [e.resources.cpu for e in parse(text, name="x").environments] == [1, 1]


def test_a_missing_or_unreadable_file_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"environments_file names the catalogue"):
        load_catalogue(tmp_path / "none.yaml")
    with pytest.raises(SettingsError, match="cannot be read"):
        load_catalogue(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"environments: \xff")
    with pytest.raises(SettingsError, match="cannot be read"):
        load_catalogue(tmp_path / "latin.yaml")


def test_a_huge_file_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(SettingsError, match="no catalogue"):
        parse("#" * (MAX_SIZE + 1), name="x")


@settings(max_examples=300)
@given(st.text(alphabet="environmts:{}[]&*!-# \n\"'|>0ax,?", max_size=60))
def test_any_text_is_a_catalogue_or_a_settings_error(text: str) -> None:
    for whole in (text, f"environments:\n  a:\n    name: {text}\n"):
        try:
            parse(whole, name="x")
        except SettingsError as error:
            assert error.message.startswith("x:")

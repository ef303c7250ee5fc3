"""An issuer that breaks one rule at a time: the hub signs nobody in, and says why."""

from __future__ import annotations

import json

import httpx
import pytest

from escape_hub.demo.iam import hostile
from tests.hub.hostile import cases
from tests.hub.hostile.cases import Case
from tests.hub.hostile.play import Play


@pytest.mark.parametrize("case", cases.AT_SIGN_IN, ids=lambda case: case.name)
def test_at_sign_in(play: Play, case: Case) -> None:
    play.both(case)


@pytest.mark.parametrize("case", cases.DISCOVERY, ids=lambda case: case.name)
def test_in_the_metadata(forgetful: Play, case: Case) -> None:
    forgetful.both(case)


def lie_about(play: Play, name: str, **claims: object) -> None:
    """What the issuer says of one person; not through httpx's JSON, which knows only good text."""
    answer = httpx.put(
        f"{play.iam.issuer}dev/faults",
        content=json.dumps({"users": {name: claims}}),
        headers={"X-Dev-Control": "1"},
    )
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize("odd", ["\ud800", "a\x00b", "x" * 3000, ""], ids=ascii)
def test_a_group_that_no_database_can_hold_is_none(play: Play, odd: str) -> None:
    name = play.new_name()
    lie_about(play, name, groups=["escape", odd])
    with play.somebody(name=name) as person:
        page = person.login()
        assert page.status_code == 200, page.text
        assert person.api("GET", "user").json()["groups"] == ["escape"]


@pytest.mark.parametrize("odd", ["\ud800", "a\x00b", "x" * 256], ids=ascii)
def test_a_subject_that_no_database_can_hold_is_nobody(play: Play, odd: str) -> None:
    name = play.new_name()
    lie_about(play, name, sub=odd)
    start = len(play.hub.log_text)
    with play.somebody(name=name) as person:
        page = person.login()
        found = play.read(person, page, start, play.iam.counters())
    assert (found.who, found.code) == ("", "id-token-sub")


def test_every_lie_that_the_issuer_knows_is_told() -> None:
    """A new mutation of the development IAM needs a case here."""
    told: set[str] = set()
    for case in (*cases.AT_SIGN_IN, *cases.REFRESHES, *cases.EXCHANGED):
        for value in case.faults.get("hostile", {}).values():
            told.update([value] if isinstance(value, str) else value)
    for case in cases.LOGOUT_TOKENS:
        told.update(case.faults["mutations"])
    known = {*hostile.TOKEN_MUTATIONS, *hostile.REPLY_MUTATIONS}
    assert known - told == set()


def test_every_case_has_a_name_of_its_own() -> None:
    listed = [case.name for case in (*cases.AT_SIGN_IN, *cases.DISCOVERY, *cases.REFRESHES,
                                     *cases.EXCHANGED, *cases.LOGOUT_TOKENS)]  # fmt: skip
    assert len(listed) == len(set(listed))

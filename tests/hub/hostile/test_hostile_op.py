"""An issuer that breaks one rule at a time: the hub signs nobody in, and says why."""

from __future__ import annotations

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

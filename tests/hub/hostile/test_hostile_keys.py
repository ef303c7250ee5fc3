"""The issuer's keys change, are ambiguous, or cannot be had."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.hub.hostile import cases
from tests.hub.hostile.cases import Case
from tests.hub.hostile.play import HUB, NAIVE, Play, name_of

NO_KEYS = "signs the person in: asks for no keys"


@pytest.fixture(autouse=True)
def _one_key_afterwards(play: Play, forgetful: Play) -> Iterator[None]:
    yield
    for one in (play, forgetful):
        one.iam.rotate_keys(keep_old=False)


def jwks_requests(play: Play) -> int:
    return int(play.iam.counters()["requests"].get("jwk", 0))


@pytest.mark.parametrize("keep_old", [True, False], ids=["kept", "gone"])
def test_signing_key_rotation(play: Play, keep_old: bool) -> None:
    """A new key is taken at once, for one more look at the keys, whether the old one stays."""
    case = Case("signing-key-rotation", "a new signing key is taken at once, by one more look")
    play.faults(case)
    with play.somebody() as first:
        play.sign_in(first)
    play.iam.rotate_keys(keep_old=keep_old)
    play.iam.reset_counters()
    with play.somebody() as second, play.somebody() as third:
        play.sign_in(second)
        assert jwks_requests(play) == 1
        play.sign_in(third)
        assert jwks_requests(play) == 1
    play.put(case, HUB, True, "signed in")
    play.judge_naive(case, play.at_naive(case))


def test_signing_key_rotation_just_before_signing(play: Play) -> None:
    """The key changes while the person is at the issuer's form."""
    case = Case("signing-key-rotation-just-before-signing", "the same in the middle of a sign-in")
    play.faults(case)
    with play.somebody() as person:
        form = person.start_login()
        play.iam.rotate_keys(keep_old=False)
        person.submit(form, username=person.name, password=person.password)
        good = name_of(person) == person.name
    play.put(case, HUB, good, "signed in")
    assert good
    play.judge_naive(case, play.at_naive(case))


def test_kid_absent_multiple_jwks(play: Play) -> None:
    play.iam.rotate_keys(keep_old=True)
    play.both(
        Case("kid-absent-multiple-jwks", "no kid is refused where several keys fit",
             {"hostile": {"id_token": "kid_absent"}}, "jwks-ambiguous")
    )  # fmt: skip


def test_no_kid_is_good_again_once_there_is_one_key(play: Play) -> None:
    """Keys that no longer are the issuer's make nothing ambiguous."""
    play.iam.rotate_keys(keep_old=True)
    case = Case("kid-absent-former-keys", "keys that the issuer had once make nothing ambiguous",
                {"hostile": {"id_token": "kid_absent"}})  # fmt: skip
    assert play.at_hub(case).code == "jwks-ambiguous"
    play.iam.rotate_keys(keep_old=False)
    play.both(case)


def test_keys_that_cannot_be_had_do_not_matter_while_they_are_known(play: Play) -> None:
    with play.somebody() as person:
        play.iam.faults()
        play.sign_in(person)
    play.both(
        Case("jwks-down", "known keys serve while the issuer does not give them",
             {"jwk": {"mode": "503"}})
    )  # fmt: skip


@pytest.mark.parametrize(
    ("mode", "code"),
    [("503", "jwks-failed"), ("garbage", "jwks-empty"), ("307", "jwks-failed")],
    ids=["down", "garbage", "redirect"],
)
def test_a_new_key_that_cannot_be_had_is_a_page(forgetful: Play, mode: str, code: str) -> None:
    with forgetful.somebody() as person:
        forgetful.iam.faults()
        forgetful.sign_in(person)
    forgetful.iam.rotate_keys(keep_old=False)
    forgetful.both(
        Case(f"jwks-new-{mode}", "a key that nobody could look up proves nothing",
             {"jwk": {"mode": mode}}, code)
    )  # fmt: skip


def test_a_made_up_kid_costs_the_issuer_one_look_a_sign_in(play: Play) -> None:
    case = Case("kid-unknown-budget", "a made-up kid costs one look at the keys for each sign-in",
                {"hostile": {"id_token": "kid_unknown"}}, "jwks-unknown-kid")  # fmt: skip
    with play.somebody() as person:
        play.iam.faults()
        play.sign_in(person)
    looks = []
    for _ in range(3):
        found = play.at_hub(case)
        looks.append(jwks_requests(play))
        play.judge(case, found)
    assert looks == [1, 1, 1]
    assert found.reached == cases.CODE
    play.at_naive(case)
    play.put(case, NAIVE, True, f"falls for it: {NO_KEYS}")

"""What may become a token file."""

from __future__ import annotations

import base64
import json
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escape_hub.core.audiences import Audience
from escape_hub.core.compact import peek_claims
from escape_hub.core.credentials import token_text
from escape_hub.errors import AudienceMismatchError, ExpiredTokenError, MalformedTokenError
from escape_hub.session.publishing import Outcome, check_token, publish
from escape_hub.session.token_files import TokenDirectory
from tests.fakes.hub_api import make_jwt
from tests.unit.session.peers import EOS, NOW, RUCIO, jwt, opened

AUDIENCES = pytest.mark.parametrize("audience", [EOS, RUCIO], ids=["eos", "bare"])


def put(
    directory: TokenDirectory,
    audience: Audience,
    token: str,
    expires_at: float,
    known: float | None = None,
) -> Outcome:
    return publish(directory, audience, token, expires_at, hub_now=NOW, known_expiry=known)


def text_of(directory: TokenDirectory, audience: Audience) -> str:
    found = directory.read(audience.file)
    assert found is not None
    return found.text


@AUDIENCES
def test_a_good_token_is_written_as_its_service_reads_it(
    tmp_path: Path, audience: Audience
) -> None:
    token = jwt(audience, NOW + 3600)
    with opened(tmp_path / "t") as directory:
        assert put(directory, audience, token, NOW + 3600) is Outcome.WRITTEN
        assert text_of(directory, audience) == token_text(audience, token)


@AUDIENCES
@pytest.mark.parametrize(
    ("claims", "error"),
    [
        ({"aud": "somebody-else"}, AudienceMismatchError),
        ({"aud": ["a", "b"]}, AudienceMismatchError),
        ({"aud": None}, AudienceMismatchError),
        ({"aud": {"eos-eulake": 1, "rucio": 1}}, AudienceMismatchError),
        ({"exp": NOW - 61}, ExpiredTokenError),
        ({"exp": "soon"}, MalformedTokenError),
        ({"exp": True}, MalformedTokenError),
        ({"exp": 10**400}, MalformedTokenError),
    ],
    ids=str,
)
def test_a_token_with_wrong_claims_keeps_the_old_file(
    tmp_path: Path, audience: Audience, claims: dict[str, object], error: type[Exception]
) -> None:
    good = jwt(audience, NOW + 60)
    bad = make_jwt({"aud": audience.audience, "exp": NOW + 3600} | claims)
    with opened(tmp_path / "t") as directory:
        put(directory, audience, good, NOW + 60)
        with pytest.raises(error) as caught:
            put(directory, audience, bad, NOW + 3600)
        assert bad not in str(caught.value)
        assert text_of(directory, audience) == token_text(audience, good)


def test_the_audience_may_be_one_of_a_list() -> None:
    token = make_jwt({"aud": ["rucio", "https://wlcg.cern.ch/jwt/v1/any"], "exp": NOW + 1})
    assert check_token(RUCIO, token, hub_now=NOW) == NOW + 1


@pytest.mark.parametrize("token", ["no spaces\n", "a:b", "", "x" * 20000, "a b"])
def test_a_malformed_token_is_never_written(tmp_path: Path, token: str) -> None:
    with opened(tmp_path / "t") as directory:
        with pytest.raises(MalformedTokenError):
            put(directory, EOS, token, NOW + 60)
        assert directory.read(EOS.file) is None


@AUDIENCES
def test_an_unchanged_token_is_not_written_again(tmp_path: Path, audience: Audience) -> None:
    token = jwt(audience, NOW + 3600)
    with opened(tmp_path / "t") as directory:
        put(directory, audience, token, NOW + 3600)
        before = (tmp_path / "t" / audience.file).stat()
        assert put(directory, audience, token, NOW + 3600) is Outcome.UNCHANGED
        after = (tmp_path / "t" / audience.file).stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_a_file_whose_mode_was_opened_is_written_again(tmp_path: Path) -> None:
    token = jwt(RUCIO, NOW + 3600)
    with opened(tmp_path / "t") as directory:
        put(directory, RUCIO, token, NOW + 3600)
        (tmp_path / "t/rucio.token").chmod(0o644)
        assert put(directory, RUCIO, token, NOW + 3600) is Outcome.WRITTEN
        (tmp_path / "t/rucio.token").chmod(0o644)
        earlier = jwt(RUCIO, NOW + 60)
        assert put(directory, RUCIO, earlier, NOW + 60) is Outcome.KEPT_LATER
        found = directory.read("rucio.token")
        assert found is not None and found.private and found.text == token


def test_an_opaque_token_is_compared_by_what_the_hub_said(tmp_path: Path) -> None:
    with opened(tmp_path / "t") as directory:
        put(directory, RUCIO, "opaque-1", NOW + 600)
        assert put(directory, RUCIO, "opaque-2", NOW + 60, NOW + 600) is Outcome.KEPT_LATER
        assert put(directory, RUCIO, "opaque-3", NOW + 601, NOW + 600) is Outcome.WRITTEN
        assert put(directory, RUCIO, "opaque-4", NOW + 1, None) is Outcome.WRITTEN


def test_a_file_of_another_audience_or_form_is_no_reason_to_keep_it(tmp_path: Path) -> None:
    moved = replace(RUCIO, file=EOS.file)
    with opened(tmp_path / "t") as directory:
        put(directory, EOS, jwt(EOS, NOW + 9999), NOW + 9999)
        assert put(directory, moved, jwt(moved, NOW + 60), NOW + 60, NOW + 9999) is Outcome.WRITTEN
        other = replace(moved, audience="rucio-2")
        assert put(directory, other, jwt(other, NOW + 9), NOW + 9, NOW + 60) is Outcome.WRITTEN
        directory.write(EOS.file, "what a person wrote here")
        assert put(directory, EOS, jwt(EOS, NOW + 60), NOW + 60, NOW + 9999) is Outcome.WRITTEN


lives = st.lists(st.integers(min_value=1, max_value=10_000), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(lives, st.booleans(), st.sampled_from([EOS, RUCIO]))
def test_whatever_comes_the_file_always_holds_the_longest_life(
    seconds: list[int], is_jwt: bool, audience: Audience
) -> None:
    with tempfile.TemporaryDirectory() as scratch, opened(Path(scratch) / "t") as directory:
        known: float | None = None
        best = 0.0
        for turn, life in enumerate(seconds):
            expires_at = NOW + life
            token = jwt(audience, expires_at, n=turn) if is_jwt else f"opaque-{turn}-{life}"
            outcome = put(directory, audience, token, expires_at, known)
            if not outcome.keeps_old:
                known = expires_at
            best = max(best, expires_at)
            assert known == best


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=200) | st.binary(max_size=200).map(lambda b: b.hex()))
def test_any_text_is_a_jwt_or_opaque_and_nothing_else(text: str) -> None:
    claims = peek_claims(text)
    assert claims is None or isinstance(claims, dict)


@pytest.mark.parametrize("payload", ["[" * 12000, "[1]", "null", '"x"', "{", ""])
def test_three_parts_that_are_no_objects_are_opaque(payload: str) -> None:
    def part(text: str) -> str:
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    assert peek_claims(f"{part(json.dumps({}))}.{part(payload)}.sig") is None

"""Different sessions never share a directory, and no name leaves it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escape_hub.core.session_names import rucio_account, session_directory, slug
from escape_hub.errors import SettingsError

names = st.text(max_size=120)


@given(names, names)
def test_different_names_have_different_slugs(one: str, other: str) -> None:
    assert (slug(one) == slug(other)) == (one == other)


@given(names)
def test_a_slug_is_one_short_part_of_a_path(name: str) -> None:
    assert set(slug(name)).isdisjoint("./\0 ~")
    assert len(slug(name)) <= 80


@given(st.tuples(names, names), st.tuples(names, names))
def test_two_sessions_never_share_the_default_directory(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    template = "/dev/shm/escape-hub.{session}"
    same = session_directory(template, *one) == session_directory(template, *other)
    assert same == (one == other)


@pytest.mark.parametrize(
    ("template", "server", "path"),
    [
        ("/dev/shm/x.{session}", "", "/dev/shm/x.alice"),
        ("/dev/shm/x.{session}", "lab", "/dev/shm/x.alice.lab"),
        ("/tmp/{username}/{servername}", "", "/tmp/alice"),
        ("/tmp/{username}/{servername}", "a/../b", "/tmp/alice/a_2f_2e_2e_2fb"),
    ],
)
def test_the_template_is_filled_in(template: str, server: str, path: str) -> None:
    assert session_directory(template, "alice", server) == path


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("tokens/{session}", "absolute path"),
        ("/tmp/../{session}", "absolute path"),
        ("/tmp/tokens", "the same for all users"),
        ("/tmp/{servername}", "the same for all users"),
        ("/tmp/{user}", "known are {username}"),
        ("/tmp/{session.__class__}", "the same for all users|cannot be filled in"),
        ("/tmp/{0}", "cannot be filled in"),
        ("/tmp/{session", "cannot be filled in"),
    ],
)
def test_a_template_that_cannot_work_is_refused(template: str, reason: str) -> None:
    with pytest.raises(SettingsError, match=reason):
        session_directory(template, "alice", "")


def test_the_rucio_account_comes_from_the_claims() -> None:
    claims = {"preferred_username": "alice", "sub": "1", "groups": ["a"], "evil": "a\nb"}
    assert rucio_account("{preferred_username}", claims) == "alice"
    assert rucio_account("escape-{sub}", claims) == "escape-1"
    for template in ("{groups}", "{missing}", "{evil}"):
        with pytest.raises(SettingsError, match="needs the claim"):
            rucio_account(template, claims)
    for template in ("{", "{0}", "{sub.x}"):
        with pytest.raises(SettingsError, match="rucio_account"):
            rucio_account(template, claims)
    with pytest.raises(SettingsError, match="empty name"):
        rucio_account("{sub}", {"sub": " "})

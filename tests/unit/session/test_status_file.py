"""``status.json`` as a memory: what was written is read, what is damaged is not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from escape_hub.core.status import State
from escape_hub.session.status_file import AudienceStatus, SessionStatus, parse_status
from tests.unit.session.peers import EOS, RUCIO

times = st.none() | st.floats(0, 1e11)
audience_statuses = st.builds(
    AudienceStatus,
    name=st.sampled_from(["eos", "rucio"]),
    label=st.text(),
    file=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True),
    state=st.sampled_from(State),
    message=st.text(),
    reference=st.text(),
    expires_at=times,
    renewed_at=times,
)
statuses = st.builds(
    SessionStatus,
    state=st.sampled_from(State),
    message=st.text(),
    reference=st.text(),
    sign_in_url=st.text(),
    updated_at=st.floats(0, 1e11),
    next_poll_at=times,
    writer_pid=st.integers(0, 2**22),
    audiences=st.lists(audience_statuses, max_size=3).map(tuple),
)


@settings(max_examples=60, deadline=None)
@given(statuses)
def test_what_is_written_is_read(status: SessionStatus) -> None:
    assert parse_status(status.to_json()) == status


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"state": "wonderful"},
        {"message": 1},
        {"updated_at": float("nan")},
        {"next_poll_at": True},
        {"audiences": None},
        {"audiences": [1]},
        {"audiences": [{}]},
    ],
    ids=str,
)
def test_what_is_damaged_is_not_believed(change: dict[str, Any]) -> None:
    assert parse_status(json.dumps(SessionStatus().to_dict() | change)) is None


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100000])
def test_what_is_no_status_is_none(text: str) -> None:
    assert parse_status(text) is None


@pytest.mark.parametrize("file", ["../rucio.cfg", "/etc/passwd", "", ".tmp-x"])
def test_a_status_that_names_a_file_elsewhere_is_not_believed(file: str) -> None:
    status = SessionStatus(audiences=(AudienceStatus("eos", "EOS", file),))
    assert parse_status(status.to_json()) is None


def test_a_plan_keeps_what_is_known_of_its_files_and_forgets_the_rest() -> None:
    previous = SessionStatus(
        state=State.SIGN_IN,
        audiences=(
            AudienceStatus("eos", "old label", "eos.token", expires_at=5.0),
            AudienceStatus("rucio", "Rucio", "other-file", expires_at=6.0),
            AudienceStatus("gone", "Gone", "gone.token", expires_at=7.0),
        ),
    )
    found = SessionStatus.for_plan((EOS, RUCIO), previous)
    assert found.state is State.SIGN_IN
    assert [(a.name, a.label, a.expires_at) for a in found.audiences] == [
        ("eos", "EOS storage", 5.0),
        ("rucio", "Rucio catalogue", None),
    ]

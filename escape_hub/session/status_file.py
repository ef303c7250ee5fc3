"""``status.json``: how the session's access to the lake stands, for people and programs.

It also remembers, across a restart of the agent, when each file expires and that
the hub asked for a new sign-in. It never holds a token.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from escape_hub.core.audiences import Audience
from escape_hub.core.status import State

VERSION = 1
FILE = "status.json"
_FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class AudienceStatus:
    """One audience. ``expires_at`` and ``renewed_at`` are those of the file that is there
    (epoch seconds of the hub's clock), None when there is no file."""

    name: str
    label: str
    file: str
    state: State = State.LATE
    message: str = ""
    reference: str = ""
    expires_at: float | None = None
    renewed_at: float | None = None


@dataclass(frozen=True, slots=True)
class SessionStatus:
    """The whole of ``status.json``; times are epoch seconds, ``notes`` lines for people."""

    state: State = State.LATE
    message: str = ""
    reference: str = ""
    sign_in_url: str = ""
    updated_at: float = 0.0
    next_poll_at: float | None = None
    writer_pid: int = 0
    notes: tuple[str, ...] = ()
    audiences: tuple[AudienceStatus, ...] = field(default=())

    def to_dict(self) -> dict[str, Any]:
        """The JSON object of ``status.json``."""
        return {"version": VERSION, **asdict(self)}

    def to_json(self) -> str:
        """The text of ``status.json``."""
        return json.dumps(self.to_dict(), indent=1) + "\n"

    @classmethod
    def for_plan(
        cls, audiences: tuple[Audience, ...], previous: SessionStatus | None
    ) -> SessionStatus:
        """A status for the plan's audiences that remembers what ``previous`` knew of their files.

        A file whose audience has since changed its file name is forgotten.
        """
        known = {(a.name, a.file): a for a in previous.audiences} if previous else {}
        start = previous or cls()
        return replace(
            start,
            audiences=tuple(
                replace(known[a.name, a.file], label=a.label)
                if (a.name, a.file) in known
                else AudienceStatus(a.name, a.label, a.file)
                for a in audiences
            ),
        )


def parse_status(text: str) -> SessionStatus | None:
    """Read ``status.json``; None for anything damaged or of another version."""
    try:
        raw = json.loads(text)
        if not isinstance(raw, dict) or raw.get("version") != VERSION:
            return None
        return SessionStatus(
            state=State(raw["state"]),
            message=_text(raw, "message"),
            reference=_text(raw, "reference"),
            sign_in_url=_text(raw, "sign_in_url"),
            updated_at=_time(raw, "updated_at") or 0.0,
            next_poll_at=_time(raw, "next_poll_at"),
            writer_pid=int(_time(raw, "writer_pid") or 0),
            notes=tuple(str(note) for note in raw.get("notes", ())),
            audiences=tuple(_audience(one) for one in raw["audiences"]),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
        return None


def _audience(raw: Mapping[str, Any]) -> AudienceStatus:
    file = _text(raw, "file")
    if not _FILE_NAME.fullmatch(file):
        raise ValueError("file")
    return AudienceStatus(
        name=_text(raw, "name"),
        label=_text(raw, "label"),
        file=file,
        state=State(raw["state"]),
        message=_text(raw, "message"),
        reference=_text(raw, "reference"),
        expires_at=_time(raw, "expires_at"),
        renewed_at=_time(raw, "renewed_at"),
    )


def _text(raw: Mapping[str, Any], key: str) -> str:
    value = raw[key]
    if not isinstance(value, str):
        raise TypeError(key)
    return value


def _time(raw: Mapping[str, Any], key: str) -> float | None:
    value = raw[key]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TypeError(key)
    return float(value)

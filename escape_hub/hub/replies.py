"""The JSON that the token and the status endpoint answer. Times: epoch seconds or seconds left."""

from __future__ import annotations

from typing import Any

from escape_hub.core.access import Status
from escape_hub.core.auth_state import AuthState

VERSION = 1


def tokens_reply(status: Status, state: AuthState, now: float, next_poll: float) -> dict[str, Any]:
    """For a session: its access tokens that live, how each audience stands, when to ask again."""
    rows = {}
    for name, one in status.audiences.items():
        row: dict[str, Any] = {
            "audience": name,
            "label": one.label,
            "state": one.state,
            "message": one.message,
            "reference": one.reference,
            "renewed_at": one.renewed_at,
        }
        token = state.exchanged.get(name)
        if token is not None and token.is_valid(now):
            row["access_token"] = token.value
            row["expires_in"] = round(token.remaining(now), 3)
            row["expires_at"] = token.expires_at
        rows[name] = row
    return {
        "version": VERSION,
        "generation": state.generation,
        "next_poll": round(next_poll, 3),
        "state": status.state,
        "message": status.message,
        "reference": status.reference,
        "audiences": rows,
    }


def status_reply(status: Status, sign_in_url: str) -> dict[str, Any]:
    """For people, and never with a token."""
    rows = [
        {
            "name": name,
            "label": one.label,
            "state": one.state,
            "message": one.message,
            "reference": one.reference,
            "expires_at": one.expires_at,
            "renewed_at": one.renewed_at,
            "lifetime": one.lifetime,
        }
        for name, one in status.audiences.items()
    ]
    return {
        "state": status.state,
        "message": status.message,
        "reference": status.reference,
        "sign_in_url": sign_in_url,
        "audiences": rows,
    }

"""The five states of a person's access to the lake, and the words for them.

The same words stand on the home page, in JupyterLab and in ``status.json``.
Scientists never read the word "token".
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """How the access to one audience, or to all of them, stands."""

    FRESH = "fresh"
    RENEWING = "renewing"
    LATE = "late"
    SIGN_IN = "sign_in"
    REFUSED = "refused"


WORDS: dict[State, str] = {
    State.FRESH: "renews by itself",
    State.RENEWING: "being renewed",
    State.LATE: "the identity service does not answer; trying again by itself",
    State.SIGN_IN: "sign in again to go on",
    State.REFUSED: "refused by the identity service: ask the operator",
}

_SEVERITY = [State.FRESH, State.RENEWING, State.LATE, State.REFUSED, State.SIGN_IN]


def worst(states: list[State]) -> State:
    """The state that a person should hear of first; `State.LATE` when there is none at all."""
    return max(states, key=_SEVERITY.index) if states else State.LATE

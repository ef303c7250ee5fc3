"""What people read when a session starts, or why it does not."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Any

from tornado import web

from escape_hub.core.audiences import Audience
from escape_hub.core.auth_state import AuthState, Failure, NeedsLogin
from escape_hub.core.environment_choice import UnknownEnvironmentError
from escape_hub.core.status import WORDS, State
from escape_hub.errors import EscapeHubError, LoginRequiredError, NotAllowedError, SettingsError


class StartRefusedError(web.HTTPError):
    """A start that was refused. JupyterHub shows these texts in place of its own sentence."""

    def __init__(self, status: int, message: str, html_message: str) -> None:
        super().__init__(status, message)
        self.jupyterhub_message = message
        self.jupyterhub_html_message = html_message


def needs_sign_in(reason: NeedsLogin | None, username: str) -> LoginRequiredError:
    """Nothing can be started before this user signs in (again)."""
    if reason is None:
        return LoginRequiredError(
            f"{username} has not signed in through this service yet, so there is no access to "
            "the data lake to give to a session.",
            code="never-signed-in",
        )
    return LoginRequiredError(reason.message, code=reason.code)


def access_report(audiences: Sequence[Audience], state: AuthState, now: float) -> tuple[str, ...]:
    """Lines for the starting page: what the session has at its start, and what follows."""
    ready, late, refused = [], [], []
    for audience in audiences:
        token = state.exchanged.get(audience.name)
        failure = state.failures.get(audience.name)
        if token is not None and token.is_valid(now):
            ready.append(audience.label)
        elif failure is not None and failure.kind in ("operator", "user_action"):
            refused.append(f"{audience.label}: {_why(failure)}")
        else:
            late.append(audience.label)
    lines = [f"Signed in to {_and(ready)}"] if ready else []
    if late:
        lines.append(f"{_and(late)} answered late: starting without it, it will follow")
    return (*lines, *refused)


def _why(failure: Failure) -> str:
    # The issuer's own words are for the operator, who finds them in the log by the code.
    words = failure.message if failure.kind == "user_action" else WORDS[State.REFUSED]
    return f"{words} (reference: {failure.code})"


def for_people(error: EscapeHubError, log: Any, who: str, *, sign_in_url: str) -> StartRefusedError:
    """The error page of a start that was refused, and the line in the log with its reference."""
    log.warning("Not starting %s: %s [%s]", who, error.message, error.code)
    status, message = _status_and_words(error)
    text = html.escape(message)
    if isinstance(error, LoginRequiredError):
        text += f' <a href="{html.escape(sign_in_url)}">Sign in again</a>.'
    return StartRefusedError(
        status,
        f"{message} (reference: {error.code})",
        f"{text} <small>Reference: {html.escape(error.code)}</small>",
    )


def _status_and_words(error: EscapeHubError) -> tuple[int, str]:
    if isinstance(error, NotAllowedError | LoginRequiredError):
        return 403, error.message
    if isinstance(error, UnknownEnvironmentError):
        return 400, error.message
    if isinstance(error, SettingsError):
        return 500, (
            "This service is not set up correctly, so no session can start. Please tell its "
            "administrators; the reason is in the hub's log."
        )
    return 500, error.message


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"

"""Tokens that are over, without waiting for it."""

from __future__ import annotations

from dataclasses import replace

from escape_hub.core.auth_state import AuthState
from escape_hub.core.tokens import AccessToken


def aged(state: AuthState, now: float) -> AuthState:
    """``state`` as it would be with every access token expired; the refresh token is good."""

    def over(token: AccessToken) -> AccessToken:
        return replace(token, obtained_at=now - token.lifetime - 1, expires_at=now - 1)

    assert state.login_token is not None
    exchanged = {name: over(token) for name, token in state.exchanged.items()}
    return state.next(login_token=over(state.login_token), exchanged=exchanged)

"""A login on its way through the issuer, kept in the browser that began it.

One cookie per login, so that two tabs do not get in each other's way. It holds
state, nonce and verifier, encrypted with the hub's key, so no database and no
memory is needed until the person comes back, and a hub that was restarted
meanwhile still knows them.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import asdict, dataclass, field
from typing import Any

from jupyterhub import crypto

from escape_hub.core.oidc import code_challenge, same_secret
from escape_hub.hub.refusal_pages import SignInError

#: Seconds from the button to the way back.
LIFETIME = 600
_PREFIX = "escape-login-"
_MAX_NEXT_URL = 1024  # cookies must stay small: proxies refuse large headers


@dataclass(frozen=True, slots=True)
class LoginFlight:
    """One login. ``state`` (RFC 6749 10.12), ``nonce`` (OpenID Connect Core 3.1.2.1) and
    ``verifier`` (RFC 7636) are secrets until it lands; ``created`` is in epoch seconds.
    """

    state: str = field(repr=False)
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    next_url: str
    created: float

    @classmethod
    def start(cls, next_url: str, now: float) -> LoginFlight:
        """A new login with secrets of its own, 256 bits each."""
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        return cls(state, nonce, verifier, next_url, now)

    @property
    def challenge(self) -> str:
        """The PKCE code challenge, method S256."""
        return code_challenge(self.verifier)

    async def seal(self) -> str:
        """The cookie's value."""
        sealed: bytes = await crypto.encrypt(asdict(self))
        return sealed.decode().rstrip("=")

    @classmethod
    async def unseal(cls, value: str) -> LoginFlight:
        """Read what `seal` made; `SignInError` for anything else."""
        try:
            raw: Any = await crypto.decrypt((value + "=" * (-len(value) % 4)).encode())
            return cls(**raw)
        except (crypto.InvalidToken, ValueError, TypeError):
            raise unknown_login() from None

    def must_fit(self, state: str, now: float) -> None:
        """Raise `SignInError` unless ``state`` is this login's and its time is not over."""
        if not same_secret(self.state, state):
            raise unknown_login()
        if not 0 <= now - self.created <= LIFETIME:
            raise SignInError(
                f"It took more than {LIFETIME // 60} minutes.", code="sign-in-too-late"
            )


def unknown_login() -> SignInError:
    """No cookie of this browser belongs to the login that comes back."""
    return SignInError(
        "It was not begun in this browser, was used before, or cookies are switched off.",
        code="sign-in-unknown",
    )


def cookie_name(state: str) -> str:
    """Name of the cookie of the login with ``state``; says nothing about the state."""
    return _PREFIX + hashlib.sha256(state.encode()).hexdigest()[:8]


def state_key(state: str) -> str:
    """What is remembered of a used state."""
    return hashlib.sha256(state.encode()).hexdigest()


def local_path(next_url: str) -> str:
    """``next_url`` if it is harmless as the target of a redirect, else an empty string.

    Browsers drop tabs and line breaks inside an address and read ``\\`` as ``/``,
    so those are not let through at all; what is left must be a path of this host.
    """
    if any(c <= " " or c in "\\\x7f" for c in next_url) or len(next_url) > _MAX_NEXT_URL:
        return ""
    return next_url if next_url.startswith("/") and not next_url.startswith("//") else ""

"""What the development IAM must find again after a restart, in one file of mode 0600.

Refresh tokens and session cookies are kept as SHA-256 hashes: nobody can use a
copy of the file to sign in. The signing keys are in it in the clear, as in any
service of this kind. Times are seconds since the epoch.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from escape_hub.errors import SettingsError

_VERSION = 1
#: Rotated tokens of one login that are still recognised as replays.
_SPENT_KEPT = 50


def digest(secret: str) -> str:
    """What stands in the state for a secret."""
    return hashlib.sha256(secret.encode()).hexdigest()


@dataclass(slots=True)
class SigningKey:
    """An RSA key of 2048 bits. A key that is not published verifies nothing any more."""

    kid: str
    pem: str = field(repr=False)

    @classmethod
    def new(cls) -> SigningKey:
        """A fresh key with a random ``kid``."""
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        pem = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return cls(secrets.token_hex(8), pem.decode())


@dataclass(slots=True)
class Grant:
    """One login of one client: all tokens that came of it live and die with it.

    ``refresh`` is the hash of the living refresh token, empty when there is none.
    """

    id: str
    user: str
    client: str
    scope: list[str]
    sid: str
    auth_time: int
    expires_at: float
    refresh: str = ""
    refresh_expires_at: float = 0.0
    spent: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Session:
    """A browser that is signed in; its key in the state is the cookie's hash."""

    user: str
    sid: str
    auth_time: int
    expires_at: float


@dataclass(slots=True)
class State:
    """The whole, changed in place; `save` after each change that must survive."""

    path: Path | None = None
    keys: list[SigningKey] = field(default_factory=list)
    grants: dict[str, Grant] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    consents: list[list[str]] = field(default_factory=list)
    revoked: dict[str, float] = field(default_factory=dict)

    def grant_of_refresh(self, token: str) -> tuple[Grant, bool] | None:
        """The grant of a refresh token, and whether the token was rotated away."""
        key = digest(token)
        for grant in self.grants.values():
            if grant.refresh == key:
                return grant, False
            if key in grant.spent:
                return grant, True
        return None

    def rotate(self, grant: Grant, token: str, expires_at: float) -> None:
        """Make ``token`` the grant's refresh token; the one before is spent."""
        if grant.refresh:
            grant.spent = [*grant.spent, grant.refresh][-_SPENT_KEPT:]
        grant.refresh = digest(token)
        grant.refresh_expires_at = expires_at
        grant.expires_at = max(grant.expires_at, expires_at)

    def prune(self, now: float) -> None:
        """Forget what is over."""
        self.grants = {k: g for k, g in self.grants.items() if g.expires_at > now}
        self.sessions = {k: s for k, s in self.sessions.items() if s.expires_at > now}
        self.revoked = {k: t for k, t in self.revoked.items() if t > now}

    def save(self) -> None:
        """Write the file, complete or not at all; nothing happens without a path."""
        if self.path is None:
            return
        body = {
            "version": _VERSION,
            "keys": [dataclasses.asdict(k) for k in self.keys],
            "grants": [dataclasses.asdict(g) for g in self.grants.values()],
            "sessions": {k: dataclasses.asdict(s) for k, s in self.sessions.items()},
            "consents": self.consents,
            "revoked": self.revoked,
        }
        temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(body, file)
        os.replace(temporary, self.path)


def load_state(path: Path | None, now: float, key: SigningKey | None = None) -> State:
    """The state of ``path``, or a new one with ``key`` or a fresh key.

    `SettingsError` when the file cannot be read or written.
    """
    state = State(path)
    if path is not None and path.exists():
        try:
            _fill(state, json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SettingsError(
                f"{path} is not a state file of this version of the development IAM "
                f"({type(error).__name__}); move it away to start afresh"
            ) from None
    state.prune(now)
    if not state.keys:
        state.keys.append(key or SigningKey.new())
    try:
        state.save()
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}") from None
    return state


def _fill(state: State, raw: dict[str, Any]) -> None:
    if raw["version"] != _VERSION:
        raise ValueError("version")
    state.keys = [SigningKey(**k) for k in raw["keys"]]
    state.grants = {g["id"]: Grant(**g) for g in raw["grants"]}
    state.sessions = {k: Session(**s) for k, s in raw["sessions"].items()}
    state.consents = raw["consents"]
    state.revoked = raw["revoked"]

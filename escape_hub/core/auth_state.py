"""What the hub stores for a user, typed and versioned.

JupyterHub keeps one encrypted JSON object per user (``auth_state``). The keys
that OAuthenticator documents (``access_token``, ``refresh_token``, ``id_token``,
``scope``, ``oauth_user``) keep their names, so that an operator's hooks go on
working; everything of ours is below ``escape_hub``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from escape_hub.core.tokens import AccessToken
from escape_hub.errors import EscapeHubError

VERSION = 1
KEY = "escape_hub"


class ForeignAuthStateError(EscapeHubError):
    """What is stored was written by another authenticator, or is damaged: the user must log in."""

    code = "auth-state-foreign"


@dataclass(frozen=True, slots=True)
class Failure:
    """Why the last attempt for something failed.

    ``kind`` is one of ``transient``, ``operator``, ``user_action``, ``login``.
    ``code`` is the reference a person can quote; ``message`` is fit for people.
    """

    kind: str
    code: str
    message: str
    since: float


@dataclass(frozen=True, slots=True)
class NeedsLogin:
    """The user must log in again. ``wipe``: the session's files go at once."""

    code: str
    message: str
    since: float
    wipe: bool = False


@dataclass(frozen=True, slots=True)
class AuthState:
    """Everything the hub knows of a user's identity and tokens.

    ``generation`` grows by one with every write and is how a login and a renewal
    in flight find out about each other. ``exchanged`` and ``failures`` are keyed
    by the audience's configured name; ``failures`` has the key ``""`` for the
    refresh itself. ``checked_at`` is when the issuer last confirmed the claims.
    """

    issuer: str
    subject: str
    generation: int = 0
    refresh_token: str | None = field(default=None, repr=False)
    login_token: AccessToken | None = None
    id_token: str | None = field(default=None, repr=False)
    scope: tuple[str, ...] = ()
    exchanged: Mapping[str, AccessToken] = field(default_factory=dict)
    failures: Mapping[str, Failure] = field(default_factory=dict)
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)
    sid: str | None = None
    login_at: float = 0.0
    checked_at: float = 0.0
    needs_login: NeedsLogin | None = None

    def next(self, **changes: Any) -> AuthState:
        """A successor with ``changes`` and the generation moved by one."""
        return replace(self, generation=self.generation + 1, **changes)

    def to_dict(self) -> dict[str, Any]:
        """The JSON object that JupyterHub encrypts and stores. Holds every secret."""
        return {
            "access_token": self.login_token.value if self.login_token else None,
            "refresh_token": self.refresh_token,
            "id_token": self.id_token,
            "scope": list(self.scope),
            "oauth_user": dict(self.claims),
            KEY: {
                "version": VERSION,
                "generation": self.generation,
                "issuer": self.issuer,
                "subject": self.subject,
                "sid": self.sid,
                "login_at": self.login_at,
                "checked_at": self.checked_at,
                "login_token": _token_to_dict(self.login_token, with_value=False),
                "exchanged": {n: _token_to_dict(t) for n, t in self.exchanged.items()},
                "failures": {n: _plain(f) for n, f in self.failures.items()},
                "needs_login": _plain(self.needs_login) if self.needs_login else None,
            },
        }

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any] | None) -> AuthState:
        """Read what `to_dict` wrote.

        Raises `ForeignAuthStateError` for anything else: nothing stored, the state
        of another authenticator, a later version, or a damaged object.
        """
        if not isinstance(raw, Mapping) or not isinstance(own := raw.get(KEY), Mapping):
            raise ForeignAuthStateError("no sign-in of this service is stored: sign in again")
        if own.get("version") != VERSION:
            raise ForeignAuthStateError(
                f"the stored sign-in has version {own.get('version')!r}, this hub reads "
                f"{VERSION}: sign in again"
            )
        try:
            return cls(
                issuer=str(own["issuer"]),
                subject=str(own["subject"]),
                generation=int(own["generation"]),
                refresh_token=raw.get("refresh_token"),
                login_token=_login_token(own.get("login_token"), raw.get("access_token")),
                id_token=raw.get("id_token"),
                scope=tuple(raw.get("scope") or ()),
                exchanged={n: _token_from_dict(t) for n, t in own["exchanged"].items()},
                failures={n: Failure(**f) for n, f in own["failures"].items()},
                claims=dict(raw.get("oauth_user") or {}),
                sid=own.get("sid"),
                login_at=float(own["login_at"]),
                checked_at=float(own["checked_at"]),
                needs_login=NeedsLogin(**own["needs_login"]) if own.get("needs_login") else None,
            )
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise ForeignAuthStateError(
                f"the stored sign-in is damaged ({type(error).__name__}): sign in again"
            ) from None


def _plain(value: Failure | NeedsLogin) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _token_to_dict(token: AccessToken | None, *, with_value: bool = True) -> dict[str, Any] | None:
    if token is None:
        return None
    times = {"expires_at": token.expires_at, "obtained_at": token.obtained_at}
    return {"value": token.value, **times} if with_value else times


def _token_from_dict(raw: Mapping[str, Any]) -> AccessToken:
    return AccessToken(str(raw["value"]), float(raw["expires_at"]), float(raw["obtained_at"]))


def _login_token(times: Mapping[str, Any] | None, value: Any) -> AccessToken | None:
    if not times or not value:
        return None
    return AccessToken(str(value), float(times["expires_at"]), float(times["obtained_at"]))

"""Where the hub keeps what it knows of a person: JupyterHub's encrypted ``auth_state``.

All writes of ours compare the generation and set in one step of the event loop,
so a login that JupyterHub saves meanwhile is never overwritten.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

import sqlalchemy as sa
from cryptography.fernet import InvalidToken
from jupyterhub import crypto

from escape_hub.core.auth_state import AuthState, ForeignAuthStateError
from escape_hub.errors import EscapeHubError

log = logging.getLogger(__name__)


class StateMovedError(EscapeHubError):
    """What is stored is not what the writer had read. ``stored`` is what is there, if readable."""

    code = "auth-state-moved"

    def __init__(self, stored: AuthState | None) -> None:
        super().__init__("the stored sign-in changed meanwhile")
        self.stored = stored


class AuthStateStore(Protocol):
    """Loads and saves the state of a user by the hub's user name."""

    async def load(self, user: str) -> AuthState | None:
        """The stored state; None when there is none or no such user.

        Raises `ForeignAuthStateError` when it is not ours or cannot be decrypted.
        """

    async def save(
        self, user: str, state: AuthState, *, expected: int | None = None, wipe: bool = False
    ) -> None:
        """Store ``state``.

        With ``expected``: only if the stored generation is that, else `StateMovedError`.
        ``wipe``: what an operator's hook added beside our keys goes as well; otherwise
        it is kept. Raises `LookupError` when there is no such user.
        """


class MemoryStore:
    """A store without a hub, for benchmarks and tests: keeps the very objects."""

    def __init__(self) -> None:
        self.states: dict[str, AuthState] = {}

    async def load(self, user: str) -> AuthState | None:
        """The stored state, or None."""
        return self.states.get(user)

    async def save(
        self, user: str, state: AuthState, *, expected: int | None = None, wipe: bool = False
    ) -> None:
        """Store ``state``, comparing the generation first when one is expected."""
        stored = self.states.get(user)
        if expected is not None and (stored is None or stored.generation != expected):
            raise StateMovedError(stored)
        self.states[user] = state


class HubAuthStateStore:
    """The store over a running `jupyterhub.app.JupyterHub` (its ``users`` and crypt keys).

    ``User.get_auth_state`` is not used: with two crypt keys it writes back what it
    read, and so undoes a write made in between (see `protect_from_rewrites`).
    """

    def __init__(self, app: Any) -> None:
        self._app = app
        self._ids: dict[str, int] = {}

    def _user(self, name: str) -> Any | None:
        """The hub's user; asks the database only for who is not known by that name.

        ``users`` asks it for every name, and that takes longer than all the rest of a load.
        """
        users = self._app.users
        number = self._ids.get(name)
        if number is not None and number in users:
            found = users[number]
            # Renamed, or deleted past ``users``: look again.
            if found.name == name and sa.inspect(found.orm_user).persistent:
                return found
        try:
            found = users[name]
        except KeyError:
            self._ids.pop(name, None)
            return None
        self._ids[name] = found.orm_user.id
        return found

    async def load(self, user: str) -> AuthState | None:
        """See `AuthStateStore.load`."""
        found = self._user(user)
        if found is None or (encrypted := found.orm_user.encrypted_auth_state) is None:
            return None
        return AuthState.from_dict(await _decrypt(encrypted))

    async def save(
        self, user: str, state: AuthState, *, expected: int | None = None, wipe: bool = False
    ) -> None:
        """See `AuthStateStore.save`."""
        if (found := self._user(user)) is None:
            raise LookupError("the hub has no user of that name any more")
        row = found.orm_user
        while True:
            seen = row.encrypted_auth_state
            raw = await _readable(seen)
            if expected is not None:
                _compare(raw, expected)
            kept = {} if wipe or raw is None else raw
            encrypted = await crypto.encrypt({**kept, **state.to_dict()})
            # No await from here on: what was compared is what is replaced.
            if row.encrypted_auth_state == seen:
                break
        row.encrypted_auth_state = encrypted
        try:
            found.db.commit()
        except Exception:
            found.db.rollback()
            raise

    async def reencrypt(self, user: str) -> bool:
        """Write the user's state again under the first crypt key; whether there was any."""
        if (found := self._user(user)) is None:
            return False
        row = found.orm_user
        while (seen := row.encrypted_auth_state) is not None:
            encrypted = await crypto.encrypt(await _decrypt(seen))
            if row.encrypted_auth_state == seen:
                row.encrypted_auth_state = encrypted
                found.db.commit()
                return True
        return False


def _compare(raw: Mapping[str, Any] | None, expected: int) -> None:
    try:
        stored = AuthState.from_dict(raw)
    except ForeignAuthStateError:
        raise StateMovedError(None) from None
    if stored.generation != expected:
        raise StateMovedError(stored)


async def _decrypt(encrypted: bytes) -> Any:
    try:
        return await crypto.decrypt(encrypted)
    except (ValueError, InvalidToken, crypto.EncryptionUnavailable) as error:
        raise ForeignAuthStateError(
            f"the stored sign-in cannot be decrypted ({type(error).__name__}): sign in again; "
            "was JUPYTERHUB_CRYPT_KEY replaced without keeping the old key after the new one?"
        ) from None


async def _readable(encrypted: bytes | None) -> Mapping[str, Any] | None:
    """The stored object, or None when there is none that can be read."""
    if encrypted is None:
        return None
    try:
        raw = await _decrypt(encrypted)
    except ForeignAuthStateError:
        return None
    return raw if isinstance(raw, Mapping) else None


def protect_from_rewrites(keeper: Any | None = None) -> int:
    """Keep JupyterHub from writing a person's state back whenever it reads it.

    With more than one key in ``JUPYTERHUB_CRYPT_KEY``, ``User.get_auth_state`` stores
    what it has read, encrypted anew; a renewal saved between its read and its write
    is lost, and with it a rotated refresh token. It decides by ``len(keeper.keys)``.
    So ``keys`` is cut to the first one, the one that encrypts, while ``fernet`` goes
    on decrypting with all of them. Old rows are written anew at each renewal, at each
    login, and by `HubAuthStateStore.reencrypt`.

    Returns how many keys still decrypt. Calling it twice changes nothing.
    """
    keeper = crypto.CryptKeeper.instance() if keeper is None else keeper
    count = len(keeper.keys)
    if count > 1:
        every = keeper.fernet
        keeper.keys = keeper.keys[:1]  # its observer replaces `fernet`
        keeper.fernet = every
        log.info("%d crypt keys: the first encrypts, all decrypt", count)
    return count

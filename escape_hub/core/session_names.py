"""Names for the directory of one session, from user and server names that may hold anything."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Mapping

from escape_hub.errors import SettingsError

_PLAIN = frozenset(string.ascii_letters + string.digits + "-")
_LONGEST = 80
FIELDS = ("username", "servername", "session")


def slug(name: str) -> str:
    """A file name's part for ``name``: different names give different slugs.

    Letters, digits and ``-`` stay, every other byte becomes ``_`` and two hex
    digits. Never a dot or a slash, so slugs can be joined with a dot and no path
    can be left. Long names keep their beginning, with a hash in place of the rest.
    """
    text = "".join(
        chr(b) if chr(b) in _PLAIN else f"_{b:02x}" for b in name.encode("utf-8", "surrogatepass")
    )
    if len(text) <= _LONGEST:
        return text
    return f"{text[: _LONGEST - 18]}__{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def session_directory(template: str, username: str, servername: str) -> str:
    """The token directory of one session.

    ``template`` is an absolute path that may hold ``{session}`` (user and server,
    different for every session), ``{username}`` and ``{servername}``, all slugs.
    Raises `SettingsError` for anything else.
    """
    user, server = slug(username), slug(servername)
    fields: Mapping[str, str] = {
        "username": user,
        "servername": server,
        "session": f"{user}.{server}" if server else user,
    }
    try:
        path = template.format_map(fields)
    except (KeyError, ValueError, IndexError, AttributeError):
        known = ", ".join(f"{{{f}}}" for f in FIELDS)
        raise SettingsError(
            f"EscapeSpawnerMixin.token_dir: {template!r} cannot be filled in; known are {known}"
        ) from None
    if not path.startswith("/") or "/../" in f"{path}/":
        raise SettingsError(
            f"EscapeSpawnerMixin.token_dir must be an absolute path without '..', not {template!r}"
        )
    if "{session}" not in template and "{username}" not in template:
        raise SettingsError(
            f"EscapeSpawnerMixin.token_dir: {template!r} is the same for all users; "
            "add {session} or {username}"
        )
    return path.rstrip("/")


def rucio_account(template: str, claims: Mapping[str, object]) -> str:
    """The Rucio account: ``template`` with ``{claim}`` filled in from the user's claims.

    Raises `SettingsError` when a claim is missing or is no plain text.
    """
    plain = {k: v for k, v in claims.items() if isinstance(v, str) and v.isprintable()}
    try:
        account = template.format_map(plain)
    except KeyError as error:
        raise SettingsError(
            f"EscapeSpawnerMixin.rucio_account: {template!r} needs the claim {error.args[0]!r}, "
            "which the issuer did not send as a text; add its scope, or use another claim"
        ) from None
    except (ValueError, IndexError, AttributeError):
        raise SettingsError(
            f"EscapeSpawnerMixin.rucio_account: {template!r} cannot be filled in; "
            "write claims as in '{preferred_username}'"
        ) from None
    if not account.strip():
        raise SettingsError(f"EscapeSpawnerMixin.rucio_account: {template!r} gives an empty name")
    return account

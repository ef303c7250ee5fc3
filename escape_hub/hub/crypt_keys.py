"""Rotating ``JUPYTERHUB_CRYPT_KEY``: who knows which key, and all rows under the first one.

JupyterHub's own way, to rewrite a person's state whenever it reads it, loses updates
and never reaches whoever does not come back; `protect_from_rewrites` switches it off.
Here each row is compared and replaced in one statement of the database: beside a
running hub, which may store a renewal between our read and our write.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from jupyterhub import orm

from escape_hub.errors import SettingsError
from escape_hub.hub.identities import METADATA

#: The keys with which the hub was started last. A key is 32 random bytes, so its hash tells
#: nothing of it.
KNOWN_KEYS = sa.Table(
    "escape_hub_crypt_key", METADATA, sa.Column("fingerprint", sa.Unicode(64), primary_key=True)
)
#: How often a row is tried that the hub keeps changing under us.
_TRIES = 20


def fingerprint(key: bytes) -> str:
    """A key's name in the database."""
    return hashlib.sha256(b"escape-hub crypt key " + key).hexdigest()


def remember_keys(db: Any, keys: Sequence[bytes]) -> None:
    """At the start of the hub: these ``keys`` it can decrypt with. ``db`` is its session."""
    METADATA.create_all(db.get_bind(), tables=[KNOWN_KEYS])
    db.execute(sa.delete(KNOWN_KEYS))
    names = {fingerprint(key) for key in keys}
    db.execute(sa.insert(KNOWN_KEYS), [{"fingerprint": name} for name in sorted(names)])
    db.commit()


@dataclass(slots=True)
class Outcome:
    """Numbers of stored sign-ins; ``unreadable`` are names of hub users."""

    rewritten: int = 0
    already: int = 0
    unreadable: list[str] = field(default_factory=list)


def rekey(engine: sa.Engine, keys: Sequence[bytes], *, dry_run: bool = False) -> Outcome:
    """Write every stored sign-in under the first of ``keys``; any of them decrypts.

    ``dry_run`` only counts. `SettingsError` when this is no hub's database, or the hub
    was started without the first key and so could not read what is written.
    """
    if not keys:
        raise SettingsError("JUPYTERHUB_CRYPT_KEY is not set: it holds the new key, then the old")
    _hub_must_know(engine, keys[0])
    first, *_ = fernets = [Fernet(base64.urlsafe_b64encode(key)) for key in keys]
    every, found = MultiFernet(fernets), Outcome()
    column = orm.User.encrypted_auth_state
    with engine.connect() as reader:
        query = sa.select(orm.User.id, orm.User.name).where(column.is_not(None))
        people = reader.execute(query.order_by(orm.User.id)).all()
    for number, name in people:
        _rekey_one(engine, number, name, first, every, found, dry_run)
    return found


def _rekey_one(
    engine: sa.Engine,
    number: int,
    name: str,
    first: Fernet,
    every: MultiFernet,
    found: Outcome,
    dry_run: bool,
) -> None:
    users = orm.User.__table__
    mine = users.c.id == number
    for _ in range(_TRIES):
        # A transaction of its own for each: the hub waits for none of them.
        with engine.begin() as db:
            seen = db.execute(sa.select(users.c.encrypted_auth_state).where(mine)).scalar()
            if seen is None:
                return  # deleted, or signed out, meanwhile
            if _decrypts(first, seen):
                found.already += 1
                return
            try:
                anew = every.rotate(seen)
            except (InvalidToken, ValueError):
                found.unreadable.append(name)
                return
            if dry_run:
                found.rewritten += 1
                return
            same = users.c.encrypted_auth_state == seen
            changed = db.execute(
                sa.update(users).where(mine, same).values(encrypted_auth_state=anew)
            )
            if changed.rowcount:
                found.rewritten += 1
                return
    raise SettingsError(f"the sign-in of {name!r} changes all the time: run this once more")


def _decrypts(key: Fernet, encrypted: bytes) -> bool:
    try:
        key.decrypt(encrypted)
    except (InvalidToken, ValueError):
        return False
    return True


def _hub_must_know(engine: sa.Engine, key: bytes) -> None:
    tables = set(sa.inspect(engine).get_table_names())
    if not {orm.User.__tablename__, KNOWN_KEYS.name} <= tables:
        raise SettingsError(
            "this is not the database of a hub that ran with EscapeAuthenticator: check "
            "JupyterHub.db_url, and the directory for a relative one"
        )
    with engine.connect() as db:
        known = set(db.execute(sa.select(KNOWN_KEYS.c.fingerprint)).scalars())
    if fingerprint(key) not in known:
        raise SettingsError(
            "the hub was last started without the first key of JUPYTERHUB_CRYPT_KEY and could not "
            "read what is written with it: restart the hub with the new key and the old one, "
            "then run this"
        )

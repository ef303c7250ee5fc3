"""Which API token of the hub is a server's own.

The scope alone does not tell: a user may make an API token with any scope of
theirs, and give it the note of a server's token. JupyterHub keeps no mark either,
and forgets the value at a restart. So the hash of each server's token is kept
here from `record` (at spawn, before the server starts) to `forget` (after it
stopped). The id would not do: SQLite gives the ids of deleted rows out again.
"""

from __future__ import annotations

import time
from typing import Any

import sqlalchemy as sa
from jupyterhub import orm

from escape_hub.hub.identities import METADATA

SERVER_TOKENS = sa.Table(
    "escape_hub_server_token",
    METADATA,
    sa.Column("hashed", sa.Unicode(255), primary_key=True),
    sa.Column("username", sa.Unicode(255), nullable=False, index=True),
    sa.Column("server_name", sa.Unicode(255), nullable=False),
    sa.Column("created", sa.Float, nullable=False),
)


class ServerTokens:
    """Tells a server's own token from every other one. ``db`` is the hub's session."""

    def __init__(self, db: Any) -> None:
        self._db = db

    def create_table(self) -> None:
        """Make the table if it is not there yet, and drop what has no token any more."""
        METADATA.create_all(self._db.get_bind(), tables=[SERVER_TOKENS])
        living = sa.select(orm.APIToken.hashed)
        self._db.execute(sa.delete(SERVER_TOKENS).where(SERVER_TOKENS.c.hashed.not_in(living)))
        self._db.commit()

    def record(self, token: str, username: str, server_name: str) -> Any:
        """Remember ``token`` as the server's own; returns the hub's row of it, or None."""
        row = orm.APIToken.find(self._db, token)
        if row is not None:
            values = {"hashed": row.hashed, "username": username, "server_name": server_name}
            self._delete(SERVER_TOKENS.c.hashed == row.hashed)
            # Wall clock: for a person who reads the table, no rule depends on it.
            self._db.execute(sa.insert(SERVER_TOKENS).values(created=time.time(), **values))
            self._db.commit()
        return row

    def server_of(self, api_token: Any, username: str) -> str | None:
        """Name of the user's server that owns the token (``""`` is the default one), or None."""
        found: str | None = self._db.execute(
            sa.select(SERVER_TOKENS.c.server_name).where(
                SERVER_TOKENS.c.hashed == api_token.hashed, SERVER_TOKENS.c.username == username
            )
        ).scalar()
        return found

    def forget(self, username: str, server_name: str | None = None) -> None:
        """The server stopped, or (no ``server_name``) the user is deleted: its tokens end.

        After a restart of the hub upstream no longer knows the token's value and
        cannot delete it when the server stops; here its hash is known.
        """
        mine = SERVER_TOKENS.c.username == username
        if server_name is not None:
            mine = sa.and_(mine, SERVER_TOKENS.c.server_name == server_name)
        hashes = list(self._db.execute(sa.select(SERVER_TOKENS.c.hashed).where(mine)).scalars())
        for row in self._db.query(orm.APIToken).filter(orm.APIToken.hashed.in_(hashes)):
            self._db.delete(row)
        self._delete(mine)
        self._db.commit()

    def _delete(self, condition: Any) -> None:
        self._db.execute(sa.delete(SERVER_TOKENS).where(condition))

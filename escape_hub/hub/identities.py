"""Which (issuer, subject) owns a hub user name: bound at the first login, kept from then on.

A user name is only a claim, and the issuer may give it to somebody else one day:
that person must not find the homes and servers of the first. The rules:

* A name belongs to the (issuer, subject) that first signed in with it. Another
  subject with that name is refused; the administrator's remedy is to delete the
  hub user, which deletes the binding too.
* A subject that comes with a new name is refused as long as the hub user of its
  old name exists, for it would find an empty home, or an administrator's name.
  The remedy is to rename the hub user (``PATCH /hub/api/users/NAME``) or to
  delete it; then the binding follows.
* A hub user made by an administrator, or left by another authenticator, belongs
  to whoever first signs in with its name.
"""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from jupyterhub import orm
from sqlalchemy.exc import IntegrityError

from escape_hub.errors import IdentityConflictError

METADATA = sa.MetaData()

IDENTITIES = sa.Table(
    "escape_hub_identity",
    METADATA,
    sa.Column("username", sa.Unicode(255), primary_key=True),
    sa.Column("issuer", sa.Unicode(500), nullable=False),
    sa.Column("subject", sa.Unicode(255), nullable=False),
    sa.Column("first_seen", sa.Float, nullable=False),
    # One row per person. MySQL indexes 3072 bytes at most, so 500 characters for the issuer.
    sa.UniqueConstraint("subject", "issuer", name="escape_hub_identity_person"),
)


class Identities:
    """The bindings, in the hub's own database. ``db`` is the hub's SQLAlchemy session.

    No method awaits anything, so within the hub process nothing comes between the
    look and the write; the constraints of the table cover what is outside of it.
    """

    def __init__(self, db: Any) -> None:
        self._db = db

    def create_table(self) -> None:
        """Make the table if it is not there yet."""
        METADATA.create_all(self._db.get_bind(), tables=[IDENTITIES])

    def check(self, username: str, issuer: str, subject: str) -> None:
        """Raise `IdentityConflictError` if ``username`` may not be used by this person."""
        self._owner_must_be(username, issuer, subject)
        self._old_name_must_be_gone(username, issuer, subject)

    def bind(self, username: str, issuer: str, subject: str, now: float) -> None:
        """Check, and remember the person as the owner of ``username``."""
        if self._owner_must_be(username, issuer, subject):
            return
        old = self._old_name_must_be_gone(username, issuer, subject)
        if old is not None:
            self._db.execute(sa.delete(IDENTITIES).where(IDENTITIES.c.username == old))
        row = {"username": username, "issuer": issuer, "subject": subject, "first_seen": now}
        try:
            self._db.execute(sa.insert(IDENTITIES).values(**row))
            self._db.commit()
        except IntegrityError:
            # Somebody else was faster. If that was this person in another tab, all is well.
            self._db.rollback()
            self.check(username, issuer, subject)

    def name_of(self, issuer: str, subject: str) -> str | None:
        """The hub user name that the person is bound to."""
        found: str | None = self._db.execute(
            sa.select(IDENTITIES.c.username).where(
                IDENTITIES.c.issuer == issuer, IDENTITIES.c.subject == subject
            )
        ).scalar()
        return found

    def forget(self, username: str) -> None:
        """Forget the owner of ``username``; the hub user is being deleted."""
        self._db.execute(sa.delete(IDENTITIES).where(IDENTITIES.c.username == username))
        self._db.commit()

    def _owner_must_be(self, username: str, issuer: str, subject: str) -> bool:
        """Whether the name is bound to this person; False when it is bound to nobody."""
        row = self._db.execute(
            sa.select(IDENTITIES.c.issuer, IDENTITIES.c.subject).where(
                IDENTITIES.c.username == username
            )
        ).first()
        if row is None:
            return False
        if (row.issuer, row.subject) != (issuer, subject):
            raise IdentityConflictError(
                f"The user name {username!r} of this service belongs to another account of the "
                "identity service. An administrator can delete the hub user "
                f"{username!r} if that account is gone; its next owner then starts afresh."
            )
        return True

    def _old_name_must_be_gone(self, username: str, issuer: str, subject: str) -> str | None:
        """The other name this person was bound to, if no hub user has it any more."""
        old: str | None = self._db.execute(
            sa.select(IDENTITIES.c.username).where(
                IDENTITIES.c.issuer == issuer,
                IDENTITIES.c.subject == subject,
                IDENTITIES.c.username != username,
            )
        ).scalar()
        if old is not None and orm.User.find(self._db, old) is not None:
            raise IdentityConflictError(
                f"Your account is known here as {old!r}, and now comes with the name "
                f"{username!r}. An administrator can rename the hub user {old!r} to "
                f"{username!r}, or delete it.",
                code="identity-renamed",
            )
        return old

"""A hub user name belongs to one person, and a server's token to one server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from jupyterhub import orm, roles
from sqlalchemy.exc import IntegrityError

from escape_hub.errors import IdentityConflictError
from escape_hub.hub.identities import IDENTITIES, Identities
from escape_hub.hub.server_tokens import ServerTokens

ISSUER = "https://iam.example.org/"


@pytest.fixture
def db() -> Iterator[Any]:
    session = orm.new_session_factory("sqlite:///:memory:")()
    session.add(orm.OAuthClient(identifier="jupyterhub", allowed_scopes=[]))
    for role in roles.get_default_roles():
        roles.create_role(session, role)
    session.commit()
    yield session
    engine = session.get_bind()
    session.close()
    engine.dispose()


@pytest.fixture
def identities(db: Any) -> Identities:
    found = Identities(db)
    found.create_table()
    return found


def hub_user(db: Any, name: str) -> orm.User:
    user = orm.User(name=name)
    db.add(user)
    db.commit()
    return user


def test_the_first_to_sign_in_owns_the_name(identities: Identities) -> None:
    identities.check("alice", ISSUER, "1")
    identities.bind("alice", ISSUER, "1", 100.0)
    identities.check("alice", ISSUER, "1")
    identities.bind("alice", ISSUER, "1", 200.0)


@pytest.mark.parametrize(
    ("issuer", "subject"),
    [(ISSUER, "2"), ("https://iam.example.org", "1"), ("", "1"), (ISSUER, "")],
)
def test_anybody_else_with_the_name_is_refused_with_the_remedy(
    identities: Identities, issuer: str, subject: str
) -> None:
    identities.bind("alice", ISSUER, "1", 100.0)
    for step in (
        lambda: identities.check("alice", issuer, subject),
        lambda: identities.bind("alice", issuer, subject, 200.0),
    ):
        with pytest.raises(IdentityConflictError, match="delete the hub user 'alice'") as caught:
            step()
        assert caught.value.code == "identity-conflict"
    identities.check("alice", ISSUER, "1")


def test_a_deleted_user_frees_the_name(identities: Identities) -> None:
    identities.bind("alice", ISSUER, "1", 100.0)
    identities.forget("alice")
    identities.bind("alice", ISSUER, "2", 200.0)
    with pytest.raises(IdentityConflictError):
        identities.check("alice", ISSUER, "1")


def test_a_person_with_a_new_name_is_refused_while_the_old_user_is_there(
    identities: Identities, db: Any
) -> None:
    hub_user(db, "alice")
    identities.bind("alice", ISSUER, "1", 100.0)
    with pytest.raises(IdentityConflictError, match="rename the hub user 'alice'") as caught:
        identities.bind("alicia", ISSUER, "1", 200.0)
    assert caught.value.code == "identity-renamed"
    identities.check("alice", ISSUER, "1")


def test_the_binding_follows_an_administrators_rename(identities: Identities, db: Any) -> None:
    user = hub_user(db, "alice")
    identities.bind("alice", ISSUER, "1", 100.0)
    user.name = "alicia"
    db.commit()
    identities.bind("alicia", ISSUER, "1", 200.0)
    identities.check("alicia", ISSUER, "1")
    with pytest.raises(IdentityConflictError):
        identities.check("alicia", ISSUER, "2")
    identities.bind("alice", ISSUER, "2", 300.0)  # the old name is free again


def test_a_new_name_that_belongs_to_somebody_else_is_refused(
    identities: Identities, db: Any
) -> None:
    identities.bind("alice", ISSUER, "1", 100.0)  # no hub user of that name any more
    identities.bind("bob", ISSUER, "2", 100.0)
    with pytest.raises(IdentityConflictError, match="'bob'"):
        identities.bind("bob", ISSUER, "1", 200.0)


def test_a_user_from_before_belongs_to_the_first_who_signs_in(
    identities: Identities, db: Any
) -> None:
    hub_user(db, "alice")
    identities.bind("alice", ISSUER, "1", 100.0)
    with pytest.raises(IdentityConflictError):
        identities.bind("alice", ISSUER, "2", 200.0)


class OneStepBehind(Identities):
    """Looks before another process writes."""

    def _owner_must_be(self, username: str, issuer: str, subject: str) -> bool:
        found = super()._owner_must_be(username, issuer, subject)
        if not found and not getattr(self, "written", False):
            self.written = True
            self._db.execute(
                IDENTITIES.insert().values(
                    username=username, issuer=ISSUER, subject="1", first_seen=1.0
                )
            )
            self._db.commit()
        return found


def test_of_two_at_the_same_time_only_one_gets_the_name(identities: Identities, db: Any) -> None:
    OneStepBehind(db).bind("alice", ISSUER, "1", 100.0)  # the same person in two tabs
    identities.forget("alice")
    with pytest.raises(IdentityConflictError):
        OneStepBehind(db).bind("alice", ISSUER, "2", 100.0)
    identities.check("alice", ISSUER, "1")


def test_the_table_itself_holds_one_name_a_person(identities: Identities, db: Any) -> None:
    identities.bind("alice", ISSUER, "1", 100.0)
    with pytest.raises(IntegrityError):
        db.execute(
            IDENTITIES.insert().values(username="b", issuer=ISSUER, subject="1", first_seen=1.0)
        )
    db.rollback()


def test_creating_the_tables_twice_keeps_what_is_there(identities: Identities, db: Any) -> None:
    identities.bind("alice", ISSUER, "1", 100.0)
    identities.create_table()
    with pytest.raises(IdentityConflictError):
        identities.check("alice", ISSUER, "2")


@pytest.fixture
def tokens(db: Any) -> ServerTokens:
    found = ServerTokens(db)
    found.create_table()
    return found


def test_a_servers_token_is_known_by_its_hash_and_its_owner(tokens: ServerTokens, db: Any) -> None:
    alice, bob = hub_user(db, "alice"), hub_user(db, "bob")
    value = alice.new_api_token(note="Server at /user/alice/")
    forged = alice.new_api_token(note="Server at /user/alice/")
    row = tokens.record(value, "alice", "")
    assert row is orm.APIToken.find(db, value)
    assert tokens.server_of(row, "alice") == ""
    assert tokens.server_of(row, bob.name) is None
    assert tokens.server_of(orm.APIToken.find(db, forged), "alice") is None
    assert tokens.record("never-issued", "alice", "") is None


def test_a_token_that_gets_a_deleted_ones_id_is_not_a_servers(
    tokens: ServerTokens, db: Any
) -> None:
    alice = hub_user(db, "alice")
    row = tokens.record(alice.new_api_token(), "alice", "")
    number = row.id
    db.delete(row)
    db.commit()
    new = orm.APIToken.find(db, alice.new_api_token())
    assert new is not None
    assert new.id == number, "the database no longer gives ids out again: drop this test"
    assert tokens.server_of(new, "alice") is None


def test_a_stopped_servers_token_is_deleted_even_if_upstream_forgot_its_value(
    tokens: ServerTokens, db: Any
) -> None:
    alice = hub_user(db, "alice")
    one, two = alice.new_api_token(), alice.new_api_token()
    tokens.record(one, "alice", "")
    tokens.record(two, "alice", "second")
    tokens.forget("alice", "")
    assert orm.APIToken.find(db, one) is None
    assert tokens.server_of(orm.APIToken.find(db, two), "alice") == "second"
    tokens.forget("alice")
    assert orm.APIToken.find(db, two) is None


def test_rows_without_a_token_go_at_the_next_start(tokens: ServerTokens, db: Any) -> None:
    alice = hub_user(db, "alice")
    kept, gone = alice.new_api_token(), alice.new_api_token()
    tokens.record(kept, "alice", "")
    row = tokens.record(gone, "alice", "second")
    hashed = row.hashed
    db.delete(row)
    db.commit()
    tokens.create_table()
    assert tokens.server_of(orm.APIToken.find(db, kept), "alice") == ""
    assert tokens.server_of(type("Row", (), {"hashed": hashed}), "alice") is None

"""The store over JupyterHub's own database, encryption and `User`: nothing is patched in."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import sqlalchemy as sa
from jupyterhub import crypto, orm
from jupyterhub.user import UserDict

from escape_hub.core.auth_state import AuthState, ForeignAuthStateError, NeedsLogin
from escape_hub.core.tokens import AccessToken
from escape_hub.hub.store import HubAuthStateStore, StateMovedError, protect_from_rewrites

OLD, NEW = b"o" * 32, b"n" * 32


@pytest.fixture
def keeper() -> Iterator[crypto.CryptKeeper]:
    crypto.CryptKeeper.clear_instance()
    keeper = crypto.CryptKeeper.instance(keys=[NEW], n_threads=1)
    yield keeper
    keeper.executor.shutdown()
    crypto.CryptKeeper.clear_instance()


@pytest.fixture
def app(keeper, tmp_path) -> Iterator[SimpleNamespace]:
    """As much of a hub as the store sees: users over a real database."""
    factory = orm.new_session_factory(f"sqlite:///{tmp_path}/hub.sqlite")
    db = factory()
    db.add_all([orm.User(name="alice"), orm.User(name="bob")])
    db.commit()
    yield SimpleNamespace(db=db, users=UserDict(lambda: db, {}))
    db.close()
    db.get_bind().dispose()


@pytest.fixture
def store(app) -> HubAuthStateStore:
    return HubAuthStateStore(app)


def state(generation: int = 1, refresh_token: str = "refresh-1") -> AuthState:  # noqa: S107
    return AuthState(
        issuer="https://iam.example.org/",
        subject="a-subject",
        generation=generation,
        refresh_token=refresh_token,
        login_token=AccessToken("login-1", 3600.0, 0.0),
        exchanged={"rucio": AccessToken("rucio-1", 3600.0, 0.0)},
        login_at=5.0,
    )


async def test_what_was_saved_is_loaded(store):
    await store.save("alice", state())
    assert await store.load("alice") == state()
    assert await store.load("bob") is None


async def test_nothing_is_stored_in_the_clear(store, tmp_path):
    await store.save("alice", state())
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"alice" in stored
    for secret in (b"refresh-1", b"login-1", b"rucio-1"):
        assert secret not in stored


async def test_jupyterhub_reads_what_the_store_wrote_and_the_other_way_round(store, app):
    await store.save("alice", state())
    user = app.users["alice"]
    assert AuthState.from_dict(await user.get_auth_state()) == state()
    await user.save_auth_state(state(2).to_dict())
    assert await store.load("alice") == state(2)


async def test_a_user_whom_nobody_knows_has_no_state_and_cannot_be_given_one(store):
    assert await store.load("nobody") is None
    with pytest.raises(LookupError):
        await store.save("nobody", state())


async def test_a_renamed_user_keeps_the_state_and_a_new_one_of_the_old_name_gets_none(store, app):
    await store.save("alice", state())
    app.users["alice"].orm_user.name = "nobody"
    app.db.add(orm.User(name="alice"))
    app.db.commit()
    assert await store.load("nobody") == state()
    assert await store.load("alice") is None


async def test_a_deleted_user_has_no_state_nor_has_the_next_one_of_that_name(store, app):
    await store.save("bob", state())
    app.users.delete("bob")
    assert await store.load("bob") is None
    app.db.add(orm.User(name="bob"))
    app.db.commit()
    assert await store.load("bob") is None


async def test_a_user_deleted_past_the_hub_has_no_state(store, app):
    await store.save("bob", state())
    app.db.delete(app.users["bob"].orm_user)
    app.db.commit()
    assert await store.load("bob") is None


async def test_a_known_user_is_found_without_asking_the_database(store, app):
    await store.save("alice", state())
    asked = []
    sa.event.listen(app.db, "do_orm_execute", asked.append)
    assert await store.load("alice") == state()
    await store.save("alice", state(2), expected=1)
    assert not asked


async def test_the_state_of_another_authenticator_is_said_to_be_foreign(store, app):
    await app.users["alice"].save_auth_state({"access_token": "x", "refresh_token": "y"})
    with pytest.raises(ForeignAuthStateError):
        await store.load("alice")


async def test_a_lost_key_is_said_to_be_one(store, keeper):
    await store.save("alice", state())
    keeper.keys = [OLD]
    with pytest.raises(ForeignAuthStateError, match="JUPYTERHUB_CRYPT_KEY"):
        await store.load("alice")


async def test_a_state_that_nobody_can_read_is_replaced_by_the_next_login(store, keeper):
    await store.save("alice", state())
    keeper.keys = [OLD]
    await store.save("alice", state(7))
    assert (await store.load("alice")).generation == 7


async def test_a_save_that_expects_another_generation_is_refused(store):
    await store.save("alice", state(3))
    with pytest.raises(StateMovedError) as moved:
        await store.save("alice", state(3, "mine"), expected=2)
    assert moved.value.stored == state(3)
    assert await store.load("alice") == state(3)


async def test_a_save_that_expects_something_finds_nothing_readable(store, app):
    with pytest.raises(StateMovedError) as moved:
        await store.save("alice", state(), expected=0)
    assert moved.value.stored is None
    await app.users["alice"].save_auth_state({"of": "another"})
    with pytest.raises(StateMovedError):
        await store.save("alice", state(), expected=0)


async def test_a_login_that_jupyterhub_saves_during_a_save_wins(store, app):
    """The login's write falls between the store's comparison and its write."""
    await store.save("alice", state(1))
    user = app.users["alice"]
    encrypt = crypto.encrypt

    def slow(data):
        async def work():
            encrypted = await encrypt(data)
            await user.save_auth_state(state(1000, "of-the-login").to_dict())
            return encrypted

        return work()

    crypto.encrypt = slow
    try:
        with pytest.raises(StateMovedError):
            await store.save("alice", state(2, "of-the-renewal"), expected=1)
    finally:
        crypto.encrypt = encrypt
    assert (await store.load("alice")).refresh_token == "of-the-login"


async def test_what_an_operators_hook_added_survives_renewals_and_not_a_logout(store, app):
    await app.users["alice"].save_auth_state({**state(1).to_dict(), "my_hook": {"a": 1}})
    await store.save("alice", state(2), expected=1)
    assert (await app.users["alice"].get_auth_state())["my_hook"] == {"a": 1}
    gone = state(3).next(needs_login=NeedsLogin("x", "y", 0.0, wipe=True))
    await store.save("alice", gone, expected=2, wipe=True)
    assert "my_hook" not in await app.users["alice"].get_auth_state()


async def test_a_commit_that_fails_leaves_the_old_state_and_a_usable_session(store, app):
    await store.save("alice", state(1))
    user = app.users["alice"]

    class Failing:
        def __init__(self, db):
            self.db = db

        def commit(self):
            self.db.flush()
            raise OSError("the disk is full")

        def rollback(self):
            self.db.rollback()

    real, user.db = user.db, Failing(user.db)
    with pytest.raises(OSError, match="full"):
        await store.save("alice", state(2), expected=1)
    user.db = real
    assert await store.load("alice") == state(1)
    await store.save("alice", state(2), expected=1)
    assert await store.load("alice") == state(2)


# -- two crypt keys --------------------------------------------------------------------------


async def updates_kept(store, app, rounds: int = 60) -> int:
    """Renewals by the store while JupyterHub itself reads; how many are there afterwards."""
    user = app.users["alice"]
    await store.save("alice", state(0))
    kept = 0
    for number in range(1, rounds + 1):
        write = asyncio.ensure_future(store.save("alice", state(number, f"refresh-{number}")))
        await asyncio.sleep(0)  # the write has begun, and the reads fall into it
        reads = [asyncio.ensure_future(user.get_auth_state()) for _ in range(3)]
        await asyncio.gather(write, *reads)
        kept += (await store.load("alice")).refresh_token == f"refresh-{number}"
    return kept


async def test_with_two_keys_jupyterhubs_reads_undo_updates_and_not_once_it_is_protected(
    keeper, store, app
):
    keeper.keys = [NEW, OLD]
    assert await updates_kept(store, app) < 60  # unprotected: this is what upstream does
    assert protect_from_rewrites(keeper) == 2
    assert await updates_kept(store, app) == 60


async def test_protected_from_rewrites_all_keys_still_decrypt_and_the_first_encrypts(
    keeper, store, app
):
    keeper.keys = [OLD]
    await store.save("alice", state())
    keeper.keys = [NEW, OLD]
    protect_from_rewrites(keeper)
    assert await store.load("alice") == state()
    assert await app.users["alice"].get_auth_state() is not None
    await store.save("alice", state(2))
    keeper.keys = [NEW]
    assert await store.load("alice") == state(2)


async def test_protecting_twice_or_with_one_key_changes_nothing(keeper, store):
    assert protect_from_rewrites(keeper) == 1
    keeper.keys = [NEW, OLD]
    protect_from_rewrites(keeper)
    fernet = keeper.fernet
    protect_from_rewrites()
    assert keeper.fernet is fernet
    await store.save("alice", state())
    assert await store.load("alice") == state()


async def test_a_stored_state_can_be_written_anew_under_the_first_key(keeper, store, app):
    keeper.keys = [OLD]
    await store.save("alice", state())
    keeper.keys = [NEW, OLD]
    protect_from_rewrites(keeper)
    assert await store.reencrypt("alice")
    assert not await store.reencrypt("bob")
    assert not await store.reencrypt("nobody")
    keeper.keys = [NEW]
    assert await store.load("alice") == state()

"""Rotating ``JUPYTERHUB_CRYPT_KEY`` and the client's secret: no update is lost, nobody notices."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from cryptography.fernet import Fernet, MultiFernet
from jupyterhub import crypto

from escape_hub.demo.iam.config import CLIENT_ID
from escape_hub.errors import SettingsError
from escape_hub.hub.crypt_keys import Outcome, fingerprint, rekey
from tests.fakes.iam_peer import Peer
from tests.harness.processes import free_port
from tests.unit.hub.browser import Browser
from tests.unit.hub.in_process import HubInTest, hub_config, iam_client, running

OLD, NEW = "11" * 32, "22" * 32
BOTH = f"{NEW};{OLD}"
READER = "0123456789abcdef" * 2
CHECKOUT = Path(__file__).parents[3]


def raw(keys: str) -> list[bytes]:
    return [bytes.fromhex(key) for key in keys.split(";")]


class Place:
    """One database and one IAM with rotating refresh tokens, for hubs with one key after another.

    A service may read everybody's auth_state, as an operator's own may.
    """

    def __init__(self, directory: Path, iam: Peer, port: int) -> None:
        self.directory, self.iam, self.port = directory, iam, port
        self.config = hub_config(iam, port, directory)
        self.config.JupyterHub.services = [{"name": "reader", "api_token": READER}]
        self.config.JupyterHub.load_roles += [
            {
                "name": "reader",
                "scopes": ["admin:auth_state", "read:users"],
                "services": ["reader"],
            }
        ]

    @asynccontextmanager
    async def hub(self, keys: str) -> AsyncIterator[HubInTest]:
        async with running(self.config, self.iam, self.port, crypt_key=keys) as hub:
            hub.clock.shift = self.iam.shift
            yield hub

    async def sign_in(self, keys: str, *people: str) -> None:
        """Everybody's state is stored under the first of ``keys``."""
        async with self.hub(keys) as hub:
            for name in people:
                browser = Browser(hub)
                await browser.login(name)
                await browser.client.aclose()

    @property
    def file(self) -> Path:
        return self.directory / "hub.sqlite"

    @contextlib.contextmanager
    def engine(self) -> Iterator[sa.Engine]:
        made = sa.create_engine(f"sqlite:///{self.file}")
        yield made
        made.dispose()

    def rekey(self, keys: str, **options: Any) -> Outcome:
        with self.engine() as engine:
            return rekey(engine, raw(keys), **options)

    def damage(self, name: str) -> None:
        with contextlib.closing(sqlite3.connect(self.file)) as db, db:
            db.execute("update users set encrypted_auth_state = 'x' where name = ?", (name,))

    def command(self, keys: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """The operator's command, with a configuration of its own."""
        path = self.directory / "jupyterhub_config.py"
        path.write_text(f"c = get_config()\nc.JupyterHub.db_url = 'sqlite:///{self.file}'\n")
        return subprocess.run(
            [sys.executable, "-m", "escape_hub.hub.rekey", "-f", str(path), *arguments],
            env={**os.environ, "JUPYTERHUB_CRYPT_KEY": keys, "PYTHONPATH": str(CHECKOUT)},
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=60,
        )


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    port = free_port()
    async with Peer(client=iam_client(port), refresh_rotation=True) as iam:
        yield Place(tmp_path, iam, port)


@asynccontextmanager
async def somebody_reads(hub: HubInTest) -> AsyncIterator[None]:
    """A service asks JupyterHub for alice with her auth_state, all the time."""

    async def read() -> None:
        headers = {"Authorization": f"token {READER}"}
        async with httpx.AsyncClient(headers=headers, timeout=30) as client:
            while True:
                answer = await client.get(f"{hub.url}hub/api/users/alice")
                assert "auth_state" in answer.json()

    readers = [asyncio.ensure_future(read()) for _ in range(3)]
    try:
        yield
    finally:
        for reader in readers:
            reader.cancel()
        for ended in await asyncio.gather(*readers, return_exceptions=True):
            assert isinstance(ended, asyncio.CancelledError)


async def renewals_kept(hub: HubInTest, rounds: int = 30) -> int:
    """After how many renewals, up to the first lost one, their result was still what is stored."""
    for kept in range(rounds):
        # Late in the tokens' life, so that the refresh token is spent each time.
        hub.clock.shift += 3300
        hub.iam.shift = hub.clock.shift
        before = await hub.state("alice")
        renewed = await hub.authenticator.broker.renew("alice", force=True)
        latest = (await hub.iam.control("GET", "issued")).json()["refresh_tokens"][-1]
        stored = await hub.state("alice")
        assert before.refresh_token != renewed.refresh_token
        if (stored.generation, stored.refresh_token) != (renewed.generation, latest):
            return kept
    return rounds


@pytest.mark.parametrize("protected", [True, False])
async def test_with_two_keys_no_renewal_is_lost_and_without_our_protection_some_are(
    place: Place, protected: bool
) -> None:
    await place.sign_in(OLD, "alice")
    async with place.hub(BOTH) as hub:
        if not protected:
            crypto.CryptKeeper.instance().keys = raw(BOTH)  # as JupyterHub itself would have it
        async with somebody_reads(hub):
            kept = await renewals_kept(hub)
    assert kept == 30 if protected else kept < 30


async def test_the_command_loses_no_renewal_of_a_hub_that_runs(place: Place) -> None:
    await place.sign_in(OLD, "alice", "bob")
    async with place.hub(BOTH) as hub:

        async def all_the_time() -> int:
            runs = 0
            while not renewing.done():
                await asyncio.to_thread(place.rekey, BOTH)
                runs += 1
            return runs

        renewing = asyncio.ensure_future(renewals_kept(hub))
        assert await all_the_time() > 1
        assert await renewing == 30
    async with place.hub(NEW) as hub:
        assert await renewals_kept(hub, rounds=1) == 1
        assert (await hub.state("bob")).refresh_token


async def test_what_the_hub_stores_between_look_and_write_is_what_stays(place: Place) -> None:
    await place.sign_in(OLD, "alice")
    async with place.hub(BOTH):
        pass
    renewed = MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in raw(BOTH)]).encrypt(
        b'{"of": "a renewal"}'
    )

    def store_first(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("UPDATE") and not stored:
            stored.append(statement)
            with contextlib.closing(sqlite3.connect(place.file)) as db, db:
                db.execute("update users set encrypted_auth_state = ?", (renewed,))

    stored: list[str] = []
    with place.engine() as engine:
        sa.event.listen(engine, "before_cursor_execute", store_first)
        assert rekey(engine, raw(BOTH)) == Outcome(already=1)
    with contextlib.closing(sqlite3.connect(place.file)) as db:
        assert db.execute("select encrypted_auth_state from users").fetchone() == (renewed,)


async def test_from_the_old_key_to_the_new_one_nobody_notices(place: Place) -> None:
    """docs/operations/key-rotation.md, step by step."""
    async with place.hub(OLD) as hub:
        alice = Browser(hub)
        await alice.login()
        flying = await alice.to_issuer()  # a login that is under way all the time
    async with place.hub(BOTH) as hub:
        assert (await alice.get("hub/home")).status_code == 200
        assert place.command(BOTH, "--dry-run").returncode == 1
        done = place.command(BOTH)
        assert (done.returncode, done.stderr) == (0, "")
        assert "1 stored sign-ins: 1 written under the first key, 0 were before" in done.stdout
        assert "first key alone" in done.stdout
        assert place.command(BOTH, "--dry-run").returncode == 0
        await alice.client.get(await alice.at_issuer(flying))
        assert (await alice.get("hub/home")).status_code == 200
    async with place.hub(NEW) as hub:
        assert (await alice.get("hub/home")).status_code == 200
        assert await renewals_kept(hub, rounds=2) == 2
    await alice.client.aclose()


async def test_without_the_command_who_was_not_renewed_signs_in_again_and_nothing_breaks(
    place: Place,
) -> None:
    await place.sign_in(OLD, "alice")
    async with place.hub(NEW) as hub:
        alice = Browser(hub)
        assert (await alice.login()).status_code == 303
        assert (await alice.get("hub/home")).status_code == 200
        await alice.client.aclose()


async def test_the_command_refuses_a_key_that_the_hub_does_not_know(place: Place) -> None:
    await place.sign_in(OLD, "alice")
    with pytest.raises(SettingsError, match="restart the hub with the new key and the old one"):
        place.rekey(BOTH)
    done = place.command(BOTH)
    assert done.returncode == 2
    assert "restart the hub" in done.stderr
    async with place.hub(OLD) as hub:
        assert (await hub.state("alice")).refresh_token


async def test_what_no_key_decrypts_is_named_and_left_alone(place: Place) -> None:
    await place.sign_in(OLD, "alice", "bob")
    async with place.hub(BOTH):
        pass
    place.damage("bob")
    found = place.rekey(BOTH)
    assert found == Outcome(rewritten=1, already=0, unreadable=["bob"])
    done = place.command(BOTH)
    assert done.returncode == 1
    assert "sign in again: bob" in done.stdout
    # With the old key left out everything is unreadable, and nothing is touched.
    async with place.hub(f"{'33' * 32};{BOTH}"):
        pass
    assert place.rekey("33" * 32).unreadable == ["alice", "bob"]
    assert place.rekey(BOTH).already == 1


async def test_a_dry_run_changes_nothing(place: Place) -> None:
    await place.sign_in(OLD, "alice")
    async with place.hub(BOTH):
        pass
    before = place.file.read_bytes()
    assert place.rekey(BOTH, dry_run=True) == Outcome(rewritten=1)
    assert place.file.read_bytes() == before


@pytest.mark.parametrize(
    ("keys", "arguments", "words"),
    [
        ("", [], "JUPYTERHUB_CRYPT_KEY is not set"),
        ("short", [], "JUPYTERHUB_CRYPT_KEY"),
        (NEW, ["--db", "sqlite:///nowhere.sqlite"], "there is no database"),
        (NEW, ["--db", "sqlite:///other.sqlite"], "not the database of a hub"),
    ],
)
async def test_the_command_says_what_is_wrong_in_one_line(
    place: Place, keys: str, arguments: list[str], words: str
) -> None:
    await place.sign_in(OLD)
    (place.directory / "other.sqlite").touch()
    done = place.command(keys, *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (place.directory / "nowhere.sqlite").exists()


async def test_the_database_holds_names_of_keys_and_no_key(place: Place) -> None:
    await place.sign_in(BOTH, "alice")
    stored = place.file.read_bytes()
    for key in raw(BOTH):
        assert fingerprint(key).encode() in stored
        assert key not in stored
        assert key.hex().encode() not in stored


async def test_a_new_client_secret_logs_nobody_out_before_and_after_the_hub_knows_it(
    place: Place,
) -> None:
    async with place.hub(OLD) as hub:
        alice = Browser(hub)
        await alice.login()
        iam = place.iam.server.request_callback.iam  # type: ignore[attr-defined]
        client = dataclasses.replace(iam.config.clients[CLIENT_ID], secret="the-next-secret")
        iam.config = dataclasses.replace(iam.config, clients={CLIENT_ID: client})
        hub.clock.shift = hub.iam.shift = 3300
        refused = await hub.authenticator.broker.renew("alice", force=True)
        assert refused.needs_login is None
        assert refused.failures[""].code == "client-refused"
        assert refused.exchanged["rucio"].is_valid(hub.clock.now(), 200)
        hub.user("alice")._auth_refreshed = None
        assert (await alice.get("hub/home")).status_code == 200
    place.config.EscapeAuthenticator.client_secret = "the-next-secret"
    async with place.hub(OLD) as hub:
        assert (await alice.get("hub/home")).status_code == 200
        assert await renewals_kept(hub, rounds=1) == 1
        assert not (await hub.state("alice")).failures
    await alice.client.aclose()

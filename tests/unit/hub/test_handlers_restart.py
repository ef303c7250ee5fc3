"""A hub that was restarted still knows its sessions, their tokens and who signed in."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from tests.fakes.iam_peer import Peer
from tests.harness.processes import free_port
from tests.unit.hub.browser import Browser
from tests.unit.hub.in_process import HubInTest, hub_config, iam_client, running


async def until(true: Callable[[], bool]) -> None:
    """The service reads its sessions in the background, and tells nobody when it has."""
    async with asyncio.timeout(5):
        while not true():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


async def ask(hub: HubInTest, token: str) -> httpx.Response:
    async with httpx.AsyncClient(headers={"Authorization": f"token {token}"}) as client:
        return await client.get(f"{hub.url}hub/api/escape/tokens")


async def test_a_session_outlives_its_hub_and_no_token_outlives_its_session(
    tmp_path: Path,
) -> None:
    port = free_port()
    async with Peer(client=iam_client(port)) as iam:
        config = hub_config(iam, port, tmp_path)
        config.JupyterHub.cleanup_servers = False
        async with running(config, iam, port) as hub:
            alice = Browser(hub)
            token = await sign_in_and_spawn(hub, alice)
            before = (await ask(hub, token)).json()
        async with running(config, iam, port) as hub:
            await until(lambda: hub.authenticator.renewal.scheduled == {"alice"})
            assert hub.user("alice").spawners[""].api_token == ""  # upstream forgot it
            after = (await ask(hub, token)).json()
            assert after["audiences"] == {
                name: {**row, "expires_in": after["audiences"][name]["expires_in"]}
                for name, row in before["audiences"].items()
            }
            # The cookie is still good, and so is a login that was under way.
            assert (await alice.get("hub/home")).status_code == 200
            stopped = await alice.api("DELETE", "users/alice/server")
            assert stopped.status_code in {202, 204}, stopped.text
            assert (await ask(hub, token)).status_code == 401
        await alice.client.aclose()


async def sign_in_and_spawn(hub: HubInTest, alice: Browser) -> Any:
    await alice.login()
    await alice.get("hub/home")
    answer = await alice.api("POST", "users/alice/server", json={})
    assert answer.status_code in {201, 202}, answer.text
    spawner = hub.user("alice").spawners[""]
    if spawner._spawn_future:
        await spawner._spawn_future
    return spawner.api_token


async def test_a_login_under_way_survives_a_restart_of_the_hub(tmp_path: Path) -> None:
    port = free_port()
    async with Peer(client=iam_client(port)) as iam:
        config = hub_config(iam, port, tmp_path)
        async with running(config, iam, port) as hub:
            alice = Browser(hub)
            back = await alice.at_issuer(await alice.to_issuer("/hub/home"))
        async with running(config, iam, port):
            assert (await alice.client.get(back)).headers["Location"] == "/hub/home"
        await alice.client.aclose()


async def test_a_renewal_under_way_is_stored_before_the_hub_ends(tmp_path: Path) -> None:
    port = free_port()
    async with Peer(client=iam_client(port), refresh_rotation=True) as iam:
        config = hub_config(iam, port, tmp_path)
        async with running(config, iam, port) as hub:
            alice = Browser(hub)
            await alice.login()
            await alice.get("hub/home")
            old = await hub.state("alice")
            await iam.faults(delay=0.5, refresh_rotation=True)
            hub.clock.shift = iam.shift = 3400  # the refresh token must be spent
            state = await hub.authenticator.broker.renew("alice", patience=0.1)
            assert state.generation == old.generation  # not done yet
        async with running(config, iam, port) as hub:
            new = await hub.state("alice")
            assert new.refresh_token != old.refresh_token
            await iam.faults(refresh_rotation=True)
            assert (await iam.refresh(new.refresh_token)).status_code == 200
        await alice.client.aclose()

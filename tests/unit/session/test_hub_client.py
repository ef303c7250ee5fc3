"""The one request to the hub, against a real HTTP server that behaves and misbehaves."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from escape_hub.core.status import State
from escape_hub.errors import SettingsError
from escape_hub.session.hub_client import HubClient, HubConnection
from escape_hub.session.hub_reply import HubRefusalError, HubUnavailableError
from tests.fakes.hub_api import Behaviour, FakeHub

AUDIENCES = {"eos": "eos-eulake", "rucio": "rucio"}


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with FakeHub(Behaviour(audiences=AUDIENCES), api_token="secret-hub-token") as running:
        yield running


def client(hub: FakeHub, token: str = "secret-hub-token") -> HubClient:  # noqa: S107
    return HubClient(HubConnection(hub.url, token))


def test_it_asks_with_the_servers_own_token_and_reads_the_reply(hub: FakeHub) -> None:
    found = client(hub).fetch(min_valid_period=30)
    assert found.state is State.FRESH
    assert {n for n, a in found.audiences.items() if a.token} == set(AUDIENCES)
    asked = hub.requests[0]
    assert asked["path"] == "/hub/api/escape/tokens?min_valid_period=30"
    assert asked["headers"]["Authorization"] == "token secret-hub-token"


def test_no_proxy_of_the_environment_is_used(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    assert client(hub).fetch().state is State.FRESH


def test_a_redirect_is_not_followed(hub: FakeHub) -> None:
    hub.behaviour.mode = "redirect"
    with pytest.raises(HubUnavailableError, match="302"):
        client(hub).fetch()
    assert len(hub.requests) == 1


@pytest.mark.parametrize("mode", ["garbage", "drop", "huge"])
def test_a_broken_reply_is_unavailable_and_shows_no_secret(hub: FakeHub, mode: str) -> None:
    hub.behaviour.mode = mode
    with pytest.raises(HubUnavailableError) as caught:
        client(hub).fetch()
    assert "secret-hub-token" not in str(caught.value)


@pytest.mark.parametrize("mode", ["hang", "drip"])
def test_the_time_out_bounds_the_whole_exchange(hub: FakeHub, mode: str) -> None:
    hub.behaviour.mode = mode
    start = time.monotonic()
    with pytest.raises(HubUnavailableError):
        client(hub).fetch(timeout=0.3)
    assert time.monotonic() - start < 5


def test_a_request_under_way_can_be_cancelled(hub: FakeHub) -> None:
    hub.behaviour.mode = "hang"
    asking = client(hub)
    failures: list[Exception] = []

    def fetch() -> None:
        try:
            asking.fetch(timeout=60)
        except HubUnavailableError as error:
            failures.append(error)

    thread = threading.Thread(target=fetch)
    thread.start()
    while not hub.requests:
        thread.join(0.01)
    asking.cancel()
    thread.join(5)
    assert len(failures) == 1


def test_a_token_the_hub_does_not_know_is_a_refusal(hub: FakeHub) -> None:
    with pytest.raises(HubRefusalError) as caught:
        client(hub, "wrong").fetch()
    assert caught.value.reason == "unauthorized" and caught.value.is_final


def test_nobody_listening_is_unavailable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(HubUnavailableError, match="ConnectionRefusedError"):
        HubClient(HubConnection(f"http://127.0.0.1:{port}/hub/api", "t")).fetch(timeout=2)


def test_certificates_that_are_missing_are_named_by_their_variable() -> None:
    connection = HubConnection("https://127.0.0.1:9/hub/api", "t", ca_file="/nonexistent/ca.pem")
    with pytest.raises(HubUnavailableError, match="JUPYTERHUB_SSL") as caught:
        HubClient(connection).fetch()
    assert caught.value.code == "hub-certificates"


@pytest.mark.parametrize(
    "env",
    [
        {},
        {"JUPYTERHUB_API_URL": "http://hub:8081/hub/api"},
        {"JUPYTERHUB_API_TOKEN": "t"},
        {"JUPYTERHUB_API_URL": "ftp://hub/hub/api", "JUPYTERHUB_API_TOKEN": "t"},
        {"JUPYTERHUB_API_URL": "/hub/api", "JUPYTERHUB_API_TOKEN": "t"},
    ],
    ids=str,
)
def test_an_environment_without_a_hub_is_a_mistake_of_settings(env: dict[str, str]) -> None:
    with pytest.raises(SettingsError, match="JUPYTERHUB_API"):
        HubConnection.from_environment(env)


def test_the_connection_never_shows_its_token() -> None:
    env = {"JUPYTERHUB_API_URL": "http://hub/hub/api/", "JUPYTERHUB_API_TOKEN": "secret"}
    connection = HubConnection.from_environment(env)
    assert "secret" not in repr(connection)
    assert connection.api_url == "http://hub/hub/api"

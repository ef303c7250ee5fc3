"""One provider at a time, started when its first case runs and stopped after its last."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from escape_hub.clock import SystemClock
from escape_hub.hub.issuer import Issuer
from escape_hub.settings import IssuerSettings
from tests.harness.processes import free_port
from tests.providers import provider as providers
from tests.providers.peers import Line, LogoutReceiver
from tests.providers.provider import Addresses, Provider
from tests.providers.results import Results
from tests.providers.sign_in import Stage

RESULTS = Results(
    suite="providers",
    heading="Providers that others wrote",
    introduction=(
        "Each provider runs as its makers publish it, with rotation of refresh tokens on. The "
        "versions are what the providers said of themselves. What a provider does not offer, or "
        "does in its own way, is noted in its cell, and the case asserts just that."
    ),
)


@pytest.fixture(scope="session")
def stage_parts() -> Iterator[tuple[Line, LogoutReceiver]]:
    with Line() as line, LogoutReceiver() as receiver:
        yield line, receiver


@pytest.fixture(scope="session", params=providers.NAMES)
def provider(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    stage_parts: tuple[Line, LogoutReceiver],
) -> Iterator[Provider]:
    """A running provider behind a line; that it does not start is a failure."""
    line, receiver = stage_parts
    made = providers.make(request.param, tmp_path_factory.mktemp(request.param))
    RESULTS.add_column(made.name, title=made.title, version="(did not start)")
    # Nobody listens there until the hub of `test_hub` starts.
    hub = f"http://127.0.0.1:{free_port()}/hub"
    try:
        made.start(
            Addresses(
                public_port=line.port,
                redirect_uri=f"{hub}/oauth_callback",
                post_logout_redirect_uri=f"{hub}/escape/signed_out",
                backchannel_logout_uri=receiver.url,
            )
        )
        line.upstream = made.port
        RESULTS.add_column(made.name, title=made.title, version=made.version)
        yield made
    finally:
        made.stop()


def calm(line: Line, receiver: LogoutReceiver) -> None:
    """Nothing is lost, and nothing was."""
    line.losing, line.lost = "nothing", 0
    line.heard.clear()
    receiver.empty()


@pytest.fixture
async def stage(
    provider: Provider, stage_parts: tuple[Line, LogoutReceiver]
) -> AsyncIterator[Stage]:
    """The provider, and our client of it as the hub has it."""
    line, receiver = stage_parts
    calm(line, receiver)
    settings = IssuerSettings(
        issuer=provider.issuer,
        client_id=provider.client_id,
        client_secret=provider.client_secret,
    )
    issuer = Issuer(settings, clock=SystemClock())
    made = Stage(provider, issuer, line, receiver)
    yield made
    calm(line, receiver)
    made.close()
    await issuer.aclose()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    report = yield
    if isinstance(item, pytest.Function) and "provider" in item.fixturenames:
        if hasattr(item, "callspec") and Path(__file__).parent in item.path.parents:
            RESULTS.add(item, str(item.callspec.params["provider"]), report)
    return report


def pytest_sessionfinish() -> None:
    output = os.environ.get("ESCAPE_HUB_TEST_OUTPUT")
    if output and RESULTS.rows:
        RESULTS.write(Path(output))

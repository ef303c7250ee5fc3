"""A hub, a hostile issuer and a naive client, for all cases of a module or of all modules."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from escape_hub import __version__
from tests.fakes.naive_client import NaiveClient
from tests.harness.iam import CLIENT_SECRET
from tests.harness.stage import Stage
from tests.hub.hostile.play import HUB, NAIVE, Play
from tests.providers.results import Results

RESULTS = Results(
    suite="hostile",
    heading="A hostile provider",
    introduction=(
        "The development IAM plays the OpenID Foundation's tests of relying parties (their "
        "names, without the prefix `oidcc-client-test-`) and rules of our own, against a real "
        "hub over HTTP and against a client that checks nothing "
        "(`tests/fakes/naive_client.py`). `refused` is followed by the reason that stands on "
        "the person's page and in the hub's log."
    ),
)
PEOPLE = {
    f"person-{n:03}": {"password": f"person-{n:03}", "groups": ["escape"]} for n in range(600)
}


@contextmanager
def playing(directory: Path, *, extra: str = "", **iam: Any) -> Iterator[Play]:
    """The three of them; no secret may be where it does not belong when all is over."""
    RESULTS.add_column(HUB, title="this hub", version=__version__)
    RESULTS.add_column(NAIVE, title="a naive client", version="")
    with NaiveClient("escape-hub", CLIENT_SECRET) as naive:
        options = {"users": PEOPLE, "redirect_uris": [naive.redirect_uri], **iam}
        with Stage(directory, {"extra": extra}, options) as stage:
            yield Play(stage, naive, RESULTS)
        assert stage.leaks() == []


@pytest.fixture(scope="package")
def _play(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Play]:
    with playing(tmp_path_factory.mktemp("hostile")) as made:
        yield made


@pytest.fixture
def play(_play: Play) -> Iterator[Play]:
    """A hub as operators configure it."""
    _play.must_live()
    yield _play
    _play.iam.faults()


#: Every sign-in asks for the metadata anew, and believes the answer of that moment; a
#: failure is not remembered.
FORGETFUL = """
import escape_hub.hub.issuer
import escape_hub.hub.jwks
escape_hub.hub.jwks.PATIENCE = -1.0
escape_hub.hub.issuer._FOREVER = -1.0
escape_hub.hub.issuer.DISCOVERY_PATIENCE = -1.0
"""


@pytest.fixture(scope="package")
def _forgetful(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Play]:
    directory = tmp_path_factory.mktemp("forgetful")
    with playing(directory, extra=FORGETFUL, callback_iss=True, end_session=True) as made:
        yield made


@pytest.fixture
def forgetful(_forgetful: Play) -> Iterator[Play]:
    """A hub that keeps no metadata, at an issuer with ``iss`` in callbacks and a logout."""
    _forgetful.must_live()
    yield _forgetful
    _forgetful.iam.faults()


def pytest_sessionfinish() -> None:
    output = os.environ.get("ESCAPE_HUB_TEST_OUTPUT")
    if output and RESULTS.rows:
        RESULTS.write(Path(output))

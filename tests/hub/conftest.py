"""One IAM and one hub per test module; a fresh person per test; canaries watch all of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.harness import Hub, Iam, Person
from tests.harness.stage import Stage


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def hub_options() -> dict[str, Any]:
    """A module overrides this to configure its hub: ``extra`` lines, ``python``."""
    return {}


@pytest.fixture(scope="module")
def iam_options() -> dict[str, Any]:
    """A module overrides this to configure its IAM."""
    return {}


@pytest.fixture(scope="module")
def stage(
    directory: Path, hub_options: dict[str, Any], iam_options: dict[str, Any]
) -> Iterator[Stage]:
    """A hub process and its IAM, stopped at the end whatever happens, searched for leaks."""
    with Stage(directory, hub_options, iam_options) as running:
        yield running
    assert running.leaks() == []


@pytest.fixture
def hub(stage: Stage) -> Hub:
    return stage.hub


@pytest.fixture
def iam(stage: Stage) -> Iterator[Iam]:
    """The IAM, its faults switched off again after each test."""
    yield stage.iam
    stage.iam.faults()


@pytest.fixture
def alice(hub: Hub) -> Iterator[Person]:
    person = Person(hub.url, "alice")
    yield person
    person.close()


@pytest.fixture
def bob(hub: Hub) -> Iterator[Person]:
    person = Person(hub.url, "bob")
    yield person
    person.close()

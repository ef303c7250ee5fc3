"""One cluster for all cluster tests, a namespace for each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.requirements_check import why_not

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    if reason := why_not():
        pytest.skip(reason)
    running = Cluster()
    yield running
    running.stop()


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A fresh namespace. Its pods are stopped at once when the test ends."""
    name = cluster.namespace(f"test-{next(_numbers)}")
    yield name
    cluster.start_api()
    for pod in cluster.api.list("Pod", name):
        cluster.api.delete("Pod", name, pod["metadata"]["name"], gracePeriodSeconds=0)
    cluster.api.delete("Namespace", "", name)

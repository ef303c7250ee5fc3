"""The older hub line that Zero-to-JupyterHub ships: log in, spawn, renew, stop."""

from __future__ import annotations

import os
from typing import Any

import pytest

from tests.harness import Hub, Iam, Person
from tests.hub.story import tell

pytestmark = pytest.mark.hub55


@pytest.fixture(scope="module")
def hub_options() -> dict[str, Any]:
    return {"python": f"{os.environ['ESCAPE_HUB_VENV55']}/bin/python"}


@pytest.fixture(scope="module")
def iam_options() -> dict[str, Any]:
    return {"access_token_lifetime": 60}


def test_the_main_job_works_on_the_older_hub_line(hub: Hub, iam: Iam, alice: Person) -> None:
    tell(hub, iam, alice)

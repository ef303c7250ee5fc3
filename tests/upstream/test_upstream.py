"""oauthenticator's own tests, generic and oauth2, with our class in place of theirs.

Twice on each hub line: as their tests make it, without an issuer (nothing that it inherits
is broken), and with one (the class that a hub runs). `deviations` lists what differs.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.upstream import deviations

CHECKOUT = Path(__file__).resolve().parent.parent.parent
MODULES = ["oauthenticator.tests.test_generic", "oauthenticator.tests.test_oauth2"]
THEIRS = ""
NO_ISSUER = "escape_hub.hub.authenticator:EscapeAuthenticator"
ISSUER = "tests.upstream.with_issuer:WithIssuer"
#: Fewer would mean that their tests were not found.
TESTS = 73


def python_of(line: str) -> str:
    """The interpreter of a hub line."""
    return sys.executable if line == "6" else f"{os.environ['ESCAPE_HUB_VENV55']}/bin/python"


@functools.cache
def failing(line: str, of_class: str) -> frozenset[str]:
    """The names of the tests that do not pass."""
    with tempfile.TemporaryDirectory() as directory:
        results = Path(directory, "results.json")
        command = [
            python_of(line),
            "-m",
            "pytest",
            "-q",
            "-c",
            os.devnull,
            "-p",
            "no:cacheprovider",
        ]
        command += ["-p", "tests.upstream.plugin", "-o", "asyncio_mode=auto", "--pyargs", *MODULES]
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        env = {
            **kept,
            "PYTHONPATH": str(CHECKOUT),
            "JUPYTERHUB_CRYPT_KEY": "11" * 32,
            "UPSTREAM_CLASS": of_class,
            "UPSTREAM_RESULTS": str(results),
        }
        done = subprocess.run(command, cwd=directory, env=env, capture_output=True, text=True)
        assert done.returncode in (0, 1), done.stdout[-3000:] + done.stderr[-3000:]
        found: dict[str, str] = json.loads(results.read_text())
    assert len(found) == TESTS, sorted(found)
    return frozenset(name for name, outcome in found.items() if outcome != "passed")


def listed(*lists: Mapping[str, list[str]]) -> set[str]:
    return {name for one in lists for names in one.values() for name in names}


def check(line: str, of_class: str, expected: set[str]) -> None:
    found = failing(line, of_class)
    assert found - expected == set(), "these fail and are not listed"
    assert expected - found == set(), "these are listed and pass: take them out"


def test_theirs_on_jupyterhub_6() -> None:
    """What is put down to JupyterHub 6.1 fails with their class too."""
    check("6", THEIRS, listed(deviations.JUPYTERHUB_6))


def test_without_an_issuer_on_jupyterhub_6() -> None:
    check("6", NO_ISSUER, listed(deviations.JUPYTERHUB_6, deviations.NO_ISSUER))


def test_with_an_issuer_on_jupyterhub_6() -> None:
    check("6", ISSUER, listed(deviations.JUPYTERHUB_6, deviations.ISSUER))


@pytest.mark.hub55
@pytest.mark.parametrize(
    ("of_class", "lists"),
    [(THEIRS, []), (NO_ISSUER, [deviations.NO_ISSUER]), (ISSUER, [deviations.ISSUER])],
    ids=["theirs", "without an issuer", "with an issuer"],
)
def test_on_the_older_hub_line(of_class: str, lists: list[Mapping[str, list[str]]]) -> None:
    check("5", of_class, listed(*lists))


def test_every_deviation_has_one_rule() -> None:
    for one in (deviations.JUPYTERHUB_6, deviations.NO_ISSUER, deviations.ISSUER):
        names = [name for listed in one.values() for name in listed]
        assert len(names) == len(set(names))
        assert all(rule.strip() for rule in one)

"""Runs oauthenticator's own tests with another class in place of theirs.

``pytest -p tests.upstream.plugin`` with ``UPSTREAM_CLASS=package.module:Name`` (empty:
theirs) and ``UPSTREAM_RESULTS=FILE`` for what each test came to. Runs on both hub lines:
nothing is imported here that only one of them has.
"""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

#: Names under which their tests know the class.
THEIRS = ("GenericOAuthenticator", "OAuthenticator")
_results: dict[str, str] = {}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    wanted = os.environ.get("UPSTREAM_CLASS", "")
    if not wanted:
        return
    module, _, name = wanted.partition(":")
    ours = getattr(importlib.import_module(module), name)
    for item in items:
        assert isinstance(item, pytest.Function)
        for theirs in THEIRS:
            if hasattr(item.module, theirs):
                setattr(item.module, theirs, ours)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Any:
    report = yield
    name = f"{item.module.__name__.rpartition('.')[2]}::{item.name}"  # type: ignore[attr-defined]
    if _results.get(name, "passed") == "passed":
        _results[name] = report.outcome
    return report


def pytest_sessionfinish() -> None:
    Path(os.environ["UPSTREAM_RESULTS"]).write_text(json.dumps(_results, indent=1))

"""Results of a conformance suite as JSON, from which tools/conformance.py writes a table.

One file a suite, ``conformance-<suite>.json``: columns (a provider with the version it
reported), rows (a case), and a cell for each pair.
"""

from __future__ import annotations

import inspect
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

#: Properties (pytest's ``record_property``) that reach a cell; the second is a verdict too:
#: the peer has no such thing, and the case asserted what happens instead.
NOTES = ("note", "not offered")


@dataclass
class Results:
    """Filled while tests run. ``suite`` is the file's name, ``heading`` the section's."""

    suite: str
    heading: str
    introduction: str
    columns: dict[str, dict[str, str]] = field(default_factory=dict)
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)

    def add_column(self, name: str, *, title: str, version: str) -> None:
        self.columns[name] = {"title": title, "version": version}

    def add(self, item: pytest.Function, column: str, report: pytest.TestReport) -> None:
        """Take one phase of a test; a failure in any phase is the verdict."""
        row = self.rows.setdefault(item.originalname, {"title": _title(item), "cells": {}})
        said = dict.fromkeys((name, str(value)) for name, value in report.user_properties)
        cell = row["cells"].setdefault(column, {"result": "pass", "note": ""})
        cell["note"] = "; ".join(text for name, text in said if name in NOTES)
        if cell["result"] == "pass" and any(name == "not offered" for name, _ in said):
            cell["result"] = "not offered"
        if report.outcome != "passed":
            cell["result"] = "FAIL" if report.failed else report.outcome

    def put(self, row: str, column: str, *, title: str, result: str, note: str = "") -> None:
        """One cell of a suite whose tests judge more than one column at once."""
        found = self.rows.setdefault(row, {"title": title, "cells": {}})
        found["cells"][column] = {"result": result, "note": note}

    def write(self, directory: Path) -> Path:
        directory.mkdir(parents=True, exist_ok=True)
        file = directory / f"conformance-{self.suite}.json"
        found = {
            "heading": self.heading,
            "introduction": self.introduction,
            "columns": [{"name": name, **column} for name, column in self.columns.items()],
            "rows": [{"name": name, **row} for name, row in self.rows.items()],
        }
        file.write_text(json.dumps(found, indent=1) + "\n")
        return file


def _title(item: pytest.Function) -> str:
    text = inspect.getdoc(item.function) or item.originalname.removeprefix("test_")
    return " ".join(text.split("\n\n")[0].split()).rstrip(".")

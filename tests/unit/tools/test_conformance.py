"""The table of results says what the tests found, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tools import conformance


def suite(**cells: dict[str, str]) -> dict[str, Any]:
    return {
        "heading": "Peers",
        "introduction": "Who was there.",
        "columns": [
            {"name": "one", "title": "One", "version": "1.0"},
            {"name": "two", "title": "Two", "version": ""},
        ],
        "rows": [{"name": "test_a", "title": "A | B", "cells": cells}],
    }


def test_a_row_has_a_cell_for_each_peer_with_its_note() -> None:
    found = conformance.section(
        suite(one={"result": "pass", "note": ""}, two={"result": "FAIL", "note": "so what"})
    )
    assert "| Case | One 1.0 | Two |" in found
    assert "| A \\| B | pass | FAIL: so what |" in found


def test_a_case_that_did_not_run_is_not_passed_over() -> None:
    assert "| not run | not run |" in conformance.section(suite())


def test_check_compares_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(conformance, "CHECKOUT", tmp_path)
    monkeypatch.setattr(conformance, "DOCUMENT", tmp_path / "docs/conformance.md")
    results = tmp_path / "conformance-peers.json"
    results.write_text(json.dumps(suite(one={"result": "pass", "note": ""})))
    assert conformance.main(["--check", str(tmp_path)]) == 1
    assert not conformance.DOCUMENT.exists()
    assert conformance.main([str(tmp_path)]) == 0
    assert conformance.main(["--check", str(tmp_path)]) == 0
    results.write_text(json.dumps(suite(one={"result": "FAIL", "note": ""})))
    assert conformance.main(["--check", str(tmp_path)]) == 1
    assert "-| A \\| B | pass" in capsys.readouterr().out


def test_one_suite_leaves_the_other_sections_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "docs/conformance.md"
    monkeypatch.setattr(conformance, "CHECKOUT", tmp_path)
    monkeypatch.setattr(conformance, "DOCUMENT", page)
    for name, heading in (("peers", "Peers"), ("others", "Others")):
        found = {**suite(one={"result": "pass", "note": ""}), "heading": heading}
        (tmp_path / f"conformance-{name}.json").write_text(json.dumps(found))
    assert conformance.main([str(tmp_path)]) == 0
    both = page.read_text()
    failed = {**suite(one={"result": "FAIL", "note": ""}), "heading": "Others"}
    (tmp_path / "conformance-others.json").write_text(json.dumps(failed))
    assert conformance.main(["--check", "--suite=peers", str(tmp_path)]) == 0
    assert conformance.main(["--check", "--suite=others", str(tmp_path)]) == 1
    assert conformance.main(["--suite=peers", str(tmp_path)]) == 0
    assert page.read_text() == both
    assert conformance.main(["--suite=others", str(tmp_path)]) == 0
    assert page.read_text() == both.replace("| A \\| B | pass |", "| A \\| B | FAIL |", 1)


def test_a_suite_that_did_not_run_is_no_conformance(tmp_path: Path) -> None:
    (tmp_path / "conformance-peers.json").write_text(json.dumps(suite()))
    with pytest.raises(SystemExit, match="'others'"):
        conformance.main(["--check", "--suite=others", str(tmp_path)])


def test_no_results_are_no_conformance(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="make test"):
        conformance.main([str(tmp_path)])

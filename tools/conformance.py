"""Write docs/conformance.md from what the tests found; nobody types a result.

Usage: python3 tools/conformance.py [--check] [--suite=NAME] [DIRECTORY]

Reads every ``conformance-*.json`` of DIRECTORY (default ``$ESCAPE_HUB_TEST_OUTPUT`` or
``test-output``), which the tests write when they run; see tests/providers/results.py for
the form. ``--suite`` takes that one alone, and leaves the other sections as they are.
``--check`` writes nothing, and fails when the document says something else.
Standard library only.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent
DOCUMENT = CHECKOUT / "docs/conformance.md"
HEAD = """\
# Conformance

Which rule was seen to hold, against whom. `tools/conformance.py` writes this page from the
results of the tests; a result is never typed.
"""


def read_suites(directory: Path, name: str = "*") -> list[dict[str, Any]]:
    """The suites in ``directory``, by file name."""
    files = sorted(directory.glob(f"conformance-{name}.json"))
    if not files:
        which = "" if name == "*" else f" of {name!r}"
        sys.exit(f"conformance: {directory} has no results{which}: run 'make test' first")
    return [json.loads(file.read_text()) for file in files]


def document(suites: list[dict[str, Any]], kept: dict[str, str] | None = None) -> str:
    """The page; ``kept`` holds sections by heading that stay where no suite replaces them."""
    sections = {**(kept or {}), **{suite["heading"]: section(suite) for suite in suites}}
    return "\n".join([HEAD, *(sections[heading] for heading in sorted(sections))])


def written_sections() -> dict[str, str]:
    """The sections of the page as it is, by heading."""
    text = DOCUMENT.read_text() if DOCUMENT.exists() else ""
    parts = text.split("\n## ")[1:]
    return {part.partition("\n")[0]: f"## {part.rstrip()}\n" for part in parts}


def section(suite: dict[str, Any]) -> str:
    """A heading, an introduction, and a table with a row a case and a column a peer."""
    columns = suite["columns"]
    titles = [" ".join(filter(None, [c["title"], c["version"]])) for c in columns]
    lines = [line(["Case", *titles]), line(["---"] * (len(columns) + 1))]
    for row in suite["rows"]:
        cells = [cell(row["cells"].get(column["name"])) for column in columns]
        lines.append(line([row["title"], *cells]))
    return "\n".join([f"## {suite['heading']}", "", suite["introduction"], "", *lines, ""])


def cell(found: dict[str, str] | None) -> str:
    if found is None:
        return "not run"
    return f"{found['result']}: {found['note']}" if found["note"] else found["result"]


def line(cells: list[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in cells) + " |"


def check(text: str) -> int:
    """0 when the document says ``text``; otherwise shows the difference."""
    written = DOCUMENT.read_text() if DOCUMENT.exists() else ""
    if written == text:
        return 0
    name = str(DOCUMENT.relative_to(CHECKOUT))
    found = difflib.unified_diff(
        written.splitlines(), text.splitlines(), name, "what the tests found", lineterm=""
    )
    print("\n".join(found))
    print(f"conformance: {name} is not what the tests found: run 'python3 tools/conformance.py'")
    return 1


def main(arguments: list[str]) -> int:
    checking = "--check" in arguments
    suites = [a.removeprefix("--suite=") for a in arguments if a.startswith("--suite=")]
    rest = [a for a in arguments if a != "--check" and not a.startswith("--suite=")]
    default = os.environ.get("ESCAPE_HUB_TEST_OUTPUT") or str(CHECKOUT / "test-output")
    if len(rest) > 1 or len(suites) > 1 or any(argument.startswith("-") for argument in rest):
        sys.exit(__doc__)
    directory = Path(rest[0] if rest else default)
    if suites:
        text = document(read_suites(directory, suites[0]), written_sections())
    else:
        text = document(read_suites(directory))
    if checking:
        return check(text)
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

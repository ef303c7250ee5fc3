"""Figures and how they are shown: medians with the least and the most, ratios of pairs."""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field

HEAD = """\
# Benchmarks

Written by `make bench`; no figure is typed. Each table was measured in one run, its rows in
turns (one of each, then the next of each), so that other work on the machine meets all of them.
A ratio is the median over those turns, not the ratio of two medians. Read the ratios; the
absolute times are those of one machine.
"""


@dataclass(frozen=True)
class Sample:
    """Measured values in ``unit``."""

    values: tuple[float, ...]
    unit: str = "ms"

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    def beside(self, other: Sample) -> Sample:
        """Value by value as multiples of ``other``, measured in the same turns."""
        return Sample(tuple(a / b for a, b in zip(self.values, other.values, strict=True)), "times")

    def less(self, other: Sample, times: float = 1.0) -> Sample:
        """Value by value, ``times`` the other's taken off."""
        pairs = zip(self.values, other.values, strict=True)
        return Sample(tuple(a - times * b for a, b in pairs), self.unit)

    def percentile(self, share: float) -> float:
        ordered = sorted(self.values)
        return ordered[min(len(ordered) - 1, math.floor(share * len(ordered)))]


def sample(values: Iterable[float], unit: str = "ms", scale: float = 1.0) -> Sample:
    """Seconds to milliseconds with ``scale`` 1000, and so on."""
    return Sample(tuple(scale * value for value in values), unit)


@dataclass(frozen=True)
class Row:
    """One line of a table; ``beside`` says of what ``ratio`` is a multiple."""

    what: str
    found: Sample
    ratio: Sample | None = None


@dataclass
class Section:
    """What one benchmark found. ``how`` and ``notes`` are paragraphs for the reader."""

    title: str
    how: str
    rows: list[Row] = field(default_factory=list)
    ratio_of: str = ""
    notes: list[str] = field(default_factory=list)

    def add(self, what: str, found: Sample, base: Sample | None = None) -> None:
        self.rows.append(Row(what, found, found.beside(base) if base else None))

    def text(self) -> str:
        """Markdown."""
        lines = [f"## {self.title}", "", self.how, "", *self._table()]
        for note in self.notes:
            lines += ["", note]
        return "\n".join(lines) + "\n"

    def _table(self) -> list[str]:
        last = f"beside {self.ratio_of}" if self.ratio_of else ""
        head = ["", "median", "min", "max", "turns", *([last] if last else [])]
        lines = [_line(head), _line(["---", *["---:"] * (len(head) - 1)])]
        for row in self.rows:
            found = row.found
            shown = [_number(found.median), _number(min(found.values)), _number(max(found.values))]
            cells = [f"{row.what} ({found.unit})", *shown, str(len(found.values))]
            if last:
                cells.append(f"{_number(row.ratio.median)} x" if row.ratio else "")
            lines.append(_line(cells))
        return lines


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float) -> str:
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def machine() -> str:
    """Cores and Python, and whether the machine was busy with something else at the start."""
    line = f"{os.cpu_count()} cores, Python {platform.python_version()}."
    if os.getloadavg()[0] > 0.5:
        line += " Other work ran on the machine at the same time."
    return line


def document(about: str, sections: Iterable[Section]) -> str:
    """The whole page."""
    return "\n".join([HEAD, f"Measured with {about}\n", *(one.text() for one in sections)])

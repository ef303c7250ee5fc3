"""Run the benchmarks: all of them and write docs/benchmarks.md, or some and only print."""

from __future__ import annotations

import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from benchmarks import burst, endpoint, renewal, scheduler
from benchmarks.report import Section, document, machine
from benchmarks.stage import HubStage

DOCUMENT = Path(__file__).resolve().parent.parent / "docs/benchmarks.md"
PEOPLE = 100


@contextmanager
def prepared() -> Iterator[dict[str, Callable[[], Section]]]:
    """The benchmarks by name. Those that need a hub share one, started when first needed."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="benchmarks-")))
        started: list[HubStage] = []

        def stage() -> HubStage:
            if not started:
                started.append(stack.enter_context(HubStage(directory / "stage", PEOPLE)))
            return started[0]

        yield {
            "renewal": lambda: renewal.run(directory / "renewal"),
            "burst": lambda: burst.run(stage()),
            "scheduler": scheduler.run,
            "endpoint": lambda: endpoint.run(stage()),
        }


def main(names: list[str]) -> int:
    about = machine()
    # What the services say of ten thousand sessions is not what is measured here.
    logging.getLogger("escape_hub").setLevel(logging.ERROR)
    with prepared() as known:
        if unknown := sorted(set(names) - set(known)):
            print(f"benchmarks: there is no {unknown[0]!r}; known are {', '.join(known)}")
            return 2
        sections = []
        for name in names or known:
            begun = time.monotonic()
            sections.append(known[name]())
            print(
                f"{sections[-1].text()}\n({name}: {time.monotonic() - begun:.0f} s)\n", flush=True
            )
    if names:
        print("Only a run of all of them writes docs/benchmarks.md.")
    else:
        DOCUMENT.write_text(document(about, sections))
        print(f"Written: docs/{DOCUMENT.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Run the test tiers, fast ones first, and print the minutes each took.

Usage: python3 tools/run_tests.py [TIER ...]        (all tiers without an argument)

A tier whose tools cannot be had is left out with one line on a laptop; with
``CI=true`` that is a failure, and so is a skipped test. Standard library only:
it is what sets the rest up.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
import xml.etree.ElementTree as ET  # noqa: S405 - reads only what our own pytest just wrote
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import setup

OUTPUT = setup.CHECKOUT / "test-output"
CI = os.environ.get("CI", "").lower() == "true"


@dataclass
class Tier:
    """Commands that run one after the other, or all at once when ``at_once``."""

    name: str
    commands: list[list[str]]
    needs: list[str] = field(default_factory=list)
    at_once: bool = False
    possible: Callable[[], str] = lambda: ""
    """A reason why this machine cannot run the tier, or nothing."""
    waits: bool = False
    """It mostly waits for time to pass: such tiers run side by side."""


def pytest(*arguments: str) -> list[str]:
    return ["python", "-m", "pytest", "-q", *arguments]


def no_browser() -> str:
    if setup.chromium() or os.geteuid() == 0:
        return ""
    return f"Chromium is missing: apt-get install {' '.join(setup.BROWSER_PACKAGES)}"


def no_root() -> str:
    return "" if os.geteuid() == 0 else "needs root, to run sessions of two system users"


def no_cluster() -> str:
    sys.path.insert(0, str(setup.CHECKOUT / "tests/cluster"))
    import requirements_check

    return requirements_check.why_not()


def no_java() -> str:
    if os.geteuid() == 0 or all(shutil.which(tool) for tool in ("java", "mvn")):
        return ""
    return "Java and Maven are missing: apt-get install openjdk-17-jre-headless maven"


#: Slow downloads and builds that go on behind the fast tiers; each waits for itself when used.
BACKGROUND = {
    "providers": ["tests/providers/fetch.py"],
    "cluster": ["tests/cluster/build.py"],
}


COVERAGE = ["--cov", "--cov-branch", "--cov-report=term:skip-covered"]
TIERS = [
    Tier(
        "lint",
        [
            ["ruff", "check", "."],
            ["ruff", "format", "--check", "."],
            ["mypy"],
            ["python", "tools/check_imports.py"],
        ],
    ),
    Tier("unit", [pytest("-n", "2", "tests/unit", "tests/fakes", *COVERAGE)]),
    Tier("fuzz", [pytest("tests/fuzz")]),
    Tier("upstream", [pytest("tests/upstream")], needs=["hub55"]),
    Tier(
        "hub",
        [
            pytest("tests/hub", "-m", "not hub55 and not root"),
            ["python", "tools/conformance.py", "--check", "--suite=hostile"],
        ],
    ),
    Tier("hub55", [pytest("tests/hub", "-m", "hub55")], needs=["hub55"]),
    Tier("root", [pytest("tests/hub", "-m", "root")], possible=no_root),
    Tier("browser", [pytest("tests/browser")], needs=["browser"], possible=no_browser),
    Tier(
        "providers",
        [
            pytest("tests/providers"),
            ["python", "tools/conformance.py", "--check", "--suite=providers"],
        ],
        needs=["browser"],
        possible=lambda: no_java() or no_browser(),
    ),
    Tier(
        "cluster", [pytest("tests/cluster", "-s")], needs=["hub55"], possible=no_cluster, waits=True
    ),
    Tier(
        "soak",
        [
            pytest("tests/soak/test_soak.py", "-s"),
            pytest("tests/soak/test_restart.py", "-s"),
            pytest("tests/soak/test_outage.py", "-s", "-k", "not hang"),
            pytest("tests/soak/test_outage.py", "-s", "-k", "hang"),
        ],
        at_once=True,
        waits=True,
    ),
]


def environment() -> dict[str, str]:
    venv = setup.place("venv")
    return setup.clean_env() | {
        "PATH": f"{venv}/bin:{os.environ['PATH']}",
        "VIRTUAL_ENV": str(venv),
        "ESCAPE_HUB_TEST_OUTPUT": str(OUTPUT),
        "ESCAPE_HUB_VENV55": str(setup.place("venv55")),
    }


def run_commands(tier: Tier) -> list[int]:
    """Exit codes. Commands run at once write to a file each, shown when all have ended."""
    env = environment()
    if not tier.at_once:
        return [
            subprocess.run(with_report(tier, i), env=env, cwd=setup.CHECKOUT).returncode
            for i in range(len(tier.commands))
        ]
    logs = [OUTPUT / f"{tier.name}-{i}.log" for i in range(len(tier.commands))]
    files = [log.open("w") for log in logs]
    running = [
        subprocess.Popen(
            with_report(tier, i), env=env, cwd=setup.CHECKOUT, stdout=file, stderr=file
        )
        for i, file in enumerate(files)
    ]
    codes = [process.wait() for process in running]
    for file, log in zip(files, logs, strict=True):
        file.close()
        print(log.read_text(), end="", flush=True)
    return codes


def with_report(tier: Tier, i: int) -> list[str]:
    command = tier.commands[i]
    if "pytest" in command:
        return [*command, f"--junit-xml={OUTPUT}/{tier.name}-{i}.xml"]
    return command


def counts(tier: Tier) -> tuple[int, int, int]:
    """(passed, failed, skipped) as pytest's own reports say."""
    total = failed = skipped = 0
    for path in OUTPUT.glob(f"{tier.name}-*.xml"):
        for suite in ET.parse(path).getroot().iter("testsuite"):  # noqa: S314 - our own file
            total += int(suite.get("tests", 0))
            failed += int(suite.get("failures", 0)) + int(suite.get("errors", 0))
            skipped += int(suite.get("skipped", 0))
    return total - failed - skipped, failed, skipped


def run_tier(tier: Tier) -> tuple[bool, str, tuple[int, int, int]]:
    """(good, line for the summary, counts)."""
    if reason := tier.possible():
        return not CI, f"{tier.name:9} left out: {reason}", (0, 0, 0)
    for path in OUTPUT.glob(f"{tier.name}-*.xml"):
        path.unlink()
    print(f"\n=== {tier.name}", flush=True)
    began = time.monotonic()
    for part in tier.needs:
        setup.main(part)
    codes = run_commands(tier)
    minutes = (time.monotonic() - began) / 60
    result = counts(tier)
    good = not any(codes) and not result[1] and not (CI and result[2])
    verdict = "ok" if good else f"FAILED (exit codes {codes}, skipped {result[2]})"
    return good, f"{tier.name:9} {minutes:5.1f} min  {result[0]:4} passed  {verdict}", result


def start_background(names: list[str]) -> list[subprocess.Popen[bytes]]:
    """Begin what later tiers need, niced by itself, while the fast tiers run."""
    started = []
    for tier in TIERS:
        if tier.name in BACKGROUND and (not names or tier.name in names) and not tier.possible():
            with (OUTPUT / f"{tier.name}-background.log").open("w") as log:
                command = ["nice", "-n", "19", "python", *BACKGROUND[tier.name]]
                started.append(
                    subprocess.Popen(
                        command, env=environment(), cwd=setup.CHECKOUT, stdout=log, stderr=log
                    )
                )
    return started


def groups(tiers: list[Tier]) -> list[list[Tier]]:
    """One tier after the other; neighbours that mostly wait go together."""
    found: list[list[Tier]] = []
    for tier in tiers:
        if found and tier.waits and found[-1][-1].waits:
            found[-1].append(tier)
        else:
            found.append([tier])
    return found


def main(names: list[str]) -> int:
    known = [tier.name for tier in TIERS]
    if unknown := sorted(set(names) - set(known)):
        print(f"tests: unknown tier {unknown[0]!r}; known are {', '.join(known)}")
        return 2
    OUTPUT.mkdir(exist_ok=True)
    began = time.monotonic()
    setup.main("demo")
    background = start_background(names)
    lines = [f"{'setup':9} {(time.monotonic() - began) / 60:5.1f} min"]
    all_good, passed, failed, skipped = True, 0, 0, 0
    for group in groups([tier for tier in TIERS if not names or tier.name in names]):
        with ThreadPoolExecutor(len(group)) as pool:
            results = list(pool.map(run_tier, group))
        for good, line, result in results:
            all_good &= good
            lines.append(line)
            passed, failed, skipped = (
                passed + result[0],
                failed + result[1],
                skipped + result[2],
            )
        if not all_good and CI:
            break
    for process in background:
        process.wait()
    print("\n=== summary")
    print("\n".join(lines))
    print(f"total     {(time.monotonic() - began) / 60:5.1f} min")
    print(f"{passed} passed, {failed if all_good else max(failed, 1)} failed, {skipped} skipped")
    return 0 if all_good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

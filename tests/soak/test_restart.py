"""The hub is killed and started again while a session runs: its files never notice."""

from __future__ import annotations

from pathlib import Path

from tests.harness.processes import wait_for
from tests.harness.stage import Stage
from tests.soak.watch import Judge, begin

LIFETIME = 90
DISTINCT = 10


def test_files_stay_fresh_over_a_hub_that_is_killed_and_started_again(tmp_path: Path) -> None:
    with Stage(tmp_path, {}, {"access_token_lifetime": LIFETIME}) as stage:
        limit = DISTINCT * LIFETIME
        output = begin(stage, limit, DISTINCT)
        judge = Judge(stage.iam, output)
        for tokens in (4, 10):
            wait_for(f"{tokens} tokens", lambda n=tokens: judge.distinct() >= n, limit, every=1)
            stage.hub.kill()
            stage.start_hub()
        verdict = judge.verdict(limit + 60)
        print(f"\nrestart soak: {verdict}")
        assert verdict.faults == {}
        assert verdict.reads >= 10_000
        assert min(verdict.distinct.values()) >= 10
        assert verdict.least_remaining > 0
    assert stage.leaks() == []

"""Tokens of 20 s, browser closed: the files are always there, whole, 0600 and alive."""

from __future__ import annotations

from pathlib import Path

from tests.harness.stage import Stage
from tests.soak.watch import Judge, assert_only_the_agent_called, begin

LIFETIME = 20
DISTINCT = 11


def test_files_stay_fresh_for_eleven_tokens_while_nobody_looks(tmp_path: Path) -> None:
    with Stage(tmp_path, {}, {"access_token_lifetime": LIFETIME}) as stage:
        limit = DISTINCT * LIFETIME
        output = begin(stage, limit, DISTINCT)
        mark = len(stage.hub.log_text)
        verdict = Judge(stage.iam, output).verdict(limit + 60)
        log = stage.hub.log_text[mark:]
        print(f"\nsoak: {verdict}")
        assert verdict.faults == {}
        assert verdict.reads >= 10_000
        assert min(verdict.distinct.values()) >= 10
        assert verdict.least_remaining > 0
        assert_only_the_agent_called(stage.hub, log)
    assert stage.leaks() == []

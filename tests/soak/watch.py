"""Start a reader inside a session and judge what it saw by the IAM's own keys and word."""

from __future__ import annotations

import json
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt

from tests.harness import Iam, Person
from tests.harness.hub import Hub
from tests.harness.processes import wait_for
from tests.harness.stage import Stage

READER = Path(__file__).resolve().parent.parent / "harness/reader.py"
_ACCESS = re.compile(r"\b\d{3} (?:GET|POST|PUT|PATCH|DELETE) (/\S*)")


@dataclass
class Verdict:
    """What a soak is about."""

    reads: int
    faults: dict[str, int]
    distinct: dict[str, int]
    least_remaining: float

    def __str__(self) -> str:
        return (
            f"reads {self.reads}, distinct tokens {self.distinct}, "
            f"least remaining life {self.least_remaining:.1f} s, "
            f"file faults {self.faults or 'none'}"
        )


def begin(stage: Stage, seconds: float, target: int) -> Path:
    """Alice signs in, starts a reader in her session, and closes her browser."""
    alice = Person(stage.hub.url, "alice")
    alice.login()
    alice.spawn()
    output = stage.hub.token_root / "reader.jsonl"
    command = [sys.executable, str(READER), str(output), str(seconds), str(target)]
    alice.run(
        alice.start_kernel(),
        f"import subprocess; subprocess.Popen({command!r}, start_new_session=True)",
    )
    alice.close()
    return output


class Judge:
    """Follows the reader's output; every new token is shown to the IAM while it is fresh."""

    def __init__(self, iam: Iam, output: Path) -> None:
        self.iam, self.output = iam, output
        self.expiry: dict[str, float] = {}
        self.refused: list[str] = []
        self.summary: dict[str, Any] | None = None
        self._read = 0

    def look(self) -> None:
        lines = self.output.read_text().splitlines(keepends=True) if self.output.exists() else []
        for line in lines[self._read :]:
            if not line.endswith("\n"):
                return
            self._read += 1
            found = json.loads(line)
            if "summary" in found:
                self.summary = found["summary"]
            elif found["token"] not in self.expiry:
                self._judge(found["token"])

    def _judge(self, token: str) -> None:
        keys = jwt.PyJWKSet.from_dict(httpx.get(f"{self.iam.issuer}jwk").json())
        key = keys[jwt.get_unverified_header(token)["kid"]]
        claims = jwt.decode(
            token, key.key, algorithms=["RS256"], options={"verify_aud": False, "verify_exp": False}
        )
        verdict = self.iam.introspect(token)
        if not verdict["active"]:
            self.refused.append(
                f"refused by introspection, exp {claims['exp'] - time.time():.1f} s"
            )
        self.expiry[token] = float(claims["exp"])

    def distinct(self) -> int:
        self.look()
        return len(self.expiry)

    def verdict(self, timeout: float) -> Verdict:
        """Wait for the reader's end."""

        def ended() -> dict[str, Any] | None:
            self.look()
            return self.summary

        summary = wait_for("the reader to end", ended, timeout, every=0.5)
        assert self.refused == []
        seen = summary["seen"]
        lives = [
            self.expiry[token] - times["last"]
            for tokens in seen.values()
            for token, times in tokens.items()
        ]
        return Verdict(
            summary["reads"],
            summary["faults"],
            {name: len(tokens) for name, tokens in seen.items()},
            min(lives),
        )


def requests_in(log: str) -> set[str]:
    """Paths in the hub's access log, without their query."""
    return {path.partition("?")[0] for path in _ACCESS.findall(log)}


def assert_only_the_agent_called(hub: Hub, log: str) -> None:
    """The agent's own polls, and the single-user server's own heartbeat; nobody else."""
    allowed = {"/hub/api/escape/tokens", "/hub/api/users/alice/activity"}
    assert requests_in(log) - allowed == set()
    assert "/hub/api/escape/tokens" in requests_in(log)

"""What the session's tests share: a plan, a hub that answers by script, a clock moved by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from escape_hub.core.audiences import Audience
from escape_hub.core.session_plan import RucioClient, SessionPlan
from escape_hub.core.status import State
from escape_hub.core.tokens import AccessToken
from escape_hub.session.hub_reply import AudienceReply, TokensReply
from escape_hub.session.token_files import TokenDirectory
from tests.fakes.hub_api import make_jwt

EOS = Audience(
    "eos", "eos-eulake", "openid", "eos.token", "eos", "EOS storage", "iam.example.org/userinfo"
)
RUCIO = Audience("rucio", "rucio", "openid", "rucio.token", "bare", "Rucio catalogue")
NOW = 1_800_000_000.0


def make_plan(directory: Path | str, *audiences: Audience) -> SessionPlan:
    client = RucioClient("https://rucio.example.org", "https://auth.example.org", "alice")
    return SessionPlan(str(directory), audiences or (EOS, RUCIO), client)


def jwt(audience: Audience, expires_at: float, **claims: object) -> str:
    return make_jwt({"aud": audience.audience, "exp": expires_at, "sub": "alice", **claims})


def told(audience: Audience, expires_at: float, *, now: float = NOW, **claims: object):  # type: ignore[no-untyped-def]
    """A good reply for one audience; ``expires_at`` and ``now`` by the hub's clock."""
    token = AccessToken(jwt(audience, expires_at, **claims), expires_at, now)
    return AudienceReply(State.FRESH, renewed_at=now, token=token)


def reply(audiences: dict[str, AudienceReply], **changes: object) -> TokensReply:
    clocks = [a.token.obtained_at for a in audiences.values() if a.token]
    values = {
        "generation": 1,
        "state": State.FRESH,
        "message": "",
        "reference": "",
        "next_poll": 60.0,
        "hub_now": clocks[0] if clocks else None,
        "audiences": audiences,
    }
    return TokensReply(**{**values, **changes})  # type: ignore[arg-type]


class ScriptedHub:
    """A hub client whose next answers are given: replies, errors to raise, or functions."""

    def __init__(self, *script: TokensReply | Exception | Callable[[], TokensReply]) -> None:
        self.script = list(script)
        self.asked = 0

    def fetch(self, *, min_valid_period: float = 0.0, timeout: float = 30.0) -> TokensReply:
        self.asked += 1
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if isinstance(answer, Exception):
            raise answer
        return answer() if callable(answer) else answer

    def cancel(self) -> None:
        pass


class HandClock:
    """A `SessionClock` that moves only when somebody waits, or by hand."""

    def __init__(self, wall: float = NOW) -> None:
        self._wall = wall
        self._elapsed = 1000.0
        self.on_wait: Callable[[], None] = lambda: None

    def wall(self) -> float:
        return self._wall

    def elapsed(self) -> float:
        return self._elapsed

    def move(self, seconds: float) -> None:
        self._wall += seconds
        self._elapsed += seconds

    def set_wall(self, wall: float) -> None:
        self._wall = wall

    def wait(self, event: threading.Event, seconds: float) -> bool:
        if event.is_set():
            return True
        self.move(seconds)
        self.on_wait()
        return event.is_set()


@contextmanager
def opened(path: Path, *, writer: bool = True) -> Iterator[TokenDirectory]:
    directory = TokenDirectory.open(str(path))
    try:
        assert directory.become_writer() is writer
        yield directory
    finally:
        directory.close()

"""(c) Ten thousand sessions on simulated time: CPU share and memory."""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from typing import Any

from benchmarks.report import Section, sample
from escape_hub.core.auth_state import AuthState
from escape_hub.core.renewal import RenewalPolicy
from escape_hub.core.tokens import AccessToken
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import ISSUER, FakeIssuer
from tests.fakes.rig import EOS, RUCIO, Rig

HOUR = 3600.0
MANY, FEW = 10_000, 1_000
#: Simulated seconds of a turn, and how many of them.
SLICE, TURNS = 600.0, 9
HOW = f"""\
`RenewalService` and `TokenBroker` with {MANY:,} sessions whose tokens live an hour, people having
signed in over the last 36 minutes; beside it {FEW:,} sessions, and {MANY:,} of which none is due
(tokens of 100 hours: what the loop and its gauges cost by themselves). Time is simulated, the
issuer and the store are in memory, so this is the scheduling and the renewal's own bookkeeping
without encryption, database and HTTP, which "hub CPU" above has. A turn is {SLICE / 60:g}
simulated minutes of each; the CPU share is processor time by simulated time, of one core.
The in-memory issuer's part is inside. Memory is what service and broker hold once started, and
after everybody was renewed once, the tokens themselves left out: a hub stores those encrypted."""


class Unrecorded(list[Any]):
    """The rig's history of every state would be most of the memory."""

    def append(self, item: object) -> None:
        pass


def rig(sessions: int, life: float = HOUR) -> Rig:
    """A service with ``sessions`` people signed in, evenly over 0.6 of a token's ``life``."""
    clock = FakeClock()
    found = Rig(RenewalPolicy(rate=20.0), clock=clock, issuer=FakeIssuer(clock, lifetime=life))
    found.store.history = Unrecorded()
    now = clock.now()
    for number in range(sessions):
        user, at = f"user{number}", now - (0.6 * HOUR * number / sessions)
        reply = found.issuer.sign_in(user)
        tokens = {
            a.name: AccessToken(f"first-{a.name}-{number}", at + life, at) for a in (EOS, RUCIO)
        }
        found.store.states[user] = AuthState(
            ISSUER,
            user,
            generation=1000,
            refresh_token=reply.refresh_token,
            login_token=AccessToken(reply.access_token.value, at + life, at),
            exchanged=tokens,
            login_at=at,
            checked_at=at,
        )
        found.users.append(user)
    return found


async def _cpu() -> dict[str, list[float]]:
    """CPU seconds of each turn, by rig; the renewals counted."""
    rigs = {"many": rig(MANY), "few": rig(FEW), "idle": rig(MANY, 100 * HOUR)}
    spent: dict[str, list[float]] = {name: [] for name in [*rigs, "renewals"]}
    for one in rigs.values():
        await one.service.start()
        await one.clock.advance(1.0)
    for turn in range(-1, TURNS):
        for name, one in rigs.items():
            renewed = one.issuer.granted["refresh"]
            begun = time.process_time()
            await one.clock.advance(SLICE)
            took = time.process_time() - begun
            if turn >= 0:
                spent[name].append(took)
                if name == "many":
                    spent["renewals"].append(one.issuer.granted["refresh"] - renewed)
    for name, one in rigs.items():
        assert not one.issuer.refused, "a renewal was refused"
        assert (one.issuer.calls["refresh"] == 0) == (name == "idle")
        assert all(s.exchanged["eos"].is_valid(one.clock.now()) for s in one.store.states.values())
        await one.clock.run(one.service.stop())
    return spent


async def _memory(sessions: int) -> tuple[float, float]:
    """Bytes a session that the service and the broker hold: after the start, after renewals."""
    one = rig(sessions)
    gc.collect()
    tracemalloc.start()
    try:
        await one.service.start()
        await one.clock.advance(1.0)
        started = _held()
        await one.clock.advance(0.8 * HOUR)
        assert one.issuer.granted["refresh"] >= sessions
        renewed = _held()
    finally:
        tracemalloc.stop()
    await one.clock.run(one.service.stop())
    return started / sessions, renewed / sessions


def _held() -> int:
    """Bytes of living objects that the code of the hub and of the event loop made."""
    gc.collect()
    # Not core/ and the fakes: those make the tokens and the states.
    files = ("*/escape_hub/hub/*", "*/asyncio/*", "*/heapq.py")
    found = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, f) for f in files])
    return sum(trace.size for trace in found.traces)


def run() -> Section:
    """The table."""
    spent = asyncio.run(_cpu())
    memory = [asyncio.run(_memory(count)) for count in (FEW, MANY)]
    section = Section(f"The scheduler with {MANY:,} sessions", HOW, ratio_of=f"{FEW:,} sessions")
    share = {n: sample(spent[n], "% of a core", 100 / SLICE) for n in ("many", "few", "idle")}
    section.add(f"{FEW:,} sessions", share["few"], share["few"])
    section.add(f"{MANY:,} sessions", share["many"], share["few"])
    section.add(f"{MANY:,} sessions, none due", share["idle"], share["few"])
    each = [s / n for s, n in zip(spent["many"], spent["renewals"], strict=True)]
    section.add(f"{MANY:,} sessions: CPU", sample(each, "ms a renewal", 1000))
    for index, when in enumerate(("at the start", "after renewals")):
        few, many = (sample([found[index]], "KB a session", 1 / 1024) for found in memory)
        section.add(f"{FEW:,} sessions: memory {when}", few, few)
        section.add(f"{MANY:,} sessions: memory {when}", many, few)
    return section

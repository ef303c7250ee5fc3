"""(b) A hundred people whose tokens are over, and whose sessions all ask at once."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import httpx

from benchmarks.report import Sample, Section, sample
from benchmarks.stage import HubStage, Probe, Spent
from escape_hub.core.renewal import RenewalPolicy

TURNS = 5
#: For the note on many sessions; seconds until a token of an hour is renewed, on average.
SESSIONS = 10_000
MEAN_AGE = 3600 * (RenewalPolicy().due_earliest + RenewalPolicy().due_latest) / 2
HOW = """\
A real hub with its proxy and the development IAM, a process each, all on this machine.
{count} people are signed in and have a server running; the sessions ask for their tokens in the
same instant, each over its own connection. In turns: the hub idle for a second; everybody's
tokens are fresh, so that the hub only looks them up; everybody's access tokens are over, so that
every request waits for a refresh, two exchanges and userinfo ({calls} calls to the issuer). The
configured pace towards the issuer (5 calls a second unless set) is lifted here: it, and not the
hub, decides how long such a burst takes in operation. CPU is that of the hub's process, all its
threads, less what the health probe costs it when idle. A probe in its own process asks for
`/hub/health` every 50 ms."""


@dataclass
class Turn:
    """One burst: times of `time.monotonic`, what it cost, seconds each session waited."""

    begun: float
    ended: float
    spent: Spent
    waits: list[float]


async def _ask(client: httpx.AsyncClient, url: str, token: str) -> float:
    """Seconds until the session has living tokens; it asks again when told so, as agents do."""
    begun = time.monotonic()
    while True:
        reply = await client.get(url, headers={"Authorization": f"token {token}"})
        assert reply.status_code == 200, (reply.status_code, reply.text)
        told = reply.json()
        if all(one.get("expires_in", 0) > 600 for one in told["audiences"].values()):
            return time.monotonic() - begun
        await asyncio.sleep(told["next_poll"])


async def _burst(stage: HubStage, client: httpx.AsyncClient) -> Turn:
    before, begun = stage.spent(), time.monotonic()
    url = f"{stage.url}/api/escape/tokens"
    waits = await asyncio.gather(*(_ask(client, url, t) for t in stage.tokens.values()))
    ended = time.monotonic()
    return Turn(begun, ended, stage.spent().since(before), list(waits))


async def _idle(stage: HubStage) -> Turn:
    before, begun = stage.spent(), time.monotonic()
    await asyncio.sleep(1.0)
    ended = time.monotonic()
    return Turn(begun, ended, stage.spent().since(before), [])


async def _measure(stage: HubStage) -> dict[str, list[Turn]]:
    turns: dict[str, list[Turn]] = {"idle": [], "fresh": [], "over": []}
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    for turn in range(-1, TURNS):  # the first one warms everything up
        # New connections for each turn: a server closes those that idle.
        async with httpx.AsyncClient(timeout=60, limits=limits, trust_env=False) as client:
            found = {"idle": await _idle(stage), "fresh": await _burst(stage, client)}
            await asyncio.to_thread(stage.prepare, "age")
            stage.iam.reset_counters()
            found["over"] = await _burst(stage, client)
        _check(stage)
        if turn >= 0:
            for name, one in found.items():
                turns[name].append(one)
    return turns


def _check(stage: HubStage) -> None:
    """Every refresh token was spent once, and nothing was refused."""
    counted = stage.iam.counters()["users"]
    for user in stage.users:
        assert counted[user] == {"refresh_token": {"ok": 1}, "token-exchange": {"ok": 2}}, user


def run(stage: HubStage) -> Section:
    """The table: speed, CPU and health, with everything fresh and with everything over."""
    with Probe(stage.hub.hub_port) as probe:
        turns = asyncio.run(_measure(stage))
    people = len(stage.users)
    section = Section(
        f"{people} people with expired tokens at once",
        HOW.format(count=people, calls=4 * people),
        ratio_of="all fresh",
    )
    idle_share = [turn.spent.hub / (turn.ended - turn.begun) for turn in turns["idle"]]

    def rate(name: str) -> Sample:
        return sample((people / (t.ended - t.begun) for t in turns[name]), "users/s")

    def cpu(name: str) -> Sample:
        pairs = zip(turns[name], idle_share, strict=True)
        spent = (t.spent.hub - idle * (t.ended - t.begun) for t, idle in pairs)
        return sample(spent, "ms a user", 1000 / people)

    def wait(name: str) -> Sample:
        return sample((max(t.waits) for t in turns[name]), "ms", 1000)

    def health(name: str, share: float) -> Sample:
        looks = (probe.between(t.begun, t.ended) for t in turns[name])
        return sample((Sample(tuple(one)).percentile(share) for one in looks), "ms", 1000)

    shown = {"fresh": "all fresh", "over": "all over"}
    for what, measure in (("served", rate), ("hub CPU", cpu), ("longest wait", wait)):
        for name, words in shown.items():
            section.add(f"{words}: {what}", measure(name), measure("fresh"))
    over = [turn.spent for turn in turns["over"]]
    commits = sample((one.commits for one in over), "ms a user", 1000 / people)
    iam = sample((one.iam for one in over), "ms a user", 1000 / people)
    section.add("all over: the hub in commits (CPU and disk)", commits)
    section.add("all over: CPU of the development IAM", iam)
    for name, words in {"idle": "idle", **shown}.items():
        section.add(f"{words}: health, median of a turn", health(name, 0.5))
        section.add(f"{words}: health, slowest of a turn", health(name, 1.0))
    each = cpu("over").median
    section.notes.append(
        f"What that means for many sessions: {SESSIONS:,} with tokens of an hour are renewed "
        f"{SESSIONS / MEAN_AGE:.1f} times a second on average, which is "
        f"{SESSIONS / MEAN_AGE * each / 10:.0f} % of one core of the hub."
    )
    pace = RenewalPolicy()
    section.notes.append(
        f"With the configured pace as it is unless set ({pace.rate:g} calls a second after the "
        f"first {pace.burst:g}) this burst takes {(4 * people - pace.burst) / pace.rate:.0f} s, "
        "the most urgent first."
    )
    return section

"""(d) The token endpoint beside JupyterHub's own cheapest request with the same API token."""

from __future__ import annotations

import http.client
import time
from itertools import cycle

from benchmarks.report import Section, sample
from benchmarks.stage import HubStage

TURNS = 400
BLOCKS = 6
HOW = """\
The same hub, its sessions' tokens all fresh. One client, one connection, a request at a time:
`GET /hub/api/user`, then `GET /hub/api/escape/tokens` with the same server's API token, then the
next person's. The token endpoint does all the other one does (find the API token in the
database, its owner and its scopes), checks that the token is a running server's own, decrypts
what is stored, and answers with two access tokens. CPU is that of the hub's process, measured
over alternating blocks of {block} requests."""
PATHS = {"bare": "/hub/api/user", "tokens": "/hub/api/escape/tokens"}


class Client:
    """One connection to the hub."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def ask(self, path: str, token: str) -> float:
        """Seconds until the whole answer was there."""
        begun = time.perf_counter()
        self._connection.request("GET", path, headers={"Authorization": f"token {token}"})
        reply = self._connection.getresponse()
        body = reply.read()
        took = time.perf_counter() - begun
        assert reply.status == 200, (path, reply.status, body[:200])
        return took


def run(stage: HubStage) -> Section:
    """Latency one by one, CPU block by block."""
    client = Client(stage.hub.hub_port)
    tokens = cycle(stage.tokens.values())
    times: dict[str, list[float]] = {"bare": [], "tokens": []}
    for turn in range(-20, TURNS):
        token = next(tokens)
        for name, path in PATHS.items():
            took = client.ask(path, token)
            if turn >= 0:
                times[name].append(took)
    spent: dict[str, list[float]] = {"bare": [], "tokens": []}
    for _ in range(BLOCKS):
        for name, path in PATHS.items():
            before = stage.spent()
            for token in stage.tokens.values():
                client.ask(path, token)
            spent[name].append(stage.spent().since(before).hub / len(stage.tokens))
    section = Section(
        "The token endpoint",
        HOW.format(block=len(stage.tokens)),
        ratio_of="GET /hub/api/user",
    )
    bare, ours = (sample(times[name], scale=1000) for name in PATHS)
    section.add("GET /hub/api/user", bare, bare)
    section.add("GET /hub/api/escape/tokens", ours, bare)
    bare, ours = (sample(spent[name], "ms a request", 1000) for name in PATHS)
    section.add("GET /hub/api/user: hub CPU", bare, bare)
    section.add("GET /hub/api/escape/tokens: hub CPU", ours, bare)
    return section

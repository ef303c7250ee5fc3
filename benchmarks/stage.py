"""Real processes to measure: a development IAM, a distance, a hub with many sessions."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

from tests.harness.hub import CHECKOUT, Hub
from tests.harness.iam import Iam
from tests.harness.processes import Process, bare_environment, wait_for

EXTRA = """\
import sys
sys.path.insert(0, {checkout!r})
c.JupyterHub.log_level = "WARN"
c.Spawner.debug = False
c.JupyterHub.authenticator_class = "benchmarks.hub_side.BenchmarkAuthenticator"
c.JupyterHub.spawner_class = "benchmarks.hub_side.StubSpawner"
c.StubSpawner.stub_port = {stub_port}
c.StubSpawner.token_directory = {tokens!r}
c.Spawner.server_token_scopes = [
    "users:activity!user", "access:servers!server", "custom:escape:tokens!user"
]
c.JupyterHub.concurrent_spawn_limit = 0
c.JupyterHub.services = [{{"name": "benchmark", "api_token": {admin!r}}}]
c.JupyterHub.load_roles.append(
    {{"name": "benchmark", "scopes": ["admin:users", "admin:servers"], "services": ["benchmark"]}}
)
# The pace towards the issuer is a setting; here the hub's own speed is asked for.
c.EscapeAuthenticator.renewal_rate = 10_000.0
"""


def iam_in_memory(directory: Path, **config: Any) -> Iam:
    """The development IAM without its state file, which it would rewrite at each request."""
    iam = Iam(directory, **config)
    at = iam.process.command.index("--state")
    del iam.process.command[at : at + 2]
    return iam


def far_away(directory: Path, port: int, target: int, delay: float) -> Process:
    """A started relay: what comes in at ``port`` reaches ``target`` ``delay`` seconds later."""
    command = [sys.executable, "-m", "benchmarks.distance", "--port", str(port)]
    command += ["--to", str(target), "--delay", str(delay)]
    env = bare_environment() | {"PYTHONPATH": str(CHECKOUT)}
    process = Process("distance", command, directory=directory, env=env)
    process.start()
    process.wait_until("the distance to be there", lambda: "ready" in process.log_text, 20)
    return process


class _Answer(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"version": "6"}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@dataclass(frozen=True)
class Spent:
    """Seconds: processor time of the hub, its time in commits, processor time of the IAM."""

    hub: float
    commits: float
    iam: float

    def since(self, before: Spent) -> Spent:
        return Spent(self.hub - before.hub, self.commits - before.commits, self.iam - before.iam)


class HubStage:
    """A hub with ``count`` people signed in and a server of each running.

    ``tokens``: the API token of each one's server; ``url``: the hub's own address, which
    sessions use, without the proxy.
    """

    def __init__(self, directory: Path, count: int) -> None:
        self.users = [f"user{number:03}" for number in range(count)]
        self._admin = secrets.token_hex(24)
        self._token_directory = directory / "server-tokens"
        self._token_directory.mkdir(parents=True, mode=0o700)
        self._stub = ThreadingHTTPServer(("127.0.0.1", 0), _Answer)
        extra = EXTRA.format(
            checkout=str(CHECKOUT),
            stub_port=self._stub.server_port,
            tokens=str(self._token_directory),
            admin=self._admin,
        )
        self.hub = Hub(directory / "hub", extra=extra)
        self.iam = iam_in_memory(
            directory / "iam",
            redirect_uris=[self.hub.redirect_uri],
            users={name: {"password": name, "groups": ["escape"]} for name in self.users},
            refresh_rotation=True,
        )
        self.url = f"http://127.0.0.1:{self.hub.hub_port}/hub"
        self.tokens: dict[str, str] = {}
        self._cleanup = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            threading.Thread(target=self._stub.serve_forever, daemon=True).start()
            stack.callback(self._stub.server_close)
            stack.callback(self._stub.shutdown)
            stack.callback(self.iam.stop)
            self.iam.start()
            stack.callback(self.hub.stop)
            self.hub.start(self.iam)
            self._fill()
            self._cleanup = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._cleanup.close()

    def _fill(self) -> None:
        self.admin("POST", "users", {"usernames": self.users})
        self.prepare("sign_in")
        for name in self.users:
            self.admin("POST", f"users/{name}/server")
        wait_for("the servers to run", self._all_run, 120)
        self.tokens = {name: (self._token_directory / name).read_text() for name in self.users}

    def _all_run(self) -> bool:
        found = self.admin("GET", "users?state=ready&limit=1000")
        return len(found) == len(self.users)

    def admin(self, method: str, path: str, body: Any = None) -> Any:
        """A request of the benchmark to the hub's API."""
        answer = httpx.request(
            method,
            f"{self.url}/api/{path}",
            json=body,
            headers={"Authorization": f"token {self._admin}"},
            timeout=120,
        )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def prepare(self, action: str) -> None:
        """``sign_in`` everybody, or ``age`` everybody's tokens."""
        self.admin("POST", f"benchmark/{action}", {"users": self.users})

    def spent(self) -> Spent:
        """What has been spent so far."""
        told = self.admin("POST", "benchmark/spent")
        return Spent(told["cpu"], told["commits"], _cpu_of(self.iam.process.pid))


def _cpu_of(pid: int) -> float:
    """Processor seconds of another process (proc(5): utime and stime, in ticks)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class Probe:
    """``with Probe(port) as probe``; afterwards `between` gives latencies in seconds."""

    def __init__(self, port: int) -> None:
        command = [sys.executable, "-m", "benchmarks.probe", "--port", str(port)]
        self._process = subprocess.Popen(
            command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._seen: list[tuple[float, float]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        output, _ = self._process.communicate("")
        assert self._process.returncode == 0 or kind is not None, "the health probe failed"
        self._seen = [(float(at), float(took)) for at, took in map(str.split, output.splitlines())]

    def between(self, begun: float, ended: float) -> list[float]:
        """Latencies of the looks that were due between two times of `time.monotonic`."""
        return [took for at, took in self._seen if begun <= at < ended]

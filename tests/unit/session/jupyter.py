"""A real Jupyter server of alice's, as a process, for the session's extension to live in."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from escape_hub.core.session_plan import ENV
from tests.fakes.hub_api import FakeHub
from tests.unit.session.peers import make_plan

ROOT = str(Path(__file__).parents[3])
TOKEN = "server-token"


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@dataclass
class Server:
    """A running jupyter_server of alice's."""

    process: subprocess.Popen[bytes]
    url: str
    log: Path

    def ask(self, path: str, *, token: str = TOKEN, method: str = "GET") -> Any:
        headers = {"Authorization": f"token {token}"} if token else {}
        request = urllib.request.Request(self.url + path, headers=headers, method=method)  # noqa: S310
        with urllib.request.urlopen(request, timeout=10) as response:  # noqa: S310
            return json.load(response)

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(30)


@contextmanager
def serve(
    tmp_path: Path, env: dict[str, str], *more: str, module: str = "jupyter_server"
) -> Iterator[Server]:
    """Run ``python -m module`` with ``env`` until it answers, and kill it in the end."""
    port, log = free_port(), tmp_path / "server.log"
    command = [
        sys.executable, "-m", module, "--no-browser", "--allow-root",
        f"--ServerApp.port={port}", "--ServerApp.ip=127.0.0.1",
        "--ServerApp.base_url=/user/alice/", f"--IdentityProvider.token={TOKEN}",
        "--ServerApp.jpserver_extensions=escape_hub.session=True", *more,
    ]  # fmt: skip
    home = tmp_path / "home"
    home.mkdir()
    env = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": ROOT,
        "HOME": str(home),
        "JUPYTER_CONFIG_DIR": str(home),
        **env,
    }
    with log.open("wb") as out:
        with subprocess.Popen(command, env=env, cwd=home, stdout=out, stderr=out) as process:
            server = Server(process, f"http://127.0.0.1:{port}/user/alice", log)
            try:
                await_server(server)
                yield server
            finally:
                process.kill()


def await_server(server: Server) -> None:
    deadline = time.monotonic() + 40
    while True:
        try:
            server.ask("/api/status")
            return
        except (urllib.error.URLError, ConnectionError):
            assert server.process.poll() is None, server.log.read_text()
            assert time.monotonic() < deadline, server.log.read_text()
            time.sleep(0.05)


def environment(hub: FakeHub, path: Path) -> dict[str, str]:
    return {
        ENV: make_plan(path).to_json(),
        "JUPYTERHUB_API_URL": hub.url,
        "JUPYTERHUB_API_TOKEN": hub.api_token,
    }

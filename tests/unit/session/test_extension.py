"""The agent inside a real jupyter_server."""

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

import pytest

pytest.importorskip("jupyter_server")

from escape_hub.core.session_plan import ENV  # noqa: E402
from tests.fakes.hub_api import Behaviour, FakeHub  # noqa: E402
from tests.unit.session.peers import make_plan  # noqa: E402

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
def serve(tmp_path: Path, env: dict[str, str]) -> Iterator[Server]:
    port, log = free_port(), tmp_path / "server.log"
    command = [
        sys.executable, "-m", "jupyter_server", "--no-browser", "--allow-root",
        f"--ServerApp.port={port}", "--ServerApp.ip=127.0.0.1",
        "--ServerApp.base_url=/user/alice/", f"--IdentityProvider.token={TOKEN}",
        "--ServerApp.jpserver_extensions=escape_hub.session=True",
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


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    behaviour = Behaviour(audiences={"eos": "eos-eulake", "rucio": "rucio"})
    with FakeHub(behaviour, api_token="secret-hub-token") as running:
        yield running


def environment(hub: FakeHub, path: Path) -> dict[str, str]:
    return {
        ENV: make_plan(path).to_json(),
        "JUPYTERHUB_API_URL": hub.url,
        "JUPYTERHUB_API_TOKEN": hub.api_token,
    }


def test_a_session_has_its_files_before_it_answers_and_takes_them_with_it(
    hub: FakeHub, tmp_path: Path
) -> None:
    path = tmp_path / "t"
    with serve(tmp_path, environment(hub, path)) as server:
        assert {"eos.token", "rucio.token", "rucio.cfg", "status.json"} <= set(os.listdir(path))
        status = server.ask("/escape-hub/status")
        assert status == json.loads((path / "status.json").read_text())
        assert status["state"] == "fresh" and status["writer_pid"] == server.process.pid
        assert not [secret for secret in hub.issued if secret in json.dumps(status)]
        assert server.stop() == 0
        assert not path.exists()
        log = server.log.read_text()
    assert not [secret for secret in [*hub.issued, hub.api_token] if secret in log]


def test_a_session_without_the_hub_starts_says_late_to_its_user_alone_and_that_is_no_activity(
    hub: FakeHub, tmp_path: Path
) -> None:
    env = environment(hub, tmp_path / "t") | {"JUPYTERHUB_API_URL": "http://127.0.0.1:9/hub/api"}
    with serve(tmp_path, env) as server:
        before = server.ask("/api/status")["last_activity"]
        for method in ("GET", "POST"):
            status = server.ask("/escape-hub/status", method=method)
            assert (status["state"], status["reference"]) == ("late", "hub-unavailable")
            for token in ("", "wrong"):
                with pytest.raises(urllib.error.HTTPError) as caught:
                    server.ask("/escape-hub/status", token=token, method=method)
                caught.value.close()
                assert caught.value.code == 403
        assert server.ask("/api/status")["last_activity"] == before


@pytest.mark.parametrize(
    ("plan", "state"), [(None, None), ("{}", "refused")], ids=["no plan", "broken plan"]
)
def test_a_server_without_a_good_plan_works_and_is_not_active(
    hub: FakeHub, tmp_path: Path, plan: str | None, state: str | None
) -> None:
    env = environment(hub, tmp_path / "t") | {ENV: plan or ""}
    with serve(tmp_path, env) as server:
        assert server.ask("/escape-hub/status")["state"] == state
        assert "escape-hub is not active" in server.log.read_text()
        assert hub.requests == []

"""The agent inside a real jupyter_server."""

from __future__ import annotations

import json
import os
import urllib.error
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("jupyter_server")

from escape_hub.core.session_plan import ENV  # noqa: E402
from tests.fakes.hub_api import Behaviour, FakeHub  # noqa: E402
from tests.unit.session.jupyter import environment, serve  # noqa: E402


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    behaviour = Behaviour(audiences={"eos": "eos-eulake", "rucio": "rucio"})
    with FakeHub(behaviour, api_token="secret-hub-token") as running:
        yield running


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

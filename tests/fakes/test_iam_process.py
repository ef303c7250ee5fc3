"""The development IAM as a process: its start, its end, its state file."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from escape_hub.demo.iam.config import IamConfig, load_config, parse_config
from escape_hub.errors import SettingsError
from tests.fakes.iam_peer import Peer, callback, good, refusal

COMMAND = [sys.executable, "-m", "escape_hub.demo.iam"]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command, expected to end by itself."""
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_says_ready_answers_and_ends_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    with subprocess.Popen(
        [*COMMAND, "--port", "0", "--state", str(tmp_path / "state.json")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == "ready\n"
        banner = [process.stderr.readline() for _ in range(3)]
        assert "DEVELOPMENT ONLY" in banner[0]
        issuer = banner[2].split()[1]
        found = httpx.get(f"{issuer}.well-known/openid-configuration").json()
        assert found["issuer"] == issuer
        process.send_signal(number)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""


def test_a_taken_port_gets_one_clear_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = run("--port", str(port))
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and f"port {port}" in done.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.org", ""])  # noqa: S104
def test_it_refuses_to_listen_beyond_loopback(host: str) -> None:
    with pytest.raises(SettingsError, match="loopback"):
        IamConfig(host=host)


def test_the_command_refuses_another_host_with_one_line() -> None:
    done = run("--host", "0.0.0.0", "--port", "0")  # noqa: S104
    assert done.returncode == 1 and "loopback" in done.stderr and "Traceback" not in done.stderr


def test_a_bad_configuration_file_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "iam.json"
    path.write_text('{\n "port": 1,\n oops}')
    with pytest.raises(SettingsError, match=r"iam\.json, line 3"):
        load_config(path)
    path.write_text('{"prot": 1}')
    with pytest.raises(SettingsError, match="prot"):
        load_config(path)
    path.write_text('{"users": {"alice": {"passwort": "x"}}}')
    with pytest.raises(SettingsError, match="alice.*passwort"):
        load_config(path)
    with pytest.raises(SettingsError, match="No such file"):
        load_config(tmp_path / "none.json")


def test_the_one_client_can_be_configured_in_short() -> None:
    config = parse_config({"client_secret": "s", "redirect_uris": ["http://127.0.0.1:1/cb"]})
    client = config.clients["escape-hub"]
    assert client.secret == "s" and client.redirect_uris == ("http://127.0.0.1:1/cb",)
    with pytest.raises(SettingsError, match="clients"):
        parse_config({"client_secret": "s", "clients": {}})


def test_no_repr_shows_a_secret() -> None:
    text = repr(
        parse_config({"client_secret": "open-sesame", "users": {"a": {"password": "pw-1"}}})
    )
    assert "open-sesame" not in text and "pw-1" not in text


async def test_a_restart_finds_keys_logins_consents_and_refresh_tokens_again(
    tmp_path: Path,
) -> None:
    state = tmp_path / "state.json"
    switches = {"state_file": state, "consent": True, "refresh_rotation": True}
    async with Peer(**switches) as iam:
        code = callback(await iam.submit(await iam.sign_in(), decision="allow"))["code"]
        first = good(await iam.redeem(code))
        second = good(await iam.refresh(first["refresh_token"]))
        cookies, issuer = iam.http.cookies, iam.url
        keys = good(await iam.http.get("jwk"))
    async with Peer(issuer=issuer, **switches) as iam:
        assert good(await iam.http.get("jwk")) == keys
        assert await iam.active(second["access_token"])
        iam.http.cookies = cookies
        local = await iam.http.get("authorize", params=iam.query())
        assert callback(local)["code"]
        assert refusal(await iam.refresh(first["refresh_token"])) == (400, "invalid_grant")
        good(await iam.refresh(second["refresh_token"]))


async def test_the_state_file_is_private_and_holds_no_token(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    old = os.umask(0)
    try:
        async with Peer(state_file=state) as iam:
            await iam.login()
            issued = good(await iam.control("GET", "issued"))
    finally:
        os.umask(old)
    assert stat.S_IMODE(state.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["state.json"]
    text = state.read_text()
    assert json.loads(text)["keys"]
    assert not [s for kind in issued.values() for s in kind if s in text]


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 99}', '{"version": 1, "keys": 7}'])
def test_a_state_file_that_cannot_be_read_gets_one_clear_line(tmp_path: Path, text: str) -> None:
    state = tmp_path / "state.json"
    state.write_text(text)
    done = run("--port", "0", "--state", str(state))
    assert done.returncode == 1 and "state.json" in done.stderr
    assert "Traceback" not in done.stderr and state.read_text() == text

"""The main job as one story, told on every hub line: log in, spawn, look, renew, stop."""

from __future__ import annotations

import configparser
import stat
from pathlib import Path

from tests.harness import Hub, Iam, Person
from tests.harness.processes import wait_for
from tests.harness.session_view import SessionView, look


def assert_files_are_right(view: SessionView, iam: Iam) -> None:
    """Form, mode and owner of every file; the IAM itself judges the tokens."""
    assert view.directory["mode"] == "0o700"
    for name in ("eos.token", "rucio.token", "rucio.cfg", "status.json"):
        assert view.files[name]["mode"] == "0o600", name
        assert view.files[name]["uid"] == view.uid, name
    assert view.env["OAUTH2_TOKEN"] == f"FILE:{view.files['eos.token']['path']}"
    assert view.files["eos.token"]["text"].endswith(":iam.example.org/userinfo")
    assert "\n" not in view.files["eos.token"]["text"] + view.rucio_token
    for token, audience in ((view.eos_token, "eos-eulake"), (view.rucio_token, "rucio")):
        verdict = iam.introspect(token)
        assert verdict["active"] is True
        assert audience in verdict["aud"]
    assert not [name for name in view.env if name.startswith("BEARER")]


def assert_rucio_cfg_is_right(view: SessionView) -> None:
    cfg = configparser.ConfigParser()
    cfg.read_string(view.files["rucio.cfg"]["text"])
    client = dict(cfg["client"])
    assert client["auth_type"] == "oidc"
    assert client["auth_token_file_path"] == view.files["rucio.token"]["path"]
    assert client["oidc_audience"] == "rucio"
    assert client["account"] == "alice"
    assert view.env["RUCIO_CONFIG"] == view.files["rucio.cfg"]["path"]


def tell(hub: Hub, iam: Iam, alice: Person) -> None:
    """Log in, spawn, look at the files in a kernel, renew, look again, stop: nothing stays."""
    page = alice.login()
    assert page.status_code == 200, (page.url, page.text[:2000])
    assert str(page.url).startswith(hub.url)
    alice.spawn()
    kernel = alice.start_kernel()
    before = look(alice, kernel)
    assert_files_are_right(before, iam)
    assert_rucio_cfg_is_right(before)

    answer = alice.api("POST", "escape/renew")
    assert answer.status_code == 200, answer.text
    assert "token" not in answer.json()
    after = wait_for(
        "the session's files to hold the renewed tokens",
        lambda: changed(before, look(alice, kernel)),
        timeout=90,
        every=0.5,
    )
    assert_files_are_right(after, iam)
    assert after.env == before.env

    directory = Path(before.directory["path"])
    assert stat.S_ISDIR(directory.lstat().st_mode)
    alice.stop_server()
    left = sorted(p.name for p in directory.iterdir()) if directory.exists() else []
    assert not [name for name in left if name.endswith(".token")], left


def changed(before: SessionView, now: SessionView) -> SessionView | None:
    both = now.eos_token != before.eos_token and now.rucio_token != before.rucio_token
    return now if both else None

"""The tests that run a hub in their own process, on the older hub line too."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import websockets

pytestmark = pytest.mark.hub55

CHECKOUT = Path(__file__).resolve().parent.parent.parent
#: Where the two lines differ: handlers, refreshes, cookies, groups, roles, auth_state.
MODULES = [
    "test_authenticator_login.py",
    "test_authenticator_logout.py",
    "test_authenticator_logout_return.py",
    "test_authenticator_membership.py",
    "test_authenticator_refresh.py",
    "test_backchannel_logout.py",
    "test_foreign_auth_state.py",
    "test_handlers.py",
    "test_handlers_restart.py",
    "test_key_rotation.py",
]
#: Fewer would mean that some were not found.
TESTS = 200


def test_logins_logouts_renewals_and_rotations_work_on_the_older_hub_line(tmp_path: Path) -> None:
    python = f"{os.environ['ESCAPE_HUB_VENV55']}/bin/python"
    modules = [f"tests/unit/hub/{name}" for name in MODULES]
    command = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--basetemp={tmp_path}/t"]
    # The tests' own tools import it; the older line's environment has what a hub needs.
    (tmp_path / "websockets").symlink_to(Path(websockets.__file__).parent)
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    done = subprocess.run(
        [*command, *modules],
        cwd=CHECKOUT,
        env={**env, "PYTHONPATH": f"{CHECKOUT}:{tmp_path}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed
    assert int(passed[1]) >= TESTS, done.stdout[-500:]

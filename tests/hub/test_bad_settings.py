"""A configuration that cannot work ends the hub with one line that says what to change."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from tests.harness import Hub, Iam
from tests.harness.canaries import processes_of
from tests.harness.iam import CLIENT_SECRET
from tests.harness.processes import Process


@dataclass(frozen=True)
class Case:
    """``extra`` lines of ``jupyterhub_config.py``, and what the operator must read."""

    extra: str
    words: tuple[str, ...]
    without: tuple[str, ...] = ()
    """Names to leave out of the hub's environment."""
    files: dict[str, str] = field(default_factory=dict)


CASES = {
    "an EOS endpoint with a scheme": Case(
        "c.EscapeAuthenticator.audiences['eos']['endpoint'] = 'https://iam.example.org/userinfo'",
        ("audiences['eos']", "has a scheme", "as in 'iam.example.org/userinfo'"),
    ),
    "a name of SWAN's": Case(
        "c.KeyCloakAuthenticator.oidc_issuer = 'https://iam.example.org/'",
        ("c.KeyCloakAuthenticator", "c.EscapeAuthenticator", "oidc_issuer -> issuer"),
    ),
    "no key for what is stored": Case(
        "", ("JUPYTERHUB_CRYPT_KEY", "openssl rand -hex 32"), without=("JUPYTERHUB_CRYPT_KEY",)
    ),
    "a bad catalogue": Case(
        "c.EscapeSpawnerMixin.environments_file = 'environments.yaml'",
        ("environments.yaml:4:", "environments.a.nmae", "unknown"),
        files={"environments.yaml": "environments:\n  a:\n    name: A\n    nmae: A\n"},
    ),
}


@dataclass
class Attempt:
    """A start that must fail."""

    hub: Hub
    process: Process


@pytest.fixture(scope="module")
def attempts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Attempt]]:
    """All of them at once: most of a start is waiting for imports."""
    root = tmp_path_factory.mktemp("bad")
    iam = Iam(root / "iam", redirect_uris=[])  # not started: nothing here may need it
    found = {}
    for number, (name, case) in enumerate(CASES.items()):
        hub = Hub(root / f"hub{number}", extra=case.extra)
        for file, text in case.files.items():
            (hub.directory / file).write_text(text)
        hub.configure(iam)
        env = {k: v for k, v in hub.environment().items() if k not in case.without}
        command = [sys.executable, "-m", "jupyterhub", "-f", "jupyterhub_config.py"]
        process = Process("hub", command, directory=hub.directory, env=env)
        process.start()
        found[name] = Attempt(hub, process)
    yield found
    for attempt in found.values():
        attempt.process.stop(signal.SIGKILL)
        attempt.process.kill_group()


@pytest.mark.parametrize("name", CASES)
def test_the_hub_ends_with_one_clear_line(attempts: dict[str, Attempt], name: str) -> None:
    case, attempt = CASES[name], attempts[name]
    assert attempt.process.exit_code(60) == 1
    log = attempt.process.log_text
    lines = [line for line in log.splitlines() if not line.startswith("[D ")]
    complaints = [line for line in lines if line.startswith(("[C ", "[E "))]
    assert len(complaints) == 1, log
    assert lines[-1] == complaints[0], "the reason must be the last thing that is read"
    assert "The configuration cannot work:" in complaints[0]
    for word in case.words:
        assert word in complaints[0]
    assert "Traceback" not in log
    assert CLIENT_SECRET not in log
    assert attempt.hub.crypt_key not in log
    left = list(processes_of(str(attempt.hub.directory).encode()))
    assert left == [], "something was started for a hub that could not work"

"""A real hub with its real proxy, configured as operators do: by ``jupyterhub_config.py``."""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import httpx

from tests.harness.canaries import processes_of
from tests.harness.iam import CLIENT_SECRET
from tests.harness.processes import Process, bare_environment, free_port

CHECKOUT = Path(__file__).resolve().parent.parent.parent
FRAGMENTS = CHECKOUT / "hub_config/jupyterhub_config.d"

CONFIG = """\
from pathlib import Path
c = get_config()
for fragment in sorted(Path({fragments!r}).glob("*.py")):
    load_subconfig(str(fragment))
c.JupyterHub.bind_url = "http://127.0.0.1:{port}/"
c.JupyterHub.hub_bind_url = "http://127.0.0.1:{hub_port}"
c.ConfigurableHTTPProxy.api_url = "http://127.0.0.1:{proxy_port}"
c.ConfigurableHTTPProxy.command = [{proxy!r}]
c.JupyterHub.spawner_class = "escape-simple"
c.JupyterHub.log_level = "DEBUG"
c.Spawner.debug = True
c.Spawner.http_timeout = 60
c.Spawner.args = ["--allow-root"]
c.SimpleLocalProcessSpawner.home_dir_template = {homes!r}
c.EscapeSpawnerMixin.token_dir = {token_dirs!r}
c.EscapeAuthenticator.issuer = {issuer!r}
c.EscapeAuthenticator.client_id = {client_id!r}
c.EscapeAuthenticator.audiences = {audiences!r}
c.EscapeSpawnerMixin.rucio_host = "https://rucio.example.org"
c.EscapeSpawnerMixin.rucio_auth_host = "https://rucio-auth.example.org"
c.EscapeAuthenticator.allowed_groups = {{"escape"}}
c.EscapeAuthenticator.oauth_callback_url = "http://127.0.0.1:{port}/hub/oauth_callback"
{extra}
"""

AUDIENCES = {
    "eos": {
        "audience": "eos-eulake",
        "scope": "openid profile",
        "file": "eos.token",
        "format": "eos",
        "label": "EOS storage",
        "endpoint": "iam.example.org/userinfo",
    },
    "rucio": {
        "audience": "rucio",
        "scope": "openid profile",
        "file": "rucio.token",
        "label": "Rucio catalogue",
    },
}


class Provider(Protocol):
    """An issuer at which the hub is registered: the development IAM, or one that others wrote."""

    issuer: str
    client_id: str
    client_secret: str


class Hub:
    """A hub process. ``extra`` is appended to its ``jupyterhub_config.py``.

    ``audiences``: those of the development IAM unless a provider needs others.
    ``python`` chooses the hub line (the older one has an environment of its own);
    ``wrapper`` is a command that runs the hub in surroundings of its own; ``port`` is
    the public one, any that is free by default.
    Ports stay the same over `kill` and `start`, as they do for an operator.
    """

    def __init__(
        self,
        directory: Path,
        *,
        extra: str = "",
        audiences: dict[str, dict[str, Any]] = AUDIENCES,
        python: str = sys.executable,
        wrapper: Sequence[str] = (),
        port: int = 0,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory, self.extra, self.python = directory, extra, python
        self.audiences = audiences
        self.client_secret = CLIENT_SECRET
        self.wrapper = list(wrapper)
        self.port = port or free_port()
        self.hub_port, self.proxy_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}/"
        self.redirect_uri = f"{self.url}hub/oauth_callback"
        self.token_root = directory / "tokens"
        self.crypt_key = secrets.token_hex(32)
        #: More of the hub's own environment, such as ``KUBECONFIG``.
        self.more_environment: dict[str, str] = {}
        self.process: Process | None = None

    def configure(self, iam: Provider) -> None:
        """Write ``jupyterhub_config.py``; called by `start`, again after a change."""
        self.client_secret = iam.client_secret
        proxy = Path(sys.executable).parent / "configurable-http-proxy"
        homes = str(self.directory / "homes/{username}")
        text = CONFIG.format(
            fragments=str(FRAGMENTS),
            port=self.port,
            hub_port=self.hub_port,
            proxy_port=self.proxy_port,
            proxy=str(proxy),
            homes=homes,
            token_dirs=f"{self.token_root}/{{session}}",
            issuer=iam.issuer,
            client_id=iam.client_id,
            audiences=self.audiences,
            extra=self.extra,
        )
        (self.directory / "jupyterhub_config.py").write_text(text)

    def environment(self) -> dict[str, str]:
        venv_bin = str(Path(self.python).parent)
        env = bare_environment()
        return env | {
            "PATH": f"{venv_bin}:{env['PATH']}",
            "JUPYTERHUB_CRYPT_KEY": self.crypt_key,
            "ESCAPE_HUB_CLIENT_SECRET": self.client_secret,
            **self.more_environment,
        }

    def start(
        self,
        iam: Provider,
        *,
        timeout: float = 90,
        before_wait: Callable[[int], None] = lambda _pid: None,
    ) -> Hub:
        (self.directory / "homes").mkdir(exist_ok=True)
        self.token_root.mkdir(mode=0o755, exist_ok=True)
        self.configure(iam)
        command = [*self.wrapper, self.python, "-m", "jupyterhub", "-f", "jupyterhub_config.py"]
        self.process = Process("hub", command, directory=self.directory, env=self.environment())
        self.process.start()
        before_wait(self.process.pid)
        self.process.wait_until("the hub to answer", self.answers, timeout)
        return self

    def answers(self) -> bool:
        """Whether the public address leads to the hub."""
        try:
            return httpx.get(f"{self.url}hub/health").status_code == 200
        except httpx.TransportError:
            return False

    @property
    def log_text(self) -> str:
        assert self.process is not None
        return self.process.log_text

    def metrics(self) -> str:
        return httpx.get(f"{self.url}hub/metrics").text

    def stop(self) -> None:
        if self.process is not None:
            self.process.stop(signal.SIGTERM)
            self.process.kill_group()

    def end_with_sessions(self) -> None:
        """Sessions outlive their hub, as an operator wants it; they must not outlive a test."""
        self.stop()
        for pid, _environ, _command in processes_of(str(self.directory).encode()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def kill(self) -> None:
        """``kill -9`` of the hub alone: proxy and sessions live on."""
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.exit_code(10)

"""Start the development hub, wait until it really answers, and say where it is.

The hub itself (``jupyterhub_config.py``) starts the development IAM as a managed
service, so ``jupyterhub -f jupyterhub_config.py`` alone runs the same demo.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

from escape_hub.demo.state import demo_secrets, state_directory
from escape_hub.errors import SettingsError

CONFIG = Path(__file__).resolve().parents[2] / "jupyterhub_config.py"
READY_TIMEOUT = 120.0
#: Address, setting: what the demo listens on. Read by ``jupyterhub_config.py`` as well.
PORTS = {
    "ESCAPE_HUB_DEMO_PORT": 8000,
    "ESCAPE_HUB_DEMO_HUB_PORT": 8081,
    "ESCAPE_HUB_DEMO_PROXY_PORT": 8001,
    "ESCAPE_HUB_DEMO_IAM_PORT": 8090,
}


def port(setting: str) -> int:
    """The port of ``setting``: from the environment, or the default."""
    raw = os.environ.get(setting, str(PORTS[setting]))
    if not raw.isdigit() or not 0 < int(raw) < 65536:
        raise SettingsError(f"{setting} must be a port number, not {raw!r}")
    return int(raw)


def check_ports() -> None:
    """Refuse a port that somebody else listens on, naming the setting that moves us."""
    for setting in PORTS:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port(setting)))
            except OSError:
                raise SettingsError(
                    f"port {port(setting)} is taken (another demo?): "
                    f"stop that program, or set {setting} to a free port"
                ) from None


def check_tools() -> None:
    """The proxy and the notebook must be there before anything starts."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
    for tool in ("configurable-http-proxy", "jupyterhub-singleuser", "jupyter-lab"):
        if not shutil.which(tool):
            raise SettingsError(f"{tool} is missing: run 'make demo', which sets it up")
    if not CONFIG.exists():
        raise SettingsError(f"{CONFIG} is missing: run the demo from a checkout")


def answers(url: str) -> bool:
    """Whether ``url`` answers 200 on loopback, no proxy in between."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def wait_until_ready(hub: subprocess.Popen[bytes], log: Path) -> None:
    """Until hub and IAM answer; `SettingsError` when the hub ends or takes too long."""
    urls = [
        f"http://127.0.0.1:{port('ESCAPE_HUB_DEMO_PORT')}/hub/health",
        f"http://127.0.0.1:{port('ESCAPE_HUB_DEMO_IAM_PORT')}/.well-known/openid-configuration",
    ]
    deadline = time.monotonic() + READY_TIMEOUT
    while not all(answers(url) for url in urls):
        if hub.poll() is not None:
            last = log.read_text(errors="replace").strip().splitlines()[-5:]
            raise SettingsError("the hub did not start; its last lines:\n  " + "\n  ".join(last))
        if time.monotonic() > deadline:
            raise SettingsError(f"the hub does not answer after {READY_TIMEOUT:.0f} s: see {log}")
        time.sleep(0.2)


WELCOME = """
  The data lake hub is ready:   http://127.0.0.1:{port}/

  Sign in as  alice  (password: alice)   groups escape, escape/cms
         or   bob    (password: bob)     group  escape

  The identity service is a development one, and no EOS and no Rucio server
  stand behind it: the sessions' files are real, the lake is not.
  One system user runs all sessions here: they are not protected from each other.

  Log: {log}      Ctrl-C stops everything; the next start finds this state again.
"""


def run() -> int:
    check_tools()
    check_ports()
    directory = state_directory()
    demo_secrets(directory)
    log = directory / "hub.log"
    print("Starting the hub, its proxy and the development IAM ...", flush=True)
    with log.open("wb") as out:
        hub = subprocess.Popen(  # noqa: S603 - our own interpreter and file
            [sys.executable, "-m", "jupyterhub", "-f", str(CONFIG)],
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        wait_until_ready(hub, log)
        print(WELCOME.format(port=port("ESCAPE_HUB_DEMO_PORT"), log=log), flush=True)
        return hub.wait()
    except KeyboardInterrupt:
        print("\nStopping ...", flush=True)
        return 0
    finally:
        stop(hub)


def _interrupt(_signum: int, _frame: object) -> None:
    raise KeyboardInterrupt


def stop(hub: subprocess.Popen[bytes]) -> None:
    """Stop the hub, which stops its sessions, proxy and IAM; no process is left behind."""
    if hub.poll() is None:
        hub.send_signal(signal.SIGINT)
        try:
            hub.wait(45)
        except subprocess.TimeoutExpired:
            print("the hub takes too long to stop: killing it", file=sys.stderr)
    try:
        os.killpg(hub.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def main() -> int:
    """Exit code 0 after Ctrl-C, 1 with one clear line when the demo cannot start."""
    try:
        return run()
    except SettingsError as error:
        print(f"demo: {error.message}", file=sys.stderr)
        return 1

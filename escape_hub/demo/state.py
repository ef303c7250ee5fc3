"""What the demo keeps between two starts, and its two keys.

Everything lives in one directory (``$ESCAPE_HUB_DEMO_STATE``, by default
``~/.local/state/escape-hub-demo``), 0700: the hub's database, the development
IAM's keys and sessions, the users' homes, and ``secrets.json``.
"""

from __future__ import annotations

import json
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from escape_hub.errors import SettingsError

STATE_ENV = "ESCAPE_HUB_DEMO_STATE"


@dataclass(frozen=True, slots=True)
class DemoSecrets:
    """The hub's encryption key (64 hex digits) and the demo client's secret."""

    crypt_key: str = field(repr=False)
    client_secret: str = field(repr=False)


def state_directory() -> Path:
    """The demo's directory, made 0700 when missing."""
    base = os.environ.get("XDG_STATE_HOME") or str(Path.home() / ".local/state")
    directory = Path(os.environ.get(STATE_ENV) or f"{base}/escape-hub-demo")
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"the demo cannot keep its state in {directory} ({error.strerror}): "
            f"set {STATE_ENV} to a directory of yours"
        ) from None
    return directory


def demo_secrets(directory: Path) -> DemoSecrets:
    """Read the demo's secrets, or make them at the first start (0600)."""
    path = directory / "secrets.json"
    try:
        raw = json.loads(path.read_text())
        return DemoSecrets(raw["crypt_key"], raw["client_secret"])
    except FileNotFoundError:
        return _new_secrets(path)
    except (ValueError, KeyError, TypeError):
        raise SettingsError(
            f"{path} is damaged: remove {directory} to start the demo afresh"
        ) from None


def _new_secrets(path: Path) -> DemoSecrets:
    made = DemoSecrets(secrets.token_hex(32), secrets.token_urlsafe(24))
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(fd, "w") as file:
        json.dump({"crypt_key": made.crypt_key, "client_secret": made.client_secret}, file)
    return made

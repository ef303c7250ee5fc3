"""The development IAM as a process, with its control interface."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import httpx

from tests.harness.processes import Process, bare_environment, free_port

CLIENT_SECRET = "demo-secret-not-for-production"


class Iam:
    """A running development IAM. ``faults(...)`` switches faults, ``counters()`` counts grants."""

    client_id = "escape-hub"
    client_secret = CLIENT_SECRET

    def __init__(self, directory: Path, *, redirect_uris: list[str], **config: Any) -> None:
        self.port = free_port()
        self.issuer = f"http://127.0.0.1:{self.port}/"
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        path = directory / "iam.json"
        path.write_text(
            json.dumps({"client_secret": CLIENT_SECRET, "redirect_uris": redirect_uris, **config})
        )
        command = [sys.executable, "-m", "escape_hub.demo.iam", "--port", str(self.port)]
        command += ["--config", str(path), "--state", str(directory / "iam-state.json")]
        self.process = Process("iam", command, directory=directory, env=bare_environment())

    def start(self) -> Iam:
        self.process.start()
        self.process.wait_until("the IAM to answer", self._answers, 20)
        return self

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.issuer}.well-known/openid-configuration").status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        self.process.stop()

    def _control(self, method: str, path: str, body: Any = None) -> Any:
        answer = httpx.request(
            method, f"{self.issuer}dev/{path}", json=body, headers={"X-Dev-Control": "1"}
        )
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def faults(self, **faults: Any) -> None:
        """Switch the named faults on; all others are switched off."""
        self._control("PUT", "faults", faults)

    def counters(self) -> dict[str, Any]:
        found: dict[str, Any] = self._control("GET", "counters")
        return found

    def reset_counters(self) -> None:
        self._control("POST", "counters/reset")

    def issued(self) -> Any:
        return self._control("GET", "issued")

    def rotate_keys(self, *, keep_old: bool = True) -> None:
        self._control("POST", "rotate_keys", {"keep_old": keep_old})

    def backchannel_logout(self, user: str, *hostile: str, times: int = 1) -> list[dict[str, Any]]:
        """Send a logout_token of the user's newest session, ``times`` times; the answers."""
        body = {"user": user, "hostile": list(hostile), "times": times}
        found: list[dict[str, Any]] = self._control("POST", "backchannel_logout", body)["told"]
        return found

    def revoke_user(self, user: str) -> None:
        self._control("POST", "revoke_user", {"user": user})

    def introspect(self, token: str) -> dict[str, Any]:
        """RFC 7662, as the hub's own client."""
        answer = httpx.post(
            f"{self.issuer}introspect", data={"token": token}, auth=("escape-hub", CLIENT_SECRET)
        )
        answer.raise_for_status()
        return dict(answer.json())

"""Somebody at work: signed in, a session that runs, something in a kernel worth keeping."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.harness import Person
from tests.harness.processes import wait_for
from tests.harness.session_view import SessionView, look
from tests.harness.stage import Stage


@dataclass
class AtWork:
    """``person`` with ``kernel`` in a running session. ``witness`` must outlive everything."""

    stage: Stage
    person: Person
    kernel: str

    @classmethod
    def begin(cls, stage: Stage, name: str = "alice") -> AtWork:
        person = Person(stage.hub.url, name)
        person.login()
        person.spawn()
        kernel = person.start_kernel()
        person.run(kernel, "witness = 'still here'")
        return cls(stage, person, kernel)

    def close(self) -> None:
        self.person.close()

    # -- in the session -----------------------------------------------------------

    def look(self) -> SessionView:
        return look(self.person, self.kernel)

    def wait_until(
        self, what: str, check: Callable[[SessionView], bool], timeout: float = 30
    ) -> SessionView:
        """The first look at the session's files that satisfies ``check``."""

        def found() -> SessionView | None:
            view = self.look()
            return view if check(view) else None

        return wait_for(what, found, timeout, every=0.3)  # type: ignore[return-value]

    def assert_kernel_lives(self) -> None:
        assert self.person.run(self.kernel, "print(witness)") == "still here\n"

    @property
    def server_token(self) -> str:
        """The server's own API token, as the agent has it."""
        return self.look().env["JUPYTERHUB_API_TOKEN"]

    def poke(self) -> None:
        """What the status item of an open JupyterLab does: have the hub asked soon."""
        self.person.lab_api("POST", "escape-hub/status").raise_for_status()

    # -- at the hub ---------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """How the hub says the access stands."""
        answer = self.person.api("GET", "escape/status")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def renew_now(self) -> dict[str, Any]:
        """The button; may be pressed three times, and then every ten seconds."""
        answer = self.person.api("POST", "escape/renew")
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def page(self, path: str = "hub/home") -> str:
        """A page that must be there: no login page instead, no error."""
        answer = self.person.client.get(f"{self.stage.hub.url}{path}", follow_redirects=False)
        assert answer.status_code == 200, (path, answer.status_code, answer.headers)
        return answer.text


def token_files(view: SessionView) -> set[str]:
    return {name for name in view.files if name.endswith(".token")}

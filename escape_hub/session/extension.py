"""The agent inside jupyter_server, and the status that JupyterLab shows.

Loaded by ``jupyter_server_config.d/escape_hub.json``. Loading is synchronous and
ends before the server answers, so the first files exist before any kernel.
"""

from __future__ import annotations

import atexit
import os
from typing import Any

from jupyter_server.base.handlers import APIHandler
from jupyter_server.extension.application import ExtensionApp
from tornado import web

from escape_hub.core.session_plan import ENV
from escape_hub.core.status import State
from escape_hub.errors import SettingsError
from escape_hub.session.agent import Agent
from escape_hub.session.bootstrap import first_files, make_agent, plan_from_environment
from escape_hub.session.status_file import SessionStatus


class StatusHandler(APIHandler):
    """``GET`` gives ``status.json``'s values, ``POST`` also asks the hub at once.

    A status holds no token, so whoever may use the server may see it. Neither
    counts as the user's activity, or an open tab would keep an idle server alive.
    """

    _track_activity = False

    def initialize(self, extension: SessionExtension) -> None:
        """``extension`` holds the agent."""
        self._extension = extension

    @web.authenticated
    async def get(self) -> None:
        """The status; ``state`` is null in a server that is not one of the hub's sessions."""
        self.set_header("Cache-Control", "no-store")
        self.finish(self._extension.status())

    @web.authenticated
    async def post(self) -> None:
        """The status as it is; the next one will be newer."""
        if self._extension.agent is not None:
            self._extension.agent.poke()
        self.finish(self._extension.status())


class SessionExtension(ExtensionApp):
    """Keeps the session's token files while the server runs."""

    name = "escape-hub"
    agent: Agent | None = None
    problem: SettingsError | None = None

    def initialize_handlers(self) -> None:
        """Add the status, then get the first files: jupyter_server calls this once, at load."""
        self.handlers.append((r"/escape-hub/status", StatusHandler, {"extension": self}))
        self._begin()

    def _begin(self) -> None:
        try:
            plan = plan_from_environment(os.environ)
            if plan is None:
                self.log.info("escape-hub is not active: %s is not set", ENV)
                return
            self.agent = make_agent(plan, os.environ, logger=self.log)
        except SettingsError as error:
            self.problem = error
            self.log.error("escape-hub is not active [%s]: %s", error.code, error.message)
            return
        atexit.register(self._end)
        state = first_files(self.agent)
        self.log.info("data lake: %s (%s)", state, self.agent.status.message)
        self.agent.start()

    def _end(self) -> None:
        atexit.unregister(self._end)
        if self.agent is not None:
            self.agent.stop()

    async def stop_extension(self) -> None:
        """Remove the files; jupyter_server calls this when it shuts down."""
        # Blocks for seconds at the most, and nothing else is left to do in this loop.
        self._end()

    def status(self) -> dict[str, Any]:
        """The values of ``status.json``."""
        if self.agent is not None:
            return self.agent.status.to_dict()
        if self.problem is not None:
            broken = SessionStatus(
                state=State.REFUSED, message=self.problem.message, reference=self.problem.code
            )
            return broken.to_dict()
        return {**SessionStatus().to_dict(), "state": None}

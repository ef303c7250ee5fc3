"""The local spawners, with what a session of the data lake needs.

The token directory is made and written by the session's own process, as its own
user: the hub writes nothing into a place that a user owns.
"""

from __future__ import annotations

from pathlib import Path

from jupyterhub.spawner import LocalProcessSpawner, SimpleLocalProcessSpawner

from escape_hub.core.environments import Selection
from escape_hub.hub.spawning import EscapeSpawnerMixin


class _LocalEnvironments(EscapeSpawnerMixin):
    """Starts what an environment says under ``local``."""

    def apply_selection(self, selection: Selection) -> None:
        """Command, arguments, variables and directory of the environment.

        ``cpu`` and ``memory`` are told to the session and not enforced: JupyterHub's
        local spawners cannot.
        """
        super().apply_selection(selection)
        local = selection.local
        if local.cmd:
            self.cmd = list(local.cmd)
        if local.args:
            self.args = [*self.args, *local.args]
        if local.env:
            self.environment = {**self.environment, **local.env}
        if local.notebook_dir:
            self.notebook_dir = local.notebook_dir
        if local.default_url:
            self.default_url = local.default_url


class EscapeLocalProcessSpawner(_LocalEnvironments, LocalProcessSpawner):
    """Sessions as processes of the machine's own users; the hub runs as root.

    One Unix user per hub user, so a session is refused another's files.
    """


class EscapeSimpleLocalProcessSpawner(_LocalEnvironments, SimpleLocalProcessSpawner):
    """Sessions as processes of the hub's own user, for a demo or for one person.

    All sessions have one uid, so they can read each other's files, tokens included:
    this isolates nobody.
    """

    async def run_pre_spawn_hook(self) -> None:
        """Make the home directory, 0700: upstream would make it readable for everybody."""
        await super().run_pre_spawn_hook()
        self._make_home()

    def _make_home(self) -> None:
        Path(self.home_dir).mkdir(mode=0o700, parents=True, exist_ok=True)

"""``python -m escape_hub.hub.rekey -f jupyterhub_config.py``: all sign-ins under the first key.

For an operator who rotates ``JUPYTERHUB_CRYPT_KEY``; docs/operations/key-rotation.md is
the procedure. Runs beside the hub. Exit status 0: keys after the first are needed no more.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from jupyterhub import crypto
from jupyterhub.app import JupyterHub, common_aliases
from traitlets import Bool
from traitlets.config import Application

from escape_hub.errors import SettingsError
from escape_hub.hub.crypt_keys import Outcome, rekey


class Rekey(Application):
    """The command; it reads the hub's configuration as ``jupyterhub upgrade-db`` does."""

    name = "python -m escape_hub.hub.rekey"
    description = "Encrypt every stored sign-in with the first key of JUPYTERHUB_CRYPT_KEY."
    aliases = common_aliases
    flags = {"dry-run": ({"Rekey": {"dry_run": True}}, "Change nothing, only count.")}
    dry_run = Bool(False, config=True, help="Change nothing, only count.")

    def start(self) -> int:
        """The exit status."""
        hub = JupyterHub(parent=self)
        hub.load_config_file(hub.config_file)
        hub.update_config(self.cli_config)  # the command line wins over the file
        try:
            engine = _engine(hub)
            try:
                found = rekey(engine, _keys(hub), dry_run=self.dry_run)
            finally:
                engine.dispose()
        except (SettingsError, sa.exc.SQLAlchemyError) as error:
            # A driver's own text may hold the statement's values, ciphertexts here.
            why = error.message if isinstance(error, SettingsError) else type(error).__name__
            print(f"rekey: {why}", file=sys.stderr)
            return 2
        print(words(found, dry_run=self.dry_run))
        return 1 if found.unreadable or (self.dry_run and found.rewritten) else 0


def words(found: Outcome, *, dry_run: bool) -> str:
    """What an operator reads."""
    did = "still to be written" if dry_run else "written"
    total = found.rewritten + found.already + len(found.unreadable)
    lines = [
        f"{total} stored sign-ins: {found.rewritten} {did} under the first key, "
        f"{found.already} were before, {len(found.unreadable)} unreadable"
    ]
    if found.unreadable:
        lines.append(
            "No key here decrypts those of the following users. If JUPYTERHUB_CRYPT_KEY lacks an "
            "old key, add it and run this again; otherwise they sign in again: "
            + ", ".join(sorted(found.unreadable))
        )
    elif not (dry_run and found.rewritten):
        lines.append("The first key alone is enough now: take the others out, restart the hub.")
    return "\n".join(lines)


def _engine(hub: Any) -> sa.Engine:
    url = sa.make_url(hub.db_url)
    is_file = url.get_backend_name() == "sqlite" and url.database not in (None, "", ":memory:")
    if is_file and not Path(str(url.database)).exists():
        raise SettingsError(f"there is no database {url.database!r}: check JupyterHub.db_url")
    return sa.create_engine(url, **hub.db_kwargs)


def _keys(hub: Any) -> list[bytes]:
    try:
        return list(crypto.CryptKeeper(config=hub.config).keys)
    except ValueError as error:
        raise SettingsError(f"{crypto.KEY_ENV}: {error}") from None


def main(arguments: list[str] | None = None) -> int:
    """Run the command."""
    application = Rekey()
    application.initialize(arguments)
    return int(application.start())


if __name__ == "__main__":
    sys.exit(main())

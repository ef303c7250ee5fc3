"""The settings of `EscapeSpawnerMixin`, with the text an operator reads about each.

They are set on the mixin for every spawner (``c.EscapeSpawnerMixin.token_dir``),
or on one spawner class.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

from traitlets import Callable, Float, HasTraits, Unicode, Union, default

from escape_hub.core.session_names import session_directory
from escape_hub.errors import SettingsError
from escape_hub.hub.catalogue import cached_catalogue

#: Where Linux keeps a memory-backed file system that every user can write to.
_MEMORY = "/dev/shm"  # noqa: S108 (each session makes a directory of its own there, 0700)


class SpawnerTraits(HasTraits):
    """Traits only; what they do is in `EscapeSpawnerMixin`."""

    environments_file = Unicode(
        config=True,
        help="""
        YAML file with the catalogue of environments that people choose from. It is
        read once, when the hub starts: a fault stops the hub with file, line and
        reason, and a change needs a restart. Relative to where the hub was started.
        Empty: no choice, the spawner's own settings are started. Replaces
        `options_form`, `options_from_form` and (KubeSpawner) `profile_list`.

        .. versionadded:: 0.1
        """,
    )
    token_dir = Unicode(
        config=True,
        help="""
        Directory of a session's token files, made by the session itself with mode
        0700. An absolute path with `{session}` (user and server), `{username}` or
        `{servername}`, in which anything but letters, digits and `-` is replaced. A
        directory that belongs to another user is refused. Without `{session}` the
        servers of one user share the directory, and one of them keeps it fresh.

        The default is `/dev/shm/escape-hub.{session}` where that is in memory,
        else `/tmp/escape-hub.{session}`.

        .. versionadded:: 0.1
        """,
    )
    rucio_host = Unicode(
        config=True,
        help="""
        Address of the Rucio server, as in `https://escape-rucio.cern.ch`, for the
        `rucio.cfg` that each session gets. Empty: no `rucio.cfg`.

        .. versionadded:: 0.1
        """,
    )
    rucio_auth_host = Unicode(
        config=True,
        help="""
        Address of Rucio's authentication server. Empty: the same as `rucio_host`.

        .. versionadded:: 0.1
        """,
    )
    rucio_ca_cert = Unicode(
        config=True,
        help="""
        Path, as the session sees it, of the certificates that Rucio's client trusts.
        Empty: the client's own default.

        .. versionadded:: 0.1
        """,
    )
    rucio_vo = Unicode(
        config=True,
        help="""
        Virtual organisation of a multi-VO Rucio server. Empty: none.

        .. versionadded:: 0.1
        """,
    )
    rucio_account = Union(
        [Unicode(), Callable()],
        default_value="{preferred_username}",
        config=True,
        help="""
        The person's Rucio account: a text with names of claims in braces, or a callable
        that is given the claims (a dict) and returns the account. A claim that is
        missing stops the start with a message.

        .. versionadded:: 0.1
        """,
    )
    rucio_audience = Unicode(
        "rucio",
        config=True,
        help="""
        Which of `EscapeAuthenticator.audiences` Rucio's client uses: its name there.

        .. versionadded:: 0.1
        """,
    )
    min_valid_period = Float(
        60.0,
        min=0,
        config=True,
        help="""
        Seconds for which tokens should still be valid when a session starts; older ones
        are renewed first.

        .. versionadded:: 0.1
        """,
    )
    issuer_patience = Float(
        10.0,
        min=0,
        config=True,
        help="""
        Seconds that a start waits for the IAM when tokens must be renewed first. After that
        the session starts with what there is, and the rest follows by itself.

        .. versionadded:: 0.1
        """,
    )

    @default("token_dir")
    def _default_token_dir(self) -> str:
        return default_token_dir()


def default_token_dir() -> str:
    """In memory where this machine has such a place: a token never reaches a disk there."""
    parent = _MEMORY if os.path.ismount(_MEMORY) else "/tmp"  # noqa: S108 (see above)
    return f"{parent}/escape-hub.{{session}}"


def check_at_start(app: Any, audiences: Sequence[str]) -> None:
    """Check what can be checked before anybody signs in; `SettingsError` names the setting.

    ``audiences`` are the configured names. No spawner exists yet, so the configured
    values are looked up for the hub's spawner class.
    """
    spawner = app.spawner_class
    if not issubclass(spawner, SpawnerTraits):
        app.log.warning(
            "JupyterHub.spawner_class is %s, which gives sessions no access to the data lake: use "
            "escape-local, or put escape_hub.hub.spawning.EscapeSpawnerMixin before it",
            spawner.__name__,
        )
        return
    if environments := _configured(app, "environments_file"):
        cached_catalogue(environments)
    session_directory(_configured(app, "token_dir") or default_token_dir(), "somebody", "")
    audience = _configured(app, "rucio_audience")
    if _configured(app, "rucio_host") and audience not in audiences:
        raise SettingsError(
            f"EscapeSpawnerMixin.rucio_audience is {audience!r}, which is none of "
            f"EscapeAuthenticator.audiences {list(audiences)}"
        )
    if check := getattr(spawner, "check_kubernetes_settings", None):
        check(partial(_configured, app))


def _configured(app: Any, name: str) -> Any:
    """The value of ``name`` for the hub's spawner class; the nearest class's section wins."""
    spawner = app.spawner_class
    for section in reversed(spawner.section_names()):
        if name in app.config.get(section, {}):
            return app.config[section][name]
    return spawner.class_traits()[name].default()

"""The settings of `EscapeSpawnerMixin`, with the text an operator reads about each.

They are set on the mixin for every spawner (``c.EscapeSpawnerMixin.token_dir``),
or on one spawner class.
"""

from __future__ import annotations

import os
from typing import Any

from traitlets import Callable, Float, HasTraits, Unicode, Union, default

from escape_hub.core.session_names import session_directory

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


def check_settings(get: Any, audiences: tuple[str, ...]) -> None:
    """Check what can be checked before anybody signs in; `SettingsError` names the setting.

    ``get(name)`` gives the configured value of a trait or its default, ``audiences``
    are the configured names.
    """
    from escape_hub.errors import SettingsError
    from escape_hub.hub.catalogue import cached_catalogue

    if get("environments_file"):
        cached_catalogue(get("environments_file"))
    session_directory(get("token_dir") or default_token_dir(), "somebody", "")
    if get("rucio_host") and get("rucio_audience") not in audiences:
        raise SettingsError(
            f"EscapeSpawnerMixin.rucio_audience is {get('rucio_audience')!r}, which is none of "
            f"EscapeAuthenticator.audiences {list(audiences)}"
        )

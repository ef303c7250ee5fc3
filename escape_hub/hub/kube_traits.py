"""The settings of `EscapeKubeSpawnerMixin`, with the text an operator reads about each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from traitlets import Dict, Enum, HasTraits, List, Unicode

from escape_hub.core.pod import check_token_dir, lake_mounts
from escape_hub.core.session_names import session_directory
from escape_hub.errors import SettingsError

TOKEN_MOUNT = "/run/escape-hub"  # noqa: S105 (a path)
SIDECAR_RESOURCES = {
    "requests": {"cpu": "10m", "memory": "32Mi"},
    "limits": {"cpu": "500m", "memory": "96Mi"},
}


class KubeTraits(HasTraits):
    """Traits only; what they do is in `EscapeKubeSpawnerMixin`."""

    delivery = Enum(
        ["sidecar", "extension"],
        default_value="sidecar",
        config=True,
        help="""
        Who writes a session's token files: `sidecar`, a small container of its own
        beside any notebook image (Kubernetes 1.29 or later), or `extension`, the Jupyter
        extension of this package inside an image that carries it. Where both are there,
        one writes and the other only reads.

        .. versionadded:: 0.1
        """,
    )
    sidecar_image = Unicode(
        config=True,
        help="""
        Image of the sidecar: Python and this package, of the hub's own version. Needed
        with `delivery = "sidecar"`.

        .. versionadded:: 0.1
        """,
    )
    sidecar_pull_policy = Enum(
        ["", "Always", "IfNotPresent", "Never"],
        default_value="",
        config=True,
        help="""
        When the sidecar's image is pulled. Empty: as Kubernetes decides by its tag.

        .. versionadded:: 0.1
        """,
    )
    sidecar_command = List(
        Unicode(),
        ["python3", "-m", "escape_hub.session"],
        config=True,
        help="""
        What runs in the sidecar; `run` or `check` is appended.

        .. versionadded:: 0.1
        """,
    )
    sidecar_resources = Dict(
        default_value=SIDECAR_RESOURCES,
        config=True,
        help="""
        Requests and limits of the sidecar. They add to those of the session and count
        in a ResourceQuota.

        .. versionadded:: 0.1
        """,
    )
    token_mount = Unicode(
        TOKEN_MOUNT,
        config=True,
        help="""
        Where the volume in memory for the token files is mounted, in the notebook and in
        the sidecar. Each session has a directory of its own below (`token_dir`), 0700.

        .. versionadded:: 0.1
        """,
    )
    token_volume_size = Unicode(
        "4Mi",
        config=True,
        help="""
        Limit of the volume in memory; it counts as memory of the pod.

        .. versionadded:: 0.1
        """,
    )
    lake_mounts = Dict(
        default_value={"/eos/eulake_1": "/eos/eulake_1", "/scratch": "/eos/scratch"},
        config=True,
        help="""
        What a session sees of the lake: path in the session -> path on the node, or a
        volume's source as Kubernetes writes it, such as
        `{"persistentVolumeClaim": {"claimName": "eos"}}`. All with
        `mountPropagation: HostToContainer`.

        Where both paths end in the same name, as in `/eos/eulake_1` from
        `/var/eos/eulake_1`, the directory above is what is mounted, so that the lake
        comes back into running sessions when its daemon was restarted. Elsewhere, as
        with `/scratch`, a session must be restarted after that.

        Paths on the node need a namespace whose PodSecurity level is `privileged`.
        Empty: nothing is mounted.

        .. versionadded:: 0.1
        """,
    )
    scratch_dir = Unicode(
        "/scratch/{username}",
        config=True,
        help="""
        The user's own directory on the scratch space, made by the session with mode
        0700; `status.json` says why where that is not possible. It must lie in one of
        `lake_mounts`, else it is left alone. `{username}`, `{session}`: as in `token_dir`.

        .. versionadded:: 0.1
        """,
    )
    group_gids = Dict(
        value_trait=None,
        default_value={},
        config=True,
        help="""
        Group of the person -> gid that their sessions get as a supplemental group, beside
        `supplemental_gids`: `{"escape/cms": 2001}`.

        .. versionadded:: 0.1
        """,
    )


def check_kubernetes_settings(configured: Callable[[str], Any]) -> None:
    """Check what can be checked before a pod is made; `SettingsError` names the setting."""
    if configured("delivery") == "sidecar" and not configured("sidecar_image"):
        raise SettingsError(
            "EscapeKubeSpawner.sidecar_image is not set: name the image that writes the token "
            "files, or set delivery = 'extension' where every notebook image carries this package"
        )
    mount = configured("token_mount")
    token_dir = configured("token_dir") or f"{mount}/{{session}}"
    check_token_dir(session_directory(token_dir, "somebody", ""), mount)
    lake_mounts(configured("lake_mounts"))
    if scratch := configured("scratch_dir"):
        try:
            session_directory(scratch, "somebody", "")
        except SettingsError as error:
            text = error.message.replace("EscapeSpawnerMixin.token_dir", "scratch_dir")
            raise SettingsError(text) from None

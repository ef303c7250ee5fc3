"""The parts that a session adds to a pod, as plain values in Kubernetes' own spelling.

A Secret cannot deliver a token: with ``fsGroup`` it arrives as 0640 root:100 behind
symbolic links, and EOS refuses that. So a process of the pod, running as the user,
writes the files into a volume in memory: either a native sidecar (an init container
with ``restartPolicy: Always``, Kubernetes 1.29 and later), which works with any
notebook image, or the Jupyter extension where the image carries the package.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from escape_hub.core.session_plan import ENV
from escape_hub.errors import SettingsError

Json = dict[str, Any]

MEMORY_VOLUME = "escape-hub-session"
SIDECAR = "escape-hub-session"
LAKE = "escape-hub-lake-"
#: Where KubeSpawner mounts the certificates of JupyterHub's ``internal_ssl``.
CERTIFICATES_VOLUME = "jupyterhub-internal-certs"

#: The only variables of the session that the sidecar is given.
SIDECAR_VARIABLES = frozenset(
    {
        ENV,
        "OAUTH2_TOKEN",
        "JUPYTERHUB_API_URL",
        "JUPYTERHUB_API_TOKEN",
        "JUPYTERHUB_HOST",
        "JUPYTERHUB_SSL_KEYFILE",
        "JUPYTERHUB_SSL_CERTFILE",
        "JUPYTERHUB_SSL_CLIENT_CA",
    }
)

#: Seconds between two looks of the startup probe, and how often it may fail. The first
#: files take at most ten seconds, whether or not the hub answers; the rest is slow machines.
PROBE_PERIOD, PROBE_FAILURES, PROBE_TIMEOUT = 1, 60, 10


@dataclass(frozen=True, slots=True)
class SidecarSettings:
    """What an operator decides about the sidecar. ``command`` is completed with its verb."""

    image: str
    command: tuple[str, ...] = ("python3", "-m", "escape_hub.session")
    resources: Mapping[str, Any] = field(default_factory=dict)
    pull_policy: str = ""


def memory_volume(size: str) -> Json:
    """The volume of the token files. It counts as memory of the pod and never reaches a disk."""
    return {"name": MEMORY_VOLUME, "emptyDir": {"medium": "Memory", "sizeLimit": size}}


def memory_mount(path: str) -> Json:
    """The mount of `memory_volume`, for both containers."""
    return {"name": MEMORY_VOLUME, "mountPath": path}


def check_token_dir(token_dir: str, mount: str) -> None:
    """Refuse a token directory outside the memory volume, or the volume itself.

    The volume's root belongs to root and everybody may write there; the session
    makes a directory of its own below, 0700.
    """
    inside = token_dir.startswith(f"{mount.rstrip('/')}/")
    if not mount.startswith("/") or not inside or posixpath.normpath(token_dir) == mount:
        raise SettingsError(
            f"EscapeKubeSpawner.token_dir {token_dir!r} must lie below token_mount {mount!r}, "
            "where the volume in memory is: leave token_dir alone, or write "
            f"{mount.rstrip('/')}/{{session}}"
        )


def sidecar_user(notebook: Mapping[str, Any] | None, pod: Mapping[str, Any] | None) -> Json:
    """``runAsUser`` and, where given, ``runAsGroup`` as the notebook has them.

    Arguments are the ``securityContext`` of the notebook's container and of the pod.
    The files must belong to the notebook's user, and nobody can tell the user of an
    image from outside: `SettingsError` when neither says it, or says root.
    """
    found = {**(pod or {}), **(notebook or {})}
    uid = found.get("runAsUser")
    if uid is None:
        raise SettingsError(
            "KubeSpawner.uid is not set, so nobody knows as whom the notebook runs and who must "
            "own its token files: set it to the uid of the image's user (Jupyter's images: 1000)"
        )
    if uid == 0:
        raise SettingsError(
            "KubeSpawner.uid is 0: the token files would belong to root. Run the notebook as its "
            "user from the start (Jupyter's images: uid 1000, gid 100)"
        )
    kept = {"runAsUser": uid}
    if found.get("runAsGroup") is not None:
        kept["runAsGroup"] = found["runAsGroup"]
    return kept


def sidecar(
    settings: SidecarSettings,
    *,
    user: Mapping[str, Any],
    env: Sequence[Json],
    mounts: Sequence[Json],
) -> Json:
    """The native sidecar: first files before the notebook starts, fresh ones while it runs.

    ``env`` are the notebook's variables as the pod's spec has them; only
    `SIDECAR_VARIABLES` are handed on. ``user`` is that of `sidecar_user`.
    """
    container: Json = {
        "name": SIDECAR,
        "image": settings.image,
        "command": [*settings.command, "run"],
        "restartPolicy": "Always",
        "env": [e for e in env if e["name"] in SIDECAR_VARIABLES],
        "volumeMounts": list(mounts),
        "securityContext": {
            **user,
            "runAsNonRoot": True,
            "privileged": False,
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "startupProbe": {
            "exec": {"command": [*settings.command, "check"]},
            "periodSeconds": PROBE_PERIOD,
            "failureThreshold": PROBE_FAILURES,
            "timeoutSeconds": PROBE_TIMEOUT,
        },
        "resources": dict(settings.resources),
    }
    if settings.pull_policy:
        container["imagePullPolicy"] = settings.pull_policy
    return container


def lake_mounts(mounts: Mapping[str, str | Mapping[str, Any]]) -> tuple[list[Json], list[Json]]:
    """Volumes and mounts that show the lake: path in the session -> where it comes from.

    A text is a path on the node. Where both paths end in the same name, the directory
    above is mounted: a mount that is made there later, or again after its daemon was
    restarted, then appears in the session. A mount that *is* the volume is copied when
    the pod starts, and a copy stays broken once its daemon has gone. Anything else is
    a volume's source as Kubernetes writes it, for example
    ``{"persistentVolumeClaim": {"claimName": "eos"}}``.
    """
    found: dict[str, Json] = {}
    for path, origin in mounts.items():
        _check_mount(path, origin)
        source: Json
        if isinstance(origin, str):
            path, origin = _with_parent(path.rstrip("/"), origin.rstrip("/"))
            source = {"hostPath": {"path": origin, "type": "DirectoryOrCreate"}}
        else:
            source = dict(origin)
        if path in found and found[path] != source:
            raise SettingsError(
                f"EscapeKubeSpawner.lake_mounts: two different things would be mounted at {path!r}"
            )
        found[path] = source
    names = {path: f"{LAKE}{number}" for number, path in enumerate(found)}
    volumes = [{"name": names[path], **source} for path, source in found.items()]
    return volumes, [
        {"name": names[path], "mountPath": path, "mountPropagation": "HostToContainer"}
        for path in found
    ]


def _check_mount(path: str, origin: str | Mapping[str, Any]) -> None:
    plain = all(
        p.startswith("/") and posixpath.normpath(p) == (p.rstrip("/") or "/") and p != "/"
        for p in ([path, origin] if isinstance(origin, str) else [path])
    )
    if not plain or not origin:
        raise SettingsError(
            f"EscapeKubeSpawner.lake_mounts: {path!r}: {origin!r} must map an absolute path in the "
            "session to an absolute path on the node, or to a volume's source"
        )


def _with_parent(path: str, origin: str) -> tuple[str, str]:
    above, name = posixpath.split(path)
    origin_above, origin_name = posixpath.split(origin)
    if name == origin_name and above != "/" and origin_above != "/":
        return above, origin_above
    return path, origin


def mount_for(mounts: Sequence[Json], path: str) -> list[Json]:
    """Those of ``mounts`` that ``path`` lies in."""
    return [m for m in mounts if f"{path}/".startswith(f"{m['mountPath'].rstrip('/')}/")]


def supplemental_groups(
    known: Sequence[int], group_gids: Mapping[str, int], groups: Collection[str]
) -> list[int]:
    """``known``, and the gid of each of ``groups`` that has one."""
    return sorted({*known, *(gid for name, gid in group_gids.items() if name in groups)})

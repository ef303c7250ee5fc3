"""A container of a pod manifest as an OCI runtime configuration: no I/O.

Rules as kubelet and its container runtime have them: whose uid and groups a process gets,
which capabilities remain, how mounts propagate.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Json = dict[str, Any]

DEFAULT_CAPABILITIES = [
    "CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID",
    "SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE",
]  # fmt: skip
"""What a container runtime leaves a container that asks for nothing."""

ALL_CAPABILITIES = [
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID",
    "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW",
    "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT",
    "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD",
    "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP", "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG",
    "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF", "CHECKPOINT_RESTORE",
]  # fmt: skip
"""By the kernel's numbers."""

PROPAGATION = {
    None: "rprivate",
    "None": "rprivate",
    "HostToContainer": "rslave",
    "Bidirectional": "rshared",
}


class ConfigError(ValueError):
    """kubelet's CreateContainerConfigError: the manifest cannot be run as it is."""


@dataclass(frozen=True)
class Bind:
    """A volume of the pod, or a file of the image, at ``target`` inside the container."""

    source: str
    target: str
    read_only: bool = False
    propagation: str | None = None

    def to_oci(self) -> Json:
        options = ["rbind", PROPAGATION[self.propagation], *(["ro"] if self.read_only else [])]
        return {
            "destination": self.target,
            "type": "bind",
            "source": self.source,
            "options": options,
        }


@dataclass(frozen=True)
class ImageUser:
    """Who a container runs as when its manifest does not say, and whose group a uid has."""

    uid: int
    gid: int
    gid_of: dict[int, int] = field(default_factory=dict)


def process_user(pod: Json, container: Json, image: ImageUser) -> Json:
    """``uid``, ``gid``, ``additionalGids``. A uid without runAsGroup has its group in the image."""
    pod_context = pod["spec"].get("securityContext") or {}
    context = {**pod_context, **(container.get("securityContext") or {})}
    uid = context.get("runAsUser", image.uid)
    default_gid = image.gid if uid == image.uid else image.gid_of.get(uid, 0)
    groups = {*(pod_context.get("supplementalGroups") or [])}
    if "fsGroup" in pod_context:
        groups.add(pod_context["fsGroup"])
    if context.get("runAsNonRoot") and uid == 0:
        name = f"{pod['metadata']['name']}_{pod['metadata']['namespace']}"
        why = "container's runAsUser breaks non-root policy"
        if "runAsUser" not in context:
            why = "container has runAsNonRoot and image will run as root"
        raise ConfigError(
            f'{why} (pod: "{name}({pod["metadata"]["uid"]})", container: {container["name"]})'
        )
    return {
        "uid": uid,
        "gid": context.get("runAsGroup", default_gid),
        "additionalGids": sorted(groups),
    }


def capability_names(mask: int) -> set[str]:
    """Of a mask as ``/proc/PID/status`` has it."""
    return {name for number, name in enumerate(ALL_CAPABILITIES) if mask >> number & 1}


def capabilities(container: Json, uid: int, available: set[str]) -> Json:
    """The three sets. A process that is not root has none in effect, only what it could gain.

    ``available`` is what this machine's root has: even a privileged container gets no more.
    """
    context = container.get("securityContext") or {}
    asked = context.get("capabilities") or {}
    add, drop = set(asked.get("add") or []), set(asked.get("drop") or [])
    wanted = set(DEFAULT_CAPABILITIES)
    if "ALL" in drop:
        wanted = set()
    if context.get("privileged") or "ALL" in add:
        wanted = set(ALL_CAPABILITIES)
    wanted = ((wanted - drop) | add) & available
    names = [f"CAP_{name}" for name in ALL_CAPABILITIES if name in wanted]
    held = names if uid == 0 else []
    return {"bounding": names, "effective": held, "permitted": held}


def expand(text: str, env: dict[str, str]) -> str:
    """``$(NAME)`` from the container's environment; ``$$`` is a dollar; unknown names stay."""

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return env.get(found[1], found[0])

    return re.sub(r"\$\$|\$\(([^)]+)\)", value, text)


def _basic_mounts(privileged: bool) -> list[Json]:
    def mount(target: str, kind: str, *options: str) -> Json:
        return {"destination": target, "type": kind, "source": kind, "options": list(options)}

    mounts = [
        mount("/proc", "proc"),
        mount("/dev", "tmpfs", "nosuid", "strictatime", "mode=755", "size=65536k"),
        mount("/dev/pts", "devpts", "newinstance", "ptmxmode=0666", "mode=0620"),
        mount("/dev/shm", "tmpfs", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k"),
        mount("/dev/mqueue", "mqueue", "nosuid", "noexec", "nodev"),
        mount("/sys", "sysfs", "nosuid", "noexec", "nodev", "rw" if privileged else "ro"),
    ]
    if privileged:
        # As a privileged container has it: the machine's devices, /dev/fuse among them.
        mounts[1] = Bind("/dev", "/dev", propagation="HostToContainer").to_oci()
        del mounts[2:5]
    return mounts


def runtime_config(
    pod: Json,
    container: Json,
    *,
    root: Path,
    image: ImageUser,
    arguments: list[str],
    working_dir: str,
    env: dict[str, str],
    binds: list[Bind],
    network_namespace: str,
    available_capabilities: set[str],
) -> Json:
    """``config.json`` for crun. ``network_namespace`` is a path, empty for the host's."""
    spec, context = pod["spec"], container.get("securityContext") or {}
    user = process_user(pod, container, image)
    privileged = bool(context.get("privileged"))
    namespaces: list[Json] = [{"type": t} for t in ("mount", "ipc", "uts")]
    if not spec.get("hostPID"):
        namespaces.append({"type": "pid"})
    if network_namespace:
        namespaces.append({"type": "network", "path": network_namespace})
    reach = {bind.propagation for bind in binds}
    propagation = "rprivate"
    if "HostToContainer" in reach:
        propagation = "rslave"
    if "Bidirectional" in reach:
        propagation = "rshared"
    masked = ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"]
    return {
        "ociVersion": "1.0.0",
        "hostname": spec.get("hostname") or pod["metadata"]["name"],
        "root": {"path": str(root), "readonly": bool(context.get("readOnlyRootFilesystem"))},
        "mounts": [*_basic_mounts(privileged), *(bind.to_oci() for bind in binds)],
        "process": {
            "terminal": False,
            "args": arguments,
            "env": [f"{name}={value}" for name, value in env.items()],
            "cwd": working_dir or "/",
            "noNewPrivileges": context.get("allowPrivilegeEscalation") is False,
            "user": {**user, "umask": 0o022},
            "capabilities": capabilities(container, user["uid"], available_capabilities),
        },
        "linux": {
            "namespaces": namespaces,
            "rootfsPropagation": propagation,
            "maskedPaths": [] if privileged else masked,
            "readonlyPaths": [] if privileged else ["/proc/sys", "/proc/sysrq-trigger"],
        },
    }

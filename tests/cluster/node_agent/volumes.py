"""The volumes of a pod, made before its containers and gone after them."""

from __future__ import annotations

import logging
import shutil
import subprocess
from pathlib import Path

from tests.cluster.node_agent import atomic_writer
from tests.cluster.node_agent.config import AgentConfig
from tests.cluster.node_agent.oci import Bind, ConfigError, expand
from tests.cluster.node_agent.ownership import set_volume_ownership
from tests.cluster.node_agent.sources import Sources
from tests.cluster.node_agent.status import Json

log = logging.getLogger("node_agent.volumes")

WRITTEN = ("secret", "configMap", "projected", "downwardAPI")
"""Volumes whose files the agent writes and keeps up to date."""

UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "k": 10**3, "M": 10**6, "G": 10**9}


class VolumeError(RuntimeError):
    """FailedMount: the pod waits, the agent tries again."""


class Volumes:
    """``paths`` holds each volume's folder on the node once `make` has returned."""

    def __init__(self, config: AgentConfig, pod: Json, sources: Sources) -> None:
        self._config, self._pod, self._sources = config, pod, sources
        self._folder = config.pods / pod["metadata"]["uid"] / "volumes"
        self._fs_group = (pod["spec"].get("securityContext") or {}).get("fsGroup")
        self.paths: dict[str, Path] = {}

    async def make(self) -> None:
        """Make what is not there yet. Raises `VolumeError`; may be called again."""
        for volume in self._pod["spec"].get("volumes") or []:
            name = volume["name"]
            if name in self.paths:
                continue
            try:
                self.paths[name] = await self._make(volume)
            except ConfigError as error:
                raise VolumeError(
                    f'MountVolume.SetUp failed for volume "{name}" : {error}'
                ) from None

    async def refresh(self) -> None:
        """Bring changed Secrets, ConfigMaps and tokens into the running pod."""
        for volume in self._pod["spec"].get("volumes") or []:
            if volume["name"] in self.paths and any(kind in volume for kind in WRITTEN):
                await self._write(volume, self.paths[volume["name"]])

    def remove(self) -> None:
        for path in self._folder.glob("*"):
            subprocess.run(["umount", "--lazy", str(path)], capture_output=True)
        shutil.rmtree(self._folder, ignore_errors=True)
        self.paths.clear()

    def bind(self, mount: Json, env: dict[str, str]) -> Bind:
        """A container's ``volumeMount``, its subPath resolved now and for good."""
        source = self.paths[mount["name"]]
        inner = mount.get("subPath") or expand(mount.get("subPathExpr", ""), env)
        if inner:
            source = (source / inner).resolve()
            if not source.is_relative_to(self.paths[mount["name"]].resolve()):
                raise ConfigError(f"subPath {inner} leaves its volume")
            if not source.exists():
                source.mkdir(mode=0o750, parents=True)
        return Bind(
            str(source),
            mount["mountPath"],
            read_only=mount.get("readOnly", False),
            propagation=mount.get("mountPropagation"),
        )

    async def _make(self, volume: Json) -> Path:
        path: Path = self._folder / volume["name"]
        if "hostPath" in volume:
            return self._host_path(volume["hostPath"])
        if "persistentVolumeClaim" in volume:
            claim = volume["persistentVolumeClaim"]["claimName"]
            namespace = self._pod["metadata"]["namespace"]
            return self._plain(self._config.node_root / f"claims/{namespace}/{claim}")
        if "emptyDir" in volume:
            return self._empty_dir(path, volume["emptyDir"] or {})
        if any(kind in volume for kind in WRITTEN):
            await self._write(volume, self._tmpfs(path, ""))
            return path
        if "csi" in volume:
            driver = volume["csi"]["driver"]
            raise ConfigError(
                f"driver name {driver} not found in the list of registered CSI drivers"
            )
        raise ConfigError(f"the node agent has no such volume: {', '.join(volume)}")

    def _empty_dir(self, path: Path, source: Json) -> Path:
        if source.get("medium") == "Memory":
            limit = source.get("sizeLimit")
            self._tmpfs(path, f"size={quantity(str(limit))}" if limit else "")
            set_volume_ownership(path, self._fs_group, read_only=False)
            return path
        return self._plain(path)

    def _plain(self, path: Path) -> Path:
        if not path.exists():
            path.mkdir(parents=True)
            path.chmod(0o777)
        set_volume_ownership(path, self._fs_group, read_only=False)
        return path

    @staticmethod
    def _tmpfs(path: Path, options: str) -> Path:
        """A fresh tmpfs, 01777 as the kernel makes it: kubelet gives no mode either."""
        path.mkdir(parents=True, exist_ok=True)
        if not path.is_mount():
            more = ["-o", options] if options else []
            subprocess.run(["mount", "-t", "tmpfs", *more, "tmpfs", str(path)], check=True)
        return path

    async def _write(self, volume: Json, path: Path) -> None:
        payload = await self._sources.payload(volume)
        if atomic_writer.write(path, payload, self._fs_group):
            log.info("wrote volume %s of %s", volume["name"], self._pod["metadata"]["name"])

    def _host_path(self, source: Json) -> Path:
        """A path below the node's own tree; devices are the machine's. fsGroup never applies."""
        wanted, kind = source["path"], source.get("type") or ""
        path = Path(wanted)
        if not path.is_relative_to("/dev"):
            path = self._config.node_root / wanted.lstrip("/")
        if kind == "DirectoryOrCreate":
            path.mkdir(parents=True, exist_ok=True)
        if kind == "FileOrCreate":
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        checks = {
            "Directory": path.is_dir,
            "DirectoryOrCreate": path.is_dir,
            "File": path.is_file,
            "FileOrCreate": path.is_file,
            "Socket": path.is_socket,
            "CharDevice": path.is_char_device,
        }
        if kind in checks and not checks[kind]():
            raise ConfigError(f"hostPath type check failed: {wanted} is not a {kind.lower()}")
        if not kind and not path.exists():
            # A container runtime makes a folder of what is missing.
            path.mkdir(parents=True)
        return path


def quantity(text: str) -> int:
    """Bytes, or whole units, of a Kubernetes quantity such as ``4Mi`` or ``2``."""
    for suffix, factor in UNITS.items():
        if text.endswith(suffix):
            return int(float(text.removesuffix(suffix)) * factor)
    return int(float(text))

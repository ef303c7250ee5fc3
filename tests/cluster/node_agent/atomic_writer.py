"""Secret, ConfigMap and projected volumes as kubelet writes them: all at once, by symlinks.

``NAME -> ..data/NAME``, ``..data -> ..2026_...``: a reader sees the old or the new content of
all keys. It also means that every path into such a volume holds symlinks, and that a subPath
mount, which is resolved once, never changes.
"""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.node_agent.ownership import set_volume_ownership


@dataclass(frozen=True)
class File:
    """``owner`` is a uid; kubelet leaves root unless the file is a service account's token."""

    content: bytes
    mode: int
    owner: int = 0


Payload = dict[str, File]
"""Relative path -> file."""


def write(volume: Path, payload: Payload, fs_group: int | None) -> bool:
    """Make ``volume`` hold exactly ``payload``; whether anything changed."""
    current = volume / "..data"
    if current.exists() and _content(current.resolve()) == {
        name: file.content for name, file in payload.items()
    }:
        return False
    stamp = time.strftime("%Y_%m_%d_%H_%M_%S") + f".{time.time_ns() % 10**9}"
    fresh = volume / f"..{stamp}"
    fresh.mkdir(mode=0o755)
    for name, file in payload.items():
        path = fresh / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        os.chown(path, file.owner, -1)
        path.chmod(file.mode)
    set_volume_ownership(fresh, fs_group, read_only=True)
    old = current.resolve() if current.exists() else None
    staged = volume / "..data_tmp"
    staged.symlink_to(fresh.name)
    staged.rename(current)
    _point(volume, {name.split("/")[0] for name in payload})
    set_volume_ownership(volume, fs_group, read_only=True)
    if old:
        shutil.rmtree(old)
    return True


def _content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def _point(volume: Path, names: set[str]) -> None:
    for entry in volume.iterdir():
        if not entry.name.startswith("..") and entry.name not in names:
            entry.unlink()
    for name in names:
        if not (volume / name).is_symlink():
            (volume / name).symlink_to(f"..data/{name}")

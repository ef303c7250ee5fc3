"""kubelet's fsGroup rule, which decides who can read a volume's files.

A volume is made by root; with an ``fsGroup`` every file and folder in it gets that group, and
permission bits are *added* for it: 0660 for a volume that can be written, 0440 for one that
cannot, on folders also 0110 and setgid. Bits are never taken away and the owner stays root.
So a Secret's 0600 becomes 0640 root:fsGroup, which readers that insist on a private file refuse.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

READ_WRITE, READ_ONLY = 0o660, 0o440
ENTER = 0o110


def set_volume_ownership(volume: Path, fs_group: int | None, *, read_only: bool) -> None:
    """Apply the rule to ``volume`` and everything below it; no group, no change."""
    if fs_group is None:
        return
    for folder, folders, files in os.walk(volume, topdown=False):
        for name in [*files, *folders]:
            _change(Path(folder) / name, fs_group, read_only)
    _change(volume, fs_group, read_only)


def _change(path: Path, fs_group: int, read_only: bool) -> None:
    mode = path.lstat().st_mode
    os.chown(path, -1, fs_group, follow_symlinks=False)
    # chmod would follow a symlink and change its target twice.
    if stat.S_ISLNK(mode):
        return
    added = READ_ONLY if read_only else READ_WRITE
    if stat.S_ISDIR(mode):
        added |= stat.S_ISGID | ENTER
    path.chmod(stat.S_IMODE(mode) | added)

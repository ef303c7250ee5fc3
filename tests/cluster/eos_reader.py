"""Reads a process's token file as eosxd does: ``python eos_reader.py PID [PATH]``, as root.

After EOS 5.5: the path is ``OAUTH2_TOKEN=FILE:...`` of the process's environment; the file
is looked for in the process's own root, in another mount namespace than ours; every
component is opened with O_NOFOLLOW, as the user; the owner must be the user, the mode
must keep others out and let the owner read. Prints JSON: ``accepted``, ``why``, ``token``.
Standard library only: it runs inside a pod.
"""

from __future__ import annotations

import json
import os
import stat
import sys
from typing import Any


class RefusedError(Exception):
    """What eosxd would not read."""


def path_of(pid: int) -> str:
    with open(f"/proc/{pid}/environ", "rb") as file:
        variables = file.read().split(b"\0")
    for one in variables:
        if one.startswith(b"OAUTH2_TOKEN=FILE:"):
            return one.partition(b"FILE:")[2].decode()
    raise RefusedError("no OAUTH2_TOKEN in the environment")


def owner_of(pid: int) -> tuple[int, int]:
    """uid and gid the process runs as."""
    ids: dict[str, int] = {}
    with open(f"/proc/{pid}/status") as file:
        for line in file:
            name, _, values = line.partition(":")
            if name in ("Uid", "Gid"):
                ids[name] = int(values.split()[3])  # the file system's
    return ids["Uid"], ids["Gid"]


def read_as_the_user(pid: int, path: str) -> str:
    uid, gid = owner_of(pid)
    fd = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY)
    os.setgroups([])
    os.setegid(gid)
    os.seteuid(uid)
    parts = path.strip("/").split("/")
    for part in parts[:-1]:
        fd = open_part(part, fd, os.O_PATH | os.O_DIRECTORY, path)
    info = os.fstat(open_part(parts[-1], fd, os.O_PATH, path))
    mode = stat.S_IMODE(info.st_mode)
    if not stat.S_ISREG(info.st_mode):
        raise RefusedError("no regular file")
    if info.st_uid != uid:
        raise RefusedError(f"owner is {info.st_uid}, not {uid}")
    if mode & 0o077 or not mode & 0o400:
        raise RefusedError(f"mode is {mode:04o}")
    with open(open_part(parts[-1], fd, os.O_RDONLY, path)) as file:
        return file.read()


def open_part(name: str, at: int, flags: int, path: str) -> int:
    try:
        fd = os.open(name, flags | os.O_NOFOLLOW, dir_fd=at)
    except OSError as error:
        raise RefusedError(f"{path}: {name}: {error.strerror}") from None
    if stat.S_ISLNK(os.fstat(fd).st_mode):
        raise RefusedError(f"{path}: {name}: a symbolic link")
    return fd


def main(pid: int, path: str) -> dict[str, Any]:
    try:
        text = read_as_the_user(pid, path or path_of(pid))
    except RefusedError as error:
        return {"accepted": False, "why": str(error)}
    parts = text.split(":")
    good = len(parts) == 3 and parts[0] == "oauth2" and text == text.strip()
    return {"accepted": good, "why": "" if good else "not oauth2:TOKEN:ENDPOINT", "token": text}


if __name__ == "__main__":
    print(json.dumps(main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "")))

"""Opens a directory component by component, through nothing that others could have placed."""

from __future__ import annotations

import errno
import os

from escape_hub.errors import CredentialFileError

# O_PATH walks through directories that may be entered but not listed (/home as 0711).
_WALK = getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY | os.O_CLOEXEC
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def file_error(path: str, error: OSError) -> CredentialFileError:
    """The operating system's refusal as an error that names the path."""
    return CredentialFileError(
        f"{path}: {error.strerror or type(error).__name__}",
        code="disk-full" if error.errno in _DISK_FULL else None,
    )


def open_directory(path: str, *, create: bool) -> int:
    """A descriptor of the directory ``path``, by default made with its parents, all 0700.

    A symbolic link is followed only below directories that root alone may change;
    from the first one that others can write to, every component must be a real
    directory that belongs to root or to us. Raises `CredentialFileError`.
    """
    parts = path.split("/")[1:]
    if not path.startswith("/") or any(part in ("", ".", "..") for part in parts):
        raise CredentialFileError(f"{path!r} is no absolute path in its plain form")
    fd, trusted = os.open("/", _WALK), True
    try:
        for depth, name in enumerate(parts, 1):
            info = os.fstat(fd)
            here = "/" + "/".join(parts[:depth])
            if info.st_uid not in (0, os.geteuid()):
                raise CredentialFileError(f"{here} lies in a directory of uid {info.st_uid}")
            # Only root could place a link here; further down anybody else might have.
            trusted = trusted and info.st_uid == 0 and not info.st_mode & 0o022
            last = depth == len(parts)
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC if last else _WALK
            flags |= 0 if trusted and not last else os.O_NOFOLLOW
            child = _open_component(fd, name, flags, here, create=create)
            os.close(fd)
            fd = child
        return fd
    except BaseException:
        os.close(fd)
        raise


def _open_component(fd: int, name: str, flags: int, here: str, *, create: bool) -> int:
    try:
        if create:
            try:
                os.mkdir(name, 0o700, dir_fd=fd)
            except FileExistsError:
                pass
            except OSError:  # read-only, or not ours to write: fine when it exists
                return os.open(name, flags, dir_fd=fd)
        return os.open(name, flags, dir_fd=fd)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ELOOP):
            raise CredentialFileError(
                f"{here} is a symbolic link, or no directory: token files must lie behind none"
            ) from None
        raise file_error(here, error) from None

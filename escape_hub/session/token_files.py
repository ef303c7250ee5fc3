"""The session's directory of token files: atomic 0600 writes, reads, wipe, one writer.

Invariant: a file here is 0600 from birth, complete or absent. Readers (eosxd,
Rucio, XRootD) refuse a file of another owner or of a wider mode, and some open
every component of the path with O_NOFOLLOW, so this module is as strict as they.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field

from escape_hub.errors import CredentialFileError
from escape_hub.session.safe_directory import file_error, open_directory

LOCK = "agent.lock"
MAX_SIZE = 64 * 1024
_TEMP_PREFIX = ".tmp-"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_TEMP_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class FileContent:
    """Text of a file and whether its mode keeps others out; ``repr`` never shows the text."""

    text: str = field(repr=False)
    private: bool


def read_private(path: str) -> FileContent | None:
    """Read a token file by its path, as a client would; None when there is no such file.

    Raises `CredentialFileError` for a symbolic link, a foreign owner, anything
    that is no regular file, or a file larger than 64 KiB.
    """
    return _read(path, None, path)


class TokenDirectory:
    """An open token directory. Every operation is relative to the open descriptor,
    so that nobody can swap the directory below it."""

    def __init__(self, path: str, fd: int) -> None:
        self.path = path
        self._fd = fd
        self._lock_fd: int | None = None

    @classmethod
    def open(cls, path: str, *, create: bool = True) -> TokenDirectory:
        """Open ``path``, by default making it and its parents, all 0700.

        A symbolic link is accepted only where nobody but root could have placed it.
        A directory of our own that is too open is closed; a foreign one is refused
        (`CredentialFileError`).
        """
        directory = cls(path, open_directory(path, create=create))
        try:
            directory._make_private()
        except BaseException:
            directory.close()
            raise
        return directory

    def _make_private(self) -> None:
        info = os.fstat(self._fd)
        if info.st_uid != os.geteuid():
            raise CredentialFileError(
                f"{self.path} belongs to uid {info.st_uid}, not to uid {os.geteuid()} that runs "
                "this session: choose a directory below it"
            )
        if stat.S_IMODE(info.st_mode) != 0o700:  # a pod's fsGroup hands down a setgid bit
            os.fchmod(self._fd, 0o700)
            if stat.S_IMODE(os.fstat(self._fd).st_mode) & 0o077:
                raise CredentialFileError(
                    f"{self.path} stays open to others after chmod 0700: its file system keeps "
                    "no modes; choose one that does"
                )

    # -- one writer -----------------------------------------------------------------

    @property
    def is_writer(self) -> bool:
        """Whether this object holds the directory's lock."""
        return self._lock_fd is not None

    def become_writer(self) -> bool:
        """Take the lock if nobody has it. The lock ends with the process, however it dies."""
        if self._lock_fd is not None:
            return True
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(LOCK, flags, 0o600, dir_fd=self._fd)
        except OSError as error:
            raise file_error(self._path_of(LOCK), error) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            held = self._is_same_file(fd)
        except BlockingIOError:
            held = False
        except OSError as error:
            os.close(fd)
            raise file_error(self._path_of(LOCK), error) from None
        if not held:  # taken, or the file was wiped by the one that had it: the next try decides
            os.close(fd)
            return False
        self._lock_fd = fd
        return True

    def _is_same_file(self, fd: int) -> bool:
        ours = os.fstat(fd)
        try:
            there = os.stat(LOCK, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)

    def is_current(self) -> bool:
        """Whether ``path`` still leads to the directory that is open here."""
        try:
            there = os.stat(self.path, follow_symlinks=False)
        except OSError:
            return False
        ours = os.fstat(self._fd)
        return (ours.st_dev, ours.st_ino) == (there.st_dev, there.st_ino)

    # -- files ----------------------------------------------------------------------

    def _path_of(self, name: str) -> str:
        return f"{self.path}/{name}"

    def read(self, name: str) -> FileContent | None:
        """The file's content, None when it does not exist; else as `read_private`."""
        return _read(_checked(name), self._fd, self._path_of(name))

    def write(self, name: str, text: str) -> None:
        """Replace ``name`` by ``text`` in one step; the old file stays whenever this fails.

        Raises `CredentialFileError`, naming the path and what is wrong with it.
        """
        path = self._path_of(_checked(name))
        temp = f"{_TEMP_PREFIX}{name}-{secrets.token_hex(8)}"
        try:
            self._refuse_bad_target(name, path)
            self._write_temp(temp, text.encode())
            try:
                os.rename(temp, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
            except OSError:
                os.unlink(temp, dir_fd=self._fd)
                raise
            self._sync_directory()
        except OSError as error:
            raise file_error(path, error) from None

    def _write_temp(self, temp: str, data: bytes) -> None:
        fd = os.open(temp, _TEMP_FLAGS, 0o600, dir_fd=self._fd)
        try:
            os.fchmod(fd, 0o600)  # a umask can only take bits away; put the owner's back
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        except OSError:
            os.unlink(temp, dir_fd=self._fd)
            raise
        finally:
            os.close(fd)

    def _refuse_bad_target(self, name: str, path: str) -> None:
        try:
            info = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except FileNotFoundError:
            return
        _refuse_untrusted(info, path)
        if info.st_nlink > 1:
            raise CredentialFileError(f"{path} has {info.st_nlink} hard links: remove the others")

    def _sync_directory(self) -> None:
        try:
            os.fsync(self._fd)
        except OSError as error:
            if error.errno != errno.EINVAL:  # a file system without it: the rename stands
                raise

    def remove(self, name: str) -> bool:
        """Remove the file (a link, not its target); False when there was none."""
        try:
            os.unlink(_checked(name), dir_fd=self._fd)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise file_error(self._path_of(name), error) from None
        return True

    def clear_stale_temps(self) -> int:
        """Remove what a killed writer left half done. Only for the holder of the lock."""
        stale = [n for n in os.listdir(self._fd) if n.startswith(_TEMP_PREFIX)]
        for name in stale:
            try:
                os.unlink(name, dir_fd=self._fd)
            except OSError as error:
                raise file_error(self._path_of(name), error) from None
        return len(stale)

    def wipe(self, names: Iterable[str]) -> list[CredentialFileError]:
        """Remove ``names`` and all temps, one failure never keeping another file; the failures."""
        failures = []
        for name in names:
            try:
                self.remove(name)
            except CredentialFileError as error:
                failures.append(error)
        try:
            self.clear_stale_temps()
        except CredentialFileError as error:
            failures.append(error)
        return failures

    def dissolve(self) -> None:
        """Remove the lock and, when it is empty, the directory; for the writer's end."""
        if self.is_writer:
            self.remove(LOCK)
        if self.is_current():
            try:
                os.rmdir(self.path)
            except OSError:
                pass  # files of others, or a mount point: theirs to remove
        self.close()

    def close(self) -> None:
        """Give up the lock and the directory; the files stay."""
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise CredentialFileError(f"{name!r} is no plain file name")
    return name


def _refuse_untrusted(info: os.stat_result, path: str) -> None:
    if stat.S_ISLNK(info.st_mode):
        raise CredentialFileError(f"{path} is a symbolic link: remove it")
    if not stat.S_ISREG(info.st_mode):
        raise CredentialFileError(f"{path} is no regular file: remove it")
    if info.st_uid != os.geteuid():
        raise CredentialFileError(
            f"{path} belongs to uid {info.st_uid}, not to uid {os.geteuid()}: remove it"
        )


def _read(name: str, dir_fd: int | None, path: str) -> FileContent | None:
    try:
        fd = os.open(name, _READ_FLAGS, dir_fd=dir_fd)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise CredentialFileError(f"{path} is a symbolic link: remove it") from None
        raise file_error(path, error) from None
    with os.fdopen(fd, "rb") as file:
        info = os.fstat(fd)
        _refuse_untrusted(info, path)
        data = file.read(MAX_SIZE + 1)
    if len(data) > MAX_SIZE:
        raise CredentialFileError(f"{path} is larger than {MAX_SIZE} bytes: remove it")
    private = stat.S_IMODE(info.st_mode) & 0o077 == 0
    return FileContent(data.decode("utf-8", "replace"), private)

"""The user's own directory on the scratch space, 0700, or a clear line why there is none.

It lies on a file system of the lake, which may need the session's token, may refuse,
and may hang: so it is made after the first files, beside everything else.
"""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable

#: How long a session's start may be held up (seconds); after that it goes on without.
PATIENCE = 2.0


def prepare(path: str) -> str:
    """Make the directory ``path`` and close it to others; the reason where that fails."""
    parent = os.path.dirname(path)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass
    except FileNotFoundError:
        return f"{path} cannot be made: this session has no {parent}"
    except OSError as error:
        return f"{path} cannot be made: {parent} refuses ({error.strerror})"
    try:
        return _close_to_others(path)
    except OSError as error:
        return f"{path} cannot be used: {error.strerror}"


def _close_to_others(path: str) -> str:
    info = os.lstat(path)
    if not stat.S_ISDIR(info.st_mode):
        return f"{path} cannot be used: it is no directory"
    if stat.S_IMODE(info.st_mode) & 0o077:
        try:
            os.chmod(path, 0o700)
        except OSError:
            return f"{path} is open to others (mode {stat.S_IMODE(info.st_mode):04o})"
    # Not the owner: on EOS that is the account the user is mapped to.
    if not os.access(path, os.W_OK | os.X_OK):
        return (
            f"{path} cannot be used: it belongs to uid {info.st_uid}, and you may not write there"
        )
    return ""


def prepare_beside(path: str, done: Callable[[str], object]) -> None:
    """`prepare` in a thread of its own; ``done`` is given the reason. Waits `PATIENCE` for it."""
    thread = threading.Thread(
        target=lambda: done(prepare(path)), name="escape-hub-scratch", daemon=True
    )
    thread.start()
    thread.join(PATIENCE)

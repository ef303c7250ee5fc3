"""All that one session keeps in its directory, behind one lock between threads.

Once closed nothing is written any more, whatever a thread that is still in a
request may try: a wipe is final.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import replace

from escape_hub.core.credentials import rucio_cfg
from escape_hub.core.session_plan import SessionPlan
from escape_hub.core.status import WORDS, State
from escape_hub.errors import CredentialFileError, EscapeHubError, TokenError
from escape_hub.session import status_file
from escape_hub.session.hub_reply import AudienceReply
from escape_hub.session.publishing import publish
from escape_hub.session.status_file import AudienceStatus, SessionStatus
from escape_hub.session.token_files import TokenDirectory

RUCIO_CFG = "rucio.cfg"


class SessionFiles:
    """Token files, ``rucio.cfg`` and ``status.json`` of the session that ``plan`` describes."""

    def __init__(self, plan: SessionPlan, logger: logging.Logger) -> None:
        self._plan = plan
        self._log = logger
        self._audiences = {a.name: a for a in plan.audiences}
        self._lock = threading.RLock()
        self._directory: TokenDirectory | None = None
        self._closed = False

    @property
    def is_writer(self) -> bool:
        """Whether this object, and no other agent of the session, writes here."""
        directory = self._directory
        return directory is not None and directory.is_writer

    def open(self) -> bool:
        """Hold an open directory; whether as its writer. Opens a replaced one anew.

        Raises `CredentialFileError` when the directory cannot be trusted or made.
        """
        with self._lock:
            if self._closed:
                return False
            if self._directory is not None and not self._directory.is_current():
                self._log.warning("%s was removed or replaced: opening it", self._plan.token_dir)
                self._directory.close()
                self._directory = None
            if self._directory is None:
                self._directory = TokenDirectory.open(self._plan.token_dir)
            if self._directory.is_writer:
                return True
            if not self._directory.become_writer():
                return False
            self._prepare(self._directory)
            return True

    def _prepare(self, directory: TokenDirectory) -> None:
        if count := directory.clear_stale_temps():
            self._log.info("removed %d half-written files of an agent that was killed", count)
        self._log.info("keeping the files in %s", self._plan.token_dir)
        if self._plan.rucio is None:
            return
        try:
            text = rucio_cfg(self._plan)
            found = directory.read(RUCIO_CFG)
            if found is None or found.text != text or not found.private:
                directory.write(RUCIO_CFG, text)
        except EscapeHubError as error:
            self._log.error("rucio.cfg is not written [%s]: %s", error.code, error.message)

    def read_status(self) -> SessionStatus | None:
        """What ``status.json`` says, None when there is none that can be read."""
        with self._lock:
            if self._directory is None:
                return None
            try:
                found = self._directory.read(status_file.FILE)
            except CredentialFileError as error:
                self._log.warning("[%s] %s", error.code, error.message)
                return None
        return status_file.parse_status(found.text) if found else None

    def save_status(self, status: SessionStatus) -> None:
        """Write ``status.json`` if this is the writer. Raises `CredentialFileError`."""
        with self._lock:
            if self._directory is not None and self._directory.is_writer:
                self._directory.write(status_file.FILE, status.to_json())

    def publish(self, known: AudienceStatus, reply: AudienceReply | None) -> AudienceStatus:
        """Write the audience's file if need be; its new status. Never raises."""
        if reply is None:
            return self._problem(known, State.LATE, "the hub knows nothing of it", "hub-audience")
        told = replace(
            known,
            state=reply.state,
            message=reply.message or WORDS[reply.state],
            reference=reply.reference,
        )
        with self._lock:
            directory, token = self._directory, reply.token
            if token is None or directory is None or not directory.is_writer:
                return told
            try:
                outcome = publish(
                    directory,
                    self._audiences[known.name],
                    token.value,
                    token.expires_at,
                    hub_now=token.obtained_at,
                    known_expiry=known.expires_at,
                )
            except TokenError as error:
                return self._problem(known, State.REFUSED, error.message, error.code)
            except CredentialFileError as error:
                return self._problem(known, State.LATE, error.message, error.code)
            except Exception as error:  # one audience never holds up another
                what = f"unexpected {type(error).__name__}"
                return self._problem(known, State.LATE, what, "agent")
        self._log.debug("%s: %s", known.name, outcome.value)
        if outcome.keeps_old:
            return told
        return replace(told, expires_at=token.expires_at, renewed_at=reply.renewed_at)

    def _problem(
        self, known: AudienceStatus, state: State, message: str, code: str
    ) -> AudienceStatus:
        if (known.message, known.reference) != (message, code):
            self._log.warning("%s [%s]: %s", known.name, code, message)
        return replace(known, state=state, message=message, reference=code)

    def remove(
        self, audiences: tuple[AudienceStatus, ...], goes: Callable[[AudienceStatus], bool]
    ) -> tuple[AudienceStatus, ...]:
        """Remove the token files of those that ``goes`` picks; the statuses afterwards."""
        with self._lock:
            directory = self._directory
            if directory is None or not directory.is_writer:
                return audiences
            return tuple(self._removed(directory, a) if goes(a) else a for a in audiences)

    def _removed(self, directory: TokenDirectory, one: AudienceStatus) -> AudienceStatus:
        try:
            if directory.remove(one.file):
                self._log.info("%s: the file is removed", one.name)
        except CredentialFileError as error:
            self._log.error("[%s] %s", error.code, error.message)
            return one
        return replace(one, expires_at=None, renewed_at=None)

    def release(self) -> None:
        """Let another agent write. `open` tries to become the writer again."""
        with self._lock:
            directory, self._directory = self._directory, None
            if directory is not None:
                directory.close()

    def close(self, *, wipe: bool) -> None:
        """Write nothing from now on; with ``wipe`` the writer also removes all it wrote."""
        with self._lock:
            self._closed = True
            directory, self._directory = self._directory, None
            if directory is None:
                return
            if not wipe or not directory.is_writer:
                directory.close()
                return
            names = [a.file for a in self._plan.audiences] + [RUCIO_CFG, status_file.FILE]
            for error in directory.wipe(names):
                self._log.error("[%s] %s", error.code, error.message)
            directory.dissolve()

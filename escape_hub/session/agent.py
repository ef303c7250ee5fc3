"""Fetch, write, wait: keeps a session's token files as fresh as the hub can make them.

One agent writes, by the lock of the directory; any other waits to take over.
Nothing that goes wrong here ends the loop, and an old file stays until a better
one is complete, until the hub says it must go, or until the session ends.
"""

from __future__ import annotations

import logging
import os
import random
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

from escape_hub.core.session_plan import SessionPlan
from escape_hub.core.status import WORDS, State, worst
from escape_hub.errors import CredentialFileError, EscapeHubError
from escape_hub.session.hub_reply import HubRefusalError, TokensReply
from escape_hub.session.pacing import (
    POLL_BOUNDS,
    TAKEOVER_POLL,
    HubTime,
    SessionClock,
    Waiter,
    backoff,
    spread,
)
from escape_hub.session.session_files import SessionFiles
from escape_hub.session.status_file import SessionStatus

#: A token with less than this left (seconds) is as good as none to a session.
MIN_VALID_PERIOD = 30.0


class Hub(Protocol):
    """What the agent needs of `HubClient`."""

    def fetch(self, *, min_valid_period: float = 0.0, timeout: float = 30.0) -> TokensReply:
        """Ask once."""

    def cancel(self) -> None:
        """End a request under way."""


class Agent:
    """The loop of one session. `step` is one turn of it; `start` runs it in a thread."""

    def __init__(
        self,
        plan: SessionPlan,
        hub: Hub,
        *,
        sign_in_url: str = "",
        clock: SessionClock | None = None,
        rng: random.Random | None = None,
        logger: logging.Logger | None = None,
    ) -> None:
        self._plan = plan
        self._hub = hub
        self._notes: tuple[str, ...] = ()
        self._sign_in_url = sign_in_url or plan.sign_in_path
        self._rng = rng or random.Random()  # noqa: S311 - spreads polls, decides nothing
        self._log = logger or logging.getLogger("escape_hub.session")
        self._files = SessionFiles(plan, self._log)
        self._status = SessionStatus.for_plan(plan.audiences, None)
        self._clock = clock or SessionClock()
        self._time = HubTime(self._clock)
        self._waiter = Waiter(self._clock)
        self._next_wait = 0.0
        self._last_turn = float("-inf")
        self._failures = 0
        self._last_problem = ""
        self._is_beside = False
        # The hub no longer knows our API token: this process outlived its session, and a
        # newer one, perhaps waiting for the same directory, must be able to write.
        self._is_disowned = False
        self._stopping = False
        self._thread: threading.Thread | None = None

    @property
    def status(self) -> SessionStatus:
        """The current status: this agent's own, or what the agent that writes left."""
        if self.is_writer or self._stopping:
            return self._status
        return self._files.read_status() or self._status

    @property
    def plan(self) -> SessionPlan:
        """What this agent keeps."""
        return self._plan

    @property
    def is_writer(self) -> bool:
        """Whether this agent, and not another of the same session, writes the files."""
        return self._files.is_writer

    @property
    def is_settled(self) -> bool:
        """Whether the last turn got an answer that no quick retry would change."""
        return self.is_writer and self._failures == 0

    # -- one turn -------------------------------------------------------------------

    def step(self, *, timeout: float = 30.0) -> float:
        """Do one turn and return the seconds to wait for the next. Never raises.

        ``timeout`` (seconds) bounds the request to the hub.
        """
        self._next_wait = self._turn(timeout)
        self._last_turn = self._clock.elapsed()
        return self._next_wait

    def _turn(self, timeout: float) -> float:
        was_writer = self.is_writer
        try:
            if not self._files.open():
                if not self._is_beside:
                    self._log.info("another agent of this session writes its files; waiting")
                self._is_beside = True
                return TAKEOVER_POLL
            self._is_beside = False
            if not was_writer:
                previous = self._files.read_status()
                self._status = SessionStatus.for_plan(self._plan.audiences, previous)
            wait = self._poll(timeout)
        except EscapeHubError as error:
            wait = self._trouble(error)
        except Exception as error:  # the loop must outlive any surprise
            # The type alone: an exception's text may quote what it choked on.
            wait = self._trouble(EscapeHubError(f"unexpected {type(error).__name__}", code="agent"))
        self._save_status(wait)
        if self._is_disowned:
            self._files.release()
        return wait

    def _poll(self, timeout: float) -> float:
        try:
            reply = self._hub.fetch(min_valid_period=MIN_VALID_PERIOD, timeout=timeout)
        except HubRefusalError as refusal:
            return self._refused(refusal)
        self._time.heard(reply.hub_now)
        self._failures = 0
        self._is_disowned = False
        self._report("")
        audiences = tuple(
            self._files.publish(one, reply.audiences.get(one.name))
            for one in self._status.audiences
        )
        state = worst([reply.state, *(a.state for a in audiences)])
        message, reference = reply.message, reply.reference
        if state is not reply.state:  # something on this side is worse than what the hub knows
            first = next(a for a in audiences if a.state is state)
            message, reference = f"{first.label}: {first.message}", first.reference
        self._status = replace(
            self._status,
            audiences=audiences,
            state=state,
            message=message or WORDS[state],
            reference=reference,
        )
        return self._wait_after(reply.next_poll)

    # -- when things go wrong -------------------------------------------------------

    def _refused(self, refusal: HubRefusalError) -> float:
        self._time.heard(refusal.hub_now)
        self._is_disowned = refusal.reason in ("unauthorized", "forbidden")
        self._report(f"the hub gives nothing now [{refusal.code}]: {refusal.message}")
        if refusal.wipe:
            self._remove(expired_only=False)
        if refusal.wipe or refusal.reason == "needs_login":
            self._set_all(State.SIGN_IN, refusal.message, refusal.code)
        elif refusal.is_final:
            self._set_all(State.REFUSED, refusal.message, refusal.code)
        elif refusal.reason != "rate_limited":
            self._set_all(State.LATE, refusal.message, refusal.code)
        self._failures = 0 if refusal.is_final else self._failures + 1
        if refusal.next_poll is None:
            return self._bounded(backoff(self._failures, self._rng))
        return self._wait_after(refusal.next_poll)

    def _trouble(self, error: EscapeHubError) -> float:
        """A turn without the hub's word: say so once, keep everything, come back soon."""
        self._failures += 1
        self._report(f"[{error.code}] {error.message}")
        now = self._time.now()
        lacking = any((a.expires_at or 0.0) <= now for a in self._status.audiences)
        # The hub's last word "sign in" stands. One lost reply, as when the hub restarts,
        # is no news while the files live.
        if self._status.state is not State.SIGN_IN and (lacking or self._failures > 1):
            self._set_all(State.LATE, error.message, error.code)
        return self._bounded(backoff(self._failures, self._rng))

    def _set_all(self, state: State, message: str, code: str) -> None:
        words = WORDS[state]
        self._status = replace(
            self._status,
            state=state,
            message=message or words,
            reference=code,
            audiences=tuple(
                replace(a, state=state, message=words, reference=code)
                for a in self._status.audiences
            ),
        )

    def _report(self, problem: str) -> None:
        """Log a problem when it is new, and its end."""
        if problem and problem != self._last_problem:
            self._log.warning("%s", problem)
        elif self._last_problem and not problem:
            self._log.info("the hub answers again")
        self._last_problem = problem

    def _wait_after(self, next_poll: float) -> float:
        return self._bounded(spread(next_poll, self._rng))

    def _bounded(self, wait: float) -> float:
        """When a sign-in is due: remove what has expired, and come back for the next to expire."""
        if self._status.state is not State.SIGN_IN:
            return wait
        self._remove(expired_only=True)
        now = self._time.now()
        lives = [a.expires_at - now for a in self._status.audiences if a.expires_at is not None]
        return max(min([wait, *(life for life in lives if life > 0)]), 1.0)

    def _remove(self, *, expired_only: bool) -> None:
        now = self._time.now() if expired_only else float("inf")
        left = self._files.remove(
            self._status.audiences,
            # A file whose end is unknown goes with a wipe only.
            lambda a: not expired_only or (a.expires_at is not None and a.expires_at <= now),
        )
        self._status = replace(self._status, audiences=left)

    def note(self, line: str) -> None:
        """Tell people ``line``: in the log now, in ``status.json`` from the next turn on."""
        self._log.warning("%s", line)
        self._notes = (*self._notes, line)

    def save_notes(self) -> None:
        """Bring notes into ``status.json`` before the next turn; by the agent's own thread only."""
        if self._notes:
            self._save_status(self._next_wait)

    def _save_status(self, wait: float) -> None:
        now = self._time.now()
        self._status = replace(
            self._status,
            sign_in_url=self._sign_in_url,
            updated_at=now,
            next_poll_at=now + wait,
            writer_pid=os.getpid(),
            notes=self._notes,
        )
        try:
            self._files.save_status(self._status)
        except CredentialFileError as error:
            self._report(f"[{error.code}] {error.message}")

    # -- the loop -------------------------------------------------------------------

    def wait(self, seconds: float) -> bool:
        """Wait for ``seconds``, `poke`, `stop` or a jump of the clock; whether to go on."""
        if not self._stopping and self._waiter.wait(seconds) == "jumped":
            self._log.info("the clock was set, or the machine slept: asking the hub at once")
        return not self._stopping

    def run(self) -> None:
        """Take turns until `stop`; the first one when the last `step` said."""
        while self.wait(self._next_wait):
            self.step()

    def poke(self) -> None:
        """Ask the hub now rather than at the next poll, unless it was asked a moment ago."""
        if self._clock.elapsed() - self._last_turn >= POLL_BOUNDS[0]:
            self._waiter.wake()

    @property
    def is_alive(self) -> bool:
        """Whether the loop of `start` runs."""
        return self._thread is not None and self._thread.is_alive()

    def start(self, first: Callable[[], object] | None = None) -> None:
        """Run ``first`` and then the loop, in a daemon thread."""

        def work() -> None:
            if first is not None:
                first()
            self.run()

        self._thread = threading.Thread(target=work, name="escape-hub-agent", daemon=True)
        self._thread.start()

    def stop(self, *, wipe: bool = True) -> None:
        """End the loop, and by default remove everything that was written. May be called twice."""
        self._stopping = True
        self._waiter.wake()
        self._hub.cancel()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(timeout=5.0)
        self._files.close(wipe=wipe)

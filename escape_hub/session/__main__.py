"""The sidecar: ``python -m escape_hub.session run|once|check|wipe``.

``run`` keeps the files fresh until SIGTERM and then removes them. ``once`` gets the
first files and ends. ``check`` succeeds when the first files are there (a
startupProbe). ``wipe`` removes what a killed agent left behind.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys

from escape_hub.core.session_plan import ENV, SessionPlan
from escape_hub.core.status import State
from escape_hub.errors import CredentialFileError, SettingsError
from escape_hub.session.agent import Agent
from escape_hub.session.bootstrap import FIRST_WAIT, first_files, make_agent, plan_from_environment
from escape_hub.session.session_files import SessionFiles
from escape_hub.session.status_file import FILE, parse_status
from escape_hub.session.token_files import read_private

DONE, FAILED, USAGE, NOT_SIGNED_IN, UNREACHABLE, REFUSED = 0, 1, 2, 3, 4, 5
_EXIT = {
    State.FRESH: DONE,
    State.RENEWING: DONE,
    State.LATE: UNREACHABLE,
    State.SIGN_IN: NOT_SIGNED_IN,
    State.REFUSED: REFUSED,
}
_SIGNALS = {signal.SIGTERM, signal.SIGINT}
_log = logging.getLogger("escape_hub.session")


def main(argv: list[str] | None = None) -> int:
    """Run one command; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m escape_hub.session", description=__doc__)
    parser.add_argument("command", choices=["run", "once", "check", "wipe"])
    parser.add_argument(
        "--wait",
        type=float,
        default=FIRST_WAIT,
        metavar="SECONDS",
        help="longest wait for the first files (default %(default)s)",
    )
    args = parser.parse_args(argv)
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    try:
        plan = plan_from_environment(os.environ)
        if plan is None:
            raise SettingsError(f"{ENV} is not set: the hub sets it for every session")
        if args.command == "check":
            return check(plan)
        if args.command == "wipe":
            return wipe(plan)
        agent = make_agent(plan, os.environ)
    except (SettingsError, CredentialFileError) as error:
        _log.error("[%s] %s", error.code, error.message)
        return USAGE if isinstance(error, SettingsError) else FAILED
    if args.command == "once":
        state = first_files(agent, timeout=args.wait)
        _log.info("%s: %s", state, agent.status.message)
        agent.stop(wipe=False)
        return _EXIT[state]
    return run(agent, wait=args.wait)


def run(agent: Agent, *, wait: float) -> int:
    """Keep the files until SIGTERM or SIGINT, then remove them."""
    # Blocked and waited for, not handled: a handler could interrupt a thread that holds a lock.
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    agent.start(first=lambda: first_files(agent, timeout=wait))
    while agent.is_alive:
        if signal.sigtimedwait(_SIGNALS, 1.0) is not None:
            agent.stop()
            return DONE
    _log.error("[agent] the agent ended by itself")
    agent.stop()
    return FAILED


def check(plan: SessionPlan) -> int:
    """DONE once an agent finished its first round, whether or not the hub answered."""
    found = read_private(f"{plan.token_dir}/{FILE}")
    if found is None or parse_status(found.text) is None:
        return FAILED
    return DONE


def wipe(plan: SessionPlan) -> int:
    """Remove the session's files unless an agent is at work."""
    files = SessionFiles(plan, _log)
    if not files.open():
        _log.error("[busy] another agent keeps the files in %s: end it first", plan.token_dir)
        return FAILED
    files.close(wipe=True)
    return DONE


if __name__ == "__main__":
    sys.exit(main())

"""A session's first files, before any kernel: ``rucio.cfg``, tokens, ``status.json``, scratch.

The wait for the hub is bounded: a session starts without the lake rather than
not at all, says so in ``status.json``, and the agent brings the files later.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from escape_hub.core.session_plan import ENV, SessionPlan
from escape_hub.core.status import State
from escape_hub.session.agent import Agent
from escape_hub.session.hub_client import HubClient, HubConnection
from escape_hub.session.pacing import SessionClock
from escape_hub.session.scratch import prepare_beside

#: How long a session's start may be held up (seconds).
FIRST_WAIT = 10.0
_RETRY = 0.5


def plan_from_environment(env: Mapping[str, str]) -> SessionPlan | None:
    """The plan the hub gave this session, None for a server that is not of ours.

    Raises `SettingsError` when it cannot be read.
    """
    text = env.get(ENV, "")
    return SessionPlan.from_json(text) if text else None


def make_agent(
    plan: SessionPlan, env: Mapping[str, str], *, logger: logging.Logger | None = None
) -> Agent:
    """An agent for the hub that ``env`` names. Raises `SettingsError`."""
    connection = HubConnection.from_environment(env)
    sign_in_url = env.get("JUPYTERHUB_HOST", "") + plan.sign_in_path
    return Agent(plan, HubClient(connection), sign_in_url=sign_in_url, logger=logger)


def first_files(
    agent: Agent, *, timeout: float = FIRST_WAIT, clock: SessionClock | None = None
) -> State:
    """Get the first files within ``timeout`` seconds, as writer or beside one; the state then."""
    clock = clock or SessionClock()
    deadline = clock.elapsed() + timeout
    while (left := deadline - clock.elapsed()) > 0:
        agent.step(timeout=min(left, 5.0))
        if agent.is_settled or (not agent.is_writer and agent.status.writer_pid):
            break
        left = deadline - clock.elapsed()
        if left <= 0 or not agent.wait(min(_RETRY, left)):
            break
    if agent.plan.scratch_dir and agent.is_writer:
        prepare_beside(agent.plan.scratch_dir, lambda why: agent.note(why) if why else None)
        agent.save_notes()
    return agent.status.state

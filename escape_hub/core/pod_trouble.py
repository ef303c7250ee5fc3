"""Why a session did not start on Kubernetes: for the person who waits, and for the operator.

Two sources: a refusal of the API (``Status``, Kubernetes API conventions) and the
status of a pod that exists and does not come up.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Pod = Mapping[str, Any]

_TELL = "Please tell its administrators."
_IMAGE = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
_LIMITS = re.compile(r"(maximum|minimum) \S+ usage per|limit to request ratio")
_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}


@dataclass(frozen=True, slots=True)
class Trouble:
    """``words`` for people, ``detail`` for the operator's log, ``status`` of the error page."""

    code: str
    status: int
    words: str
    detail: str = ""


def api_away(detail: str) -> Trouble:
    """The API cannot be reached, or has trouble of its own."""
    return Trouble(
        "cluster-away",
        503,
        "The cluster does not answer at the moment, so nothing can be started. Running sessions "
        "go on. Please try again in a minute.",
        detail,
    )


def api_refused(status: int, body: str | bytes | None, reason: str = "") -> Trouble:
    """What the API's answer means. ``body`` is a ``Status`` object, or nothing."""
    message = _message(body) or reason or f"HTTP status {status}"
    if status in (408, 429) or status >= 500:
        return api_away(message)
    if status == 403 and "exceeded quota" in message:
        words = (
            "There is no room for another session: the limit of this service is reached. Stop a "
            "session that you do not need, or try again later."
        )
        return Trouble("cluster-quota", 429, words, message)
    if status == 403 and re.search(
        r"(maximum|minimum) \S+ usage per|limit to request ratio", message
    ):
        words = (
            "This environment is larger, or smaller, than the cluster allows. Choose another "
            "one, or tell the administrators of this service."
        )
        return Trouble("cluster-limits", 400, words, message)
    if status == 403 and "violates PodSecurity" in message:
        words = f"The rules of the cluster do not allow a session as this service makes it. {_TELL}"
        return Trouble("cluster-policy", 500, words, message)
    if status == 401 or (status == 403 and " cannot " in message):
        words = f"This service is not allowed to do that in the cluster. {_TELL}"
        return Trouble("cluster-role", 500, words, message)
    if status in (400, 422):
        words = f"The cluster does not understand what this service wants to start. {_TELL}"
        return Trouble("cluster-invalid", 500, words, message)
    return Trouble(
        "cluster-refused", 500, f"The cluster refused to start the session. {_TELL}", message
    )


def stuck(pod: Pod | None, seconds: float) -> Trouble:
    """Why the pod is not running after ``seconds``, as far as its status tells."""
    if pod is None:
        return Trouble(
            "cluster-away", 503, api_away("").words, "the pod was not seen, or not created, in time"
        )
    for name, state in _waiting(pod):
        reason, detail = state.get("reason", ""), state.get("message") or state.get("reason", "")
        if reason in _IMAGE:
            return Trouble(
                "pod-image",
                500,
                f"The image of this environment cannot be had. Choose another one. {_TELL}",
                f"container {name}: {reason}: {detail}",
            )
        if reason in _CONFIG or reason == "CrashLoopBackOff":
            return Trouble(
                "pod-broken",
                500,
                f"A part of the session ({name}) cannot be started. {_TELL}",
                f"container {name}: {reason}: {detail}",
            )
    if unschedulable := _unschedulable(pod):
        return Trouble(
            "pod-room",
            503,
            "No machine of the cluster has room for this session now. Choose a smaller "
            "environment, or try again later.",
            unschedulable,
        )
    return Trouble(
        "pod-slow",
        503,
        f"The session did not start within {seconds:.0f} seconds. Please try again; if it stays "
        "like this, tell the administrators.",
        _summary(pod),
    )


def _message(body: str | bytes | None) -> str:
    try:
        found = json.loads(body or "{}")
    except ValueError:
        return ""
    message = found.get("message") if isinstance(found, dict) else ""
    return message[:2000] if isinstance(message, str) else ""


def _statuses(pod: Pod) -> Iterator[Mapping[str, Any]]:
    status = pod.get("status") or {}
    yield from status.get("initContainerStatuses") or []
    yield from status.get("containerStatuses") or []


def _waiting(pod: Pod) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for one in _statuses(pod):
        if waiting := (one.get("state") or {}).get("waiting"):
            yield one["name"], waiting


def _unschedulable(pod: Pod) -> str:
    for condition in (pod.get("status") or {}).get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return str(condition.get("message") or condition.get("reason") or "unschedulable")
    return ""


def _summary(pod: Pod) -> str:
    """Phase and containers in one line, as for the log."""
    parts = [f"phase {(pod.get('status') or {}).get('phase', 'unknown')}"]
    for one in _statuses(pod):
        state = next(iter(one.get("state") or {"unknown": {}}))
        ready = "ready" if one.get("ready") else "not ready"
        parts.append(f"{one['name']} {state}, {ready}")
    return "; ".join(parts)

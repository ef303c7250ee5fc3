"""The pages people see: they extend JupyterHub's own, and come with the authenticator.

`handlers` is called once at the hub's start. It puts our templates between those
of the operator (which win) and those of JupyterHub (which ours extend), so nothing
needs to be configured. Below ``escape/`` our templates can be extended in turn.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, FileSystemLoader, PrefixLoader
from jupyterhub.handlers.static import CacheControlStaticFilesHandler
from jupyterhub.utils import url_path_join
from tornado.httputil import url_concat

from escape_hub import __version__
from escape_hub.core.access import Status
from escape_hub.core.auth_state import AuthState, ForeignAuthStateError, NeedsLogin
from escape_hub.core.environments import PROFILE
from escape_hub.core.status import WORDS, State
from escape_hub.hub.spawning import EscapeSpawnerMixin

HERE = Path(__file__).parent
TEMPLATES = HERE / "templates"
STATIC = HERE / "static"

#: Texts an operator may replace in ``JupyterHub.template_vars``.
TEXTS = {
    "escape_service_name": "ESCAPE Data Lake",
    "escape_service_title": "Notebooks on the data lake",
    "escape_service_text": (
        "Sign in once, and your storage and the catalogue are simply there, in every notebook "
        "and terminal, for as long as you work."
    ),
    "escape_footer": "Data Lake as a Service",
}
STATE_WORDS = {
    State.FRESH: "fresh",
    State.RENEWING: "renewing",
    State.LATE: "late",
    State.SIGN_IN: "sign in again",
    State.REFUSED: "refused",
}


def template_paths() -> list[str]:
    """Our templates' directory."""
    return [str(TEMPLATES)]


def handlers(app: Any) -> list[tuple[Any, ...]]:
    """The route of our static files below ``/hub/``; switches our pages on for ``app``."""
    install(app)
    return [(r"/escape/static/(.*)", CacheControlStaticFilesHandler, {"path": str(STATIC)})]


def install(app: Any) -> None:
    """Make JupyterHub's two Jinja environments find our templates, with what they show."""
    settings = app.tornado_settings
    upstream = str(Path(app.data_files_path) / "templates")
    operators = [path for path in app.template_paths if Path(path) != Path(upstream)]
    loader = ChoiceLoader(
        [
            PrefixLoader({"templates": FileSystemLoader(upstream)}),
            PrefixLoader({"escape": FileSystemLoader(template_paths())}),
            FileSystemLoader([*operators, *template_paths(), upstream]),
        ]
    )
    for name in ("jinja2_env", "jinja2_env_sync"):
        settings[name].loader = loader
    variables = settings["template_vars"]
    authenticator = settings["authenticator"]
    # A callable here is called with the user for each page; the page calls its result.
    variables.setdefault(
        "escape_access", lambda user: partial(access, authenticator, app.hub, user)
    )
    variables.setdefault("escape_sessions", lambda user: partial(sessions, user))
    variables.setdefault("escape_issuer_down", lambda user: partial(issuer_down, authenticator))
    for name, text in {**TEXTS, "escape_version": __version__}.items():
        variables.setdefault(name, text)


def issuer_down(authenticator: Any) -> bool:
    """Whether the hub has given up on the issuer for the moment."""
    broker = getattr(authenticator, "broker", None)
    return bool(broker and broker.admission.breaker.is_open)


def sessions(user: Any) -> list[dict[str, str]]:
    """The user's servers that run, start or stop, for the home page."""
    found = []
    for name, row in sorted(user.orm_user.orm_spawners.items()):
        if row.server is None:
            continue
        spawner = user.spawners[name]
        # JupyterHub stores UTC without saying so.
        since = row.started.replace(tzinfo=UTC) if row.started else None
        found.append(
            {
                "name": getattr(row, "display_name", "") or name,
                "environment": _environment_name(spawner, row.user_options or {}),
                "pending": f"{spawner.pending} under way" if spawner.pending else "",
                **_times("since", since),
            }
        )
    return found


def _environment_name(spawner: Any, options: Mapping[str, Any]) -> str:
    catalogue = spawner.catalogue if isinstance(spawner, EscapeSpawnerMixin) else None
    found = catalogue.get(options.get(PROFILE)) if catalogue else None
    return found.name if found else ""


async def access(authenticator: Any, hub: Any, user: Any) -> dict[str, Any] | None:
    """What the home page shows of the access to the lake; None with another authenticator."""
    if not hasattr(authenticator, "broker"):
        return None
    now = authenticator.clock.now()
    try:
        # With the failures that the broker only remembers; asks no issuer.
        state = await authenticator.broker.state(user.name)
    except (ForeignAuthStateError, LookupError):
        state = AuthState("", "", needs_login=NeedsLogin("no-sign-in", WORDS[State.SIGN_IN], now))
    status: Status = authenticator.broker.status(state, now)
    login_url = authenticator.login_url(hub.base_url)
    return {
        "state": str(status.state),
        "summary": _with_reference(status) if status.state is State.SIGN_IN else "",
        "sign_in_url": url_concat(login_url, {"next": url_path_join(hub.base_url, "home")}),
        "rows": [row(one, status, now) for one in status.audiences.values()],
    }


def row(one: Any, status: Status, now: float) -> dict[str, Any]:
    """One audience's line. ``access.js`` makes the same of the status endpoint's reply."""
    living = one.expires_at is not None and one.expires_at > now
    if one.state is State.FRESH:
        lead = "fresh until"
    elif living:
        lead = "valid until"
    else:
        lead = "ran out at" if one.expires_at is not None else ""
    said_above = status.state is State.SIGN_IN and one.message == status.message
    return {
        "name": one.name,
        "label": one.label,
        "state": str(one.state),
        "state_text": STATE_WORDS[one.state],
        "used": _used(one, now),
        "lead": lead,
        "tail": "" if said_above else _with_reference(one),
        **_times("until", _moment(one.expires_at)),
        **_times("renewed", _moment(one.renewed_at)),
    }


def _with_reference(found: Any) -> str:
    if found.reference and found.state not in (State.FRESH, State.RENEWING):
        return f"{found.message} (reference: {found.reference})"
    return str(found.message)


def _used(one: Any, now: float) -> int:
    """Percent of the lifetime that is over."""
    if not one.lifetime or one.renewed_at is None:
        return 0
    share: float = (now - one.renewed_at) / one.lifetime
    return round(100 * min(1.0, max(0.0, share)))


def _moment(epoch: float | None) -> datetime | None:
    return None if epoch is None else datetime.fromtimestamp(epoch, UTC)


def _times(name: str, moment: datetime | None) -> dict[str, str]:
    """For a ``<time>`` element: the moment itself, and a text for browsers without scripts."""
    if moment is None:
        return {name: "", f"{name}_text": ""}
    return {
        name: moment.isoformat(timespec="seconds"),
        f"{name}_text": f"{moment:%H:%M} UTC",
    }

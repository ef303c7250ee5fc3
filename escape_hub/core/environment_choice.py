"""Who may use which environment, and what was chosen.

The same `select` decides in the form, in the REST API and again at the start
itself: filtering a form is no enforcement. A choice travels as JupyterHub's
``user_options``, in KubeSpawner's form::

    {"profile": "<environment's key>", "<option's key>": "<choice's key>"}
"""

from __future__ import annotations

import html
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from escape_hub.core.environments import (
    PROFILE,
    Catalogue,
    Environment,
    Kubernetes,
    Option,
    Resources,
    Selection,
)
from escape_hub.errors import EscapeHubError, NotAllowedError

_FORM_OPTION = "profile-option-"


class UnknownEnvironmentError(EscapeHubError):
    """What was asked for is not, or no longer, in the catalogue."""

    code = "environment-unknown"


@dataclass(frozen=True, slots=True)
class Preselection:
    """What the form shows as chosen. ``gone``: name or key of a last choice that is no more."""

    selection: Selection | None
    gone: str = ""


def offered(catalogue: Catalogue, groups: Collection[str]) -> tuple[Environment, ...]:
    """The environments somebody in ``groups`` may use, in the catalogue's order."""
    return tuple(e for e in catalogue.environments if e.allows(groups))


def select(
    catalogue: Catalogue, groups: Collection[str], user_options: Mapping[str, Any]
) -> Selection:
    """What ``user_options`` ask for; without ``profile`` the default environment.

    ``user_options`` are foreign input (anybody may post them): what the catalogue
    does not know is ignored, except as the value of a known option.
    Raises `NotAllowedError` when ``groups`` do not allow it, and
    `UnknownEnvironmentError` when there is no such environment or choice.
    """
    key = user_options.get(PROFILE)
    if not key:
        return _with_choices(_default(catalogue, groups), user_options)
    environment = catalogue.get(key)
    if environment is None:
        raise UnknownEnvironmentError(
            f"The environment {str(key)[:80]!r} is not offered here (any more). Choose another one."
        )
    if not environment.allows(groups):
        raise NotAllowedError(
            f"The environment {environment.name!r} is for members of "
            f"{_any_of(environment.allowed_groups)}, and you are not in "
            f"{'it' if len(environment.allowed_groups) == 1 else 'any of them'}. Choose another "
            "one, or ask the administrators of the group to let you in and sign in again.",
            code="environment-not-allowed",
        )
    return _with_choices(environment, user_options)


def preselect(
    catalogue: Catalogue, groups: Collection[str], last: Mapping[str, Any]
) -> Preselection:
    """The last choice where it still stands, else the default, else nothing at all."""
    key = last.get(PROFILE)
    known = catalogue.get(key)
    if known is not None and known.allows(groups):
        try:
            return Preselection(_with_choices(known, last))
        except UnknownEnvironmentError:
            return Preselection(_with_choices(known, {}))
    gone = (known.name if known else str(key)[:80]) if key else ""
    try:
        return Preselection(_with_choices(_default(catalogue, groups), {}), gone)
    except NotAllowedError:
        return Preselection(None, gone)


def options_from_form(form: Mapping[str, Sequence[Any]]) -> dict[str, str]:
    """``user_options`` from the form's fields (lists of strings, as JupyterHub hands them on).

    Only the options of the chosen environment are kept: the form holds those of all.
    """
    profile = _first(form.get(PROFILE))
    if not profile:
        return {}
    prefix = f"{_FORM_OPTION}{profile}--"
    chosen = {n[len(prefix) :]: _first(v) for n, v in form.items() if n.startswith(prefix)}
    return {**{n: v for n, v in chosen.items() if n != PROFILE and v}, PROFILE: profile}


def profile_list(catalogue: Catalogue, groups: Collection[str]) -> list[dict[str, Any]]:
    """KubeSpawner's ``profile_list`` (7.1) for somebody in ``groups``.

    KubeSpawner puts the texts into its form as they are, so they are escaped here.
    """
    found = [_profile(e) for e in offered(catalogue, groups)]
    defaults = [p for p in found if p["default"]]
    if found and not defaults:
        found[0]["default"] = True
    return found


def _default(catalogue: Catalogue, groups: Collection[str]) -> Environment:
    allowed = offered(catalogue, groups)
    if not allowed:
        wanted = frozenset[str]().union(*(e.allowed_groups for e in catalogue.environments))
        raise NotAllowedError(
            f"Every environment here is for members of {_any_of(wanted)}, and you are in none "
            "of them. Ask the administrators of a group to let you in, then sign in again.",
            code="environment-none",
        )
    return next((e for e in allowed if e.default), allowed[0])


def _with_choices(environment: Environment, user_options: Mapping[str, Any]) -> Selection:
    choices = {}
    for option in environment.profile_options:
        wanted = user_options.get(option.key)
        if not wanted:
            choices[option.key] = option.default
            continue
        found = next((c for c in option.choices if c.key == wanted), None)
        if found is None:
            raise UnknownEnvironmentError(
                f"{environment.name!r} does not offer {str(wanted)[:80]!r} for {option.name!r}. "
                "Choose another one."
            )
        choices[option.key] = found
    return Selection(environment, choices)


def _profile(environment: Environment) -> dict[str, Any]:
    options = {o.key: _profile_option(o) for o in environment.profile_options}
    return {
        "slug": environment.key,
        "display_name": html.escape(environment.name),
        "description": html.escape(environment.description),
        "default": environment.default,
        "kubespawner_override": _override(environment.resources, environment.kubernetes),
        **({"profile_options": options} if options else {}),
    }


def _profile_option(option: Option) -> dict[str, Any]:
    default = option.default
    return {
        "display_name": html.escape(option.name),
        "choices": {
            c.key: {
                "display_name": html.escape(c.name),
                "default": c is default,
                "kubespawner_override": _override(c.resources, c.kubernetes),
            }
            for c in option.choices
        },
    }


def _override(resources: Resources, kubernetes: Kubernetes) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if kubernetes.image:
        found["image"] = kubernetes.image
    if resources.cpu is not None:
        found["cpu_limit"] = resources.cpu
    if resources.memory:
        found["mem_limit"] = resources.memory
    if resources.gpu:
        found["extra_resource_limits"] = {"nvidia.com/gpu": str(resources.gpu)}
    if kubernetes.node_selector:
        found["node_selector"] = dict(kubernetes.node_selector)
    return {**found, **kubernetes.kubespawner_override}


def _any_of(groups: Collection[str]) -> str:
    names = [repr(g) for g in sorted(groups)]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"


def _first(values: Sequence[Any] | None) -> str:
    return values[0] if values and isinstance(values[0], str) else ""

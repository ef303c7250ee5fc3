"""Everything that can be made to go wrong, live, through the control API.

`Faults` is what ``GET dev/faults`` shows. ``PUT`` sets the given keys and puts
all others back to their start, ``PATCH`` leaves the others as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from escape_hub.demo.iam import hostile
from escape_hub.demo.iam.config import DIALECTS, REUSE, IamConfig

#: ``drop`` closes the connection unprocessed, ``lost_reply`` processes the request first;
#: ``307`` sends the request on to another origin, where ``caught`` counts whoever follows.
MODES = ("none", "307", "500", "502", "503", "504", "429", "hang", "drop", "lost_reply", "garbage")
GRANTS = ("any", "refresh_token", "authorization_code", "token-exchange")


@dataclass(frozen=True, slots=True)
class Fault:
    """How one endpoint fails. ``times`` counts down to 0 and disarms; None is for ever."""

    mode: str = "none"
    retry_after: int | None = None
    grant: str = "any"
    times: int | None = None

    def applies(self, grant: str) -> bool:
        """Whether a request with this grant type (empty elsewhere) is hit."""
        return self.mode != "none" and self.times != 0 and self.grant in ("any", grant)

    def used(self) -> Fault:
        """This fault after it struck once."""
        return self if self.times is None else dataclasses.replace(self, times=self.times - 1)


@dataclass(frozen=True, slots=True)
class Faults:
    """The present faults and live settings.

    ``users`` overrides ``groups``, ``sub``, ``name``, ``email``, ``password`` or ``claims``
    of a user, as in ``{"alice": {"groups": []}}``. ``hostile`` is described in
    the module of that name. ``delay`` is added to every token request, before
    it is processed.
    """

    token: Fault = Fault()
    userinfo: Fault = Fault()
    jwk: Fault = Fault()
    discovery: Fault = Fault()
    authorize: Fault = Fault()
    introspect: Fault = Fault()
    revoke: Fault = Fault()
    end_session: Fault = Fault()
    refuse_audience: tuple[str, ...] = ()
    refuse_audience_error: str = ""
    aup_unsigned: tuple[str, ...] = ()
    suspended: tuple[str, ...] = ()
    invalid_client: bool = False
    delay: float = 0.0
    access_token_lifetime: int = 3600
    refresh_token_lifetime: int = 30 * 24 * 3600
    refresh_rotation: bool = False
    refresh_reuse: str = "refuse"
    consent: bool = False
    dialect: str = "iam-new"
    users: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    hostile: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The JSON object of the control API."""
        return dataclasses.asdict(self)


def initial(config: IamConfig) -> Faults:
    """No faults, and the live settings as the configuration says."""
    return Faults(
        access_token_lifetime=config.access_token_lifetime,
        refresh_token_lifetime=config.refresh_token_lifetime,
        refresh_rotation=config.refresh_rotation,
        refresh_reuse=config.refresh_reuse,
        consent=config.consent,
        dialect=config.dialect,
    )


def _fault(key: str, raw: Any) -> Fault:
    known = {f.name for f in dataclasses.fields(Fault)}
    if not isinstance(raw, Mapping) or set(raw) - known:
        raise ValueError(f"{key}: must be an object with the keys {sorted(known)}")
    fault = Fault(**raw)
    if fault.mode not in MODES:
        raise ValueError(f"{key}.mode: must be one of {list(MODES)}")
    if fault.grant not in GRANTS:
        raise ValueError(f"{key}.grant: must be one of {list(GRANTS)}")
    for name in ("retry_after", "times"):
        value = getattr(fault, name)
        if value is not None and (not isinstance(value, int) or value < 0):
            raise ValueError(f"{key}.{name}: must be null or a whole number from 0")
    return fault


_USER_KEYS = {"groups", "sub", "name", "email", "password", "claims"}


def _users(raw: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(raw, Mapping):
        raise ValueError("users: must be an object, user name to what is overridden")
    for name, entry in raw.items():
        if not isinstance(entry, Mapping) or set(entry) - _USER_KEYS:
            raise ValueError(f"users.{name}: must be an object with keys of {sorted(_USER_KEYS)}")
    return {name: dict(entry) for name, entry in raw.items()}


def _value(key: str, default: Any, raw: Any) -> Any:
    """``raw`` as the type that the field has; `ValueError` says what was expected."""
    if key == "users":
        return _users(raw)
    if key == "hostile":
        return hostile.check(raw)
    if isinstance(default, Fault):
        return _fault(key, raw)
    if isinstance(default, tuple):
        if not isinstance(raw, list) or not all(isinstance(item, str) for item in raw):
            raise ValueError(f"{key}: must be a list of strings")
        return tuple(raw)
    if isinstance(default, bool):
        if not isinstance(raw, bool):
            raise ValueError(f"{key}: must be true or false")
        return raw
    if isinstance(default, int | float):
        if isinstance(raw, bool) or not isinstance(raw, int | float) or raw < 0:
            raise ValueError(f"{key}: must be a number of seconds from 0")
        return type(default)(raw)
    if not isinstance(raw, str):
        raise ValueError(f"{key}: must be a string")
    choices = {"refresh_reuse": REUSE, "dialect": DIALECTS}.get(key)
    if choices and raw not in choices:
        raise ValueError(f"{key}: must be one of {list(choices)}")
    return raw


def merge(current: Faults, raw: Any) -> Faults:
    """``current`` with the given keys replaced; `ValueError` names a wrong key."""
    if not isinstance(raw, Mapping):
        raise ValueError("the body must be a JSON object")
    known = {f.name for f in dataclasses.fields(Faults)}
    if unknown := sorted(set(raw) - known):
        raise ValueError(f"unknown keys {unknown}; known are {sorted(known)}")
    changes = {key: _value(key, getattr(current, key), value) for key, value in raw.items()}
    return dataclasses.replace(current, **changes)

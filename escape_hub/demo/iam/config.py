"""What the development IAM is told at start: users, clients, rules of its dialect."""

from __future__ import annotations

import dataclasses
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from escape_hub.errors import SettingsError

CLIENT_ID = "escape-hub"
#: Public knowledge on purpose: it opens nothing but a service on this machine.
CLIENT_SECRET = "demo-secret-not-for-production"  # noqa: S105
SCOPES = (
    "openid", "profile", "email", "offline_access", "wlcg.groups", "eduperson_entitlement",
    "storage.read:/", "storage.create:/", "storage.modify:/",
)  # fmt: skip
DIALECTS = ("iam-new", "iam-old", "keycloak")
REUSE = ("refuse", "kill_family")


@dataclass(frozen=True, slots=True)
class UserConfig:
    """A person who can sign in. ``sub`` defaults to a stable UUID-like value of the name.

    ``claims`` are told beside the others with the scope ``profile``, as in Keycloak's
    ``{"resource_access": {"escape-hub": {"roles": ["teacher"]}}}``.
    """

    password: str = field(repr=False)
    groups: tuple[str, ...] = ()
    name: str = ""
    email: str = ""
    sub: str = ""
    claims: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClientConfig:
    """A registered confidential client (RFC 6749 section 2). URIs are compared exactly."""

    secret: str = field(repr=False)
    redirect_uris: tuple[str, ...] = ()
    scopes: tuple[str, ...] = SCOPES
    grants: tuple[str, ...] = ("authorization_code", "refresh_token", "token-exchange")
    post_logout_redirect_uris: tuple[str, ...] = ()
    backchannel_logout_uri: str = ""


def _demo_users() -> dict[str, UserConfig]:
    return {
        "alice": UserConfig("alice", ("escape", "escape/cms"), "Alice Example"),
        "bob": UserConfig("bob", ("escape",), "Bob Example"),
    }


def _demo_clients() -> dict[str, ClientConfig]:
    home = "http://127.0.0.1:8000/hub"
    return {
        CLIENT_ID: ClientConfig(
            CLIENT_SECRET,
            redirect_uris=(f"{home}/oauth_callback",),
            post_logout_redirect_uris=(f"{home}/escape/signed_out",),
            backchannel_logout_uri=f"{home}/escape/backchannel_logout",
        )
    }


@dataclass(frozen=True, slots=True)
class IamConfig:
    """Settings of the development IAM. Times are seconds.

    ``issuer``: empty means ``http://HOST:PORT/`` (INDIGO IAM's issuers end in a
    slash); set it where clients reach the service by another address, as
    through a proxy that adds latency. ``audiences``: None accepts any, as
    INDIGO IAM does; a list refuses all others. ``refresh_reuse``: what happens
    when a rotated refresh token comes again: ``refuse`` refuses it and leaves
    the winner alone (MITREid, the base of INDIGO IAM 1.x), ``kill_family`` also
    ends everything of that login (Keycloak 26). ``dialect`` chooses the error
    codes, see `dialects`. ``callback_iss``: RFC 9207. ``groups_claim``:
    ``groups`` (INDIGO's iam profile), ``wlcg.groups`` or ``roles``.
    """

    host: str = "127.0.0.1"
    port: int = 8081
    issuer: str = ""
    users: Mapping[str, UserConfig] = field(default_factory=_demo_users)
    clients: Mapping[str, ClientConfig] = field(default_factory=_demo_clients)
    consent: bool = False
    callback_iss: bool = False
    end_session: bool = False
    backchannel_logout: bool = False
    dialect: str = "iam-new"
    refresh_rotation: bool = False
    refresh_reuse: str = "refuse"
    access_token_lifetime: int = 3600
    refresh_token_lifetime: int = 30 * 24 * 3600
    id_token_lifetime: int = 600
    code_lifetime: int = 60
    session_lifetime: int = 8 * 3600
    audiences: tuple[str, ...] | None = None
    groups_claim: str = "groups"
    state_file: Path | None = None

    def __post_init__(self) -> None:
        check_loopback(self.host)
        _one_of("dialect", self.dialect, DIALECTS)
        _one_of("refresh_reuse", self.refresh_reuse, REUSE)

    @property
    def issuer_url(self) -> str:
        """The issuer identifier (OpenID Connect Discovery section 2)."""
        if self.issuer:
            return self.issuer
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/"

    def endpoint(self, path: str) -> str:
        """The absolute URL of one endpoint, also where the issuer has no slash at its end."""
        return f"{self.issuer_url.rstrip('/')}/{path}"


def is_loopback(host: str) -> bool:
    """Whether ``host``, a name or an address, is this machine's loopback and nothing else."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_loopback(host: str) -> None:
    """Raise `SettingsError` unless ``host`` is loopback."""
    if not is_loopback(host):
        raise SettingsError(
            f"host: {host!r} is not a loopback address; the development IAM has published "
            "passwords and a control API, so it only ever listens on 127.0.0.1, ::1 or localhost"
        )


def _one_of(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise SettingsError(f"{key}: must be one of {list(known)}, not {value!r}")


def _build(cls: Any, raw: Any, where: str) -> Any:
    """An instance of the dataclass ``cls`` from a JSON object, lists becoming tuples."""
    if not isinstance(raw, Mapping):
        raise SettingsError(f"{where} must be a JSON object")
    fields = {f.name: f for f in dataclasses.fields(cls)}
    if unknown := sorted(set(raw) - set(fields)):
        raise SettingsError(f"{where}: unknown keys {unknown}; known are {sorted(fields)}")
    values = {k: tuple(v) if isinstance(v, list) else v for k, v in raw.items()}
    try:
        return cls(**values)
    except TypeError as error:
        raise SettingsError(f"{where}: {error}") from None


_SHORT = {
    "client_secret": "secret",
    "redirect_uris": "redirect_uris",
    "post_logout_redirect_uris": "post_logout_redirect_uris",
    "backchannel_logout_uri": "backchannel_logout_uri",
}


def parse_config(raw: Mapping[str, Any], *, where: str = "configuration") -> IamConfig:
    """An `IamConfig` from a JSON object of the same names; `SettingsError` names what is wrong.

    ``client_secret``, ``redirect_uris``, ``post_logout_redirect_uris`` and
    ``backchannel_logout_uri`` at the top stand for those of the client
    ``escape-hub``, in place of ``clients``.
    """
    values = dict(raw)
    short = {key: values.pop(key) for key in _SHORT if key in values}
    if short:
        if "clients" in values:
            raise SettingsError(f"{where}: {sorted(short)} must stand in the entry of 'clients'")
        entry = {"secret": CLIENT_SECRET} | {_SHORT[key]: value for key, value in short.items()}
        values["clients"] = {CLIENT_ID: entry}
    for key, cls in (("users", UserConfig), ("clients", ClientConfig)):
        if key in values:
            if not isinstance(values[key], Mapping):
                raise SettingsError(f"{where}: {key!r} must be a JSON object")
            values[key] = {
                name: _build(cls, entry, f"{where}: {key}[{name!r}]")
                for name, entry in values[key].items()
            }
    if values.get("state_file"):
        values["state_file"] = Path(values["state_file"])
    config = _build(IamConfig, values, where)
    assert isinstance(config, IamConfig)  # noqa: S101 (for the type checker)
    return config


def load_config(path: Path) -> IamConfig:
    """Read a JSON file; `SettingsError` names file, line and reason."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from None
    except json.JSONDecodeError as error:
        raise SettingsError(f"{path}, line {error.lineno}: {error.msg}") from None
    if not isinstance(raw, dict):
        raise SettingsError(f"{path}: must hold one JSON object")
    return parse_config(raw, where=str(path))

"""What an audience is: a service of the lake for which a session gets a token of its own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from escape_hub.errors import SettingsError

TokenFormat = Literal["eos", "bare"]
FORMATS: tuple[TokenFormat, ...] = ("eos", "bare")

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_ENDPOINT = re.compile(r"[A-Za-z0-9.-]+(/[A-Za-z0-9._~/-]*)?")
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]+( [\x21\x23-\x5b\x5d-\x7e]+)*")  # RFC 6749 3.3
_KEYS = {"audience", "scope", "file", "format", "label", "endpoint"}


@dataclass(frozen=True, slots=True)
class Audience:
    """One audience of the lake.

    ``name`` is the key in configuration, metrics and logs; ``audience`` is the
    value sent to the issuer (RFC 8693 section 2.1); ``scope`` is sent with it,
    for INDIGO IAM makes it mandatory; ``file`` is the token file's name inside
    the session's token directory; ``label`` is the name people know.
    ``endpoint`` (format ``eos`` only) is the introspection endpoint that EOS
    calls back, without scheme and without port.
    """

    name: str
    audience: str
    scope: str
    file: str
    format: TokenFormat = "bare"
    label: str = ""
    endpoint: str = ""


def check_endpoint(endpoint: str, *, where: str) -> str:
    """Return ``endpoint`` if EOS can read it, else raise `SettingsError`.

    EOS splits the token file at every ``:``, and takes what follows the second
    as an expiry (EOS 5.5, ``Mapping.cc``): a scheme or a port breaks every login.
    """
    if "://" in endpoint:
        raise SettingsError(
            f"{where}: the endpoint {endpoint!r} has a scheme; write host and path only, "
            "as in 'iam.example.org/userinfo'"
        )
    if ":" in endpoint:
        raise SettingsError(
            f"{where}: the endpoint {endpoint!r} has a port, which EOS would read as an expiry; "
            "write host and path only, as in 'iam.example.org/userinfo'"
        )
    if not _ENDPOINT.fullmatch(endpoint):
        raise SettingsError(
            f"{where}: {endpoint!r} is not a host with a path, as in 'iam.example.org/userinfo'"
        )
    return endpoint


def _audience(name: str, raw: Mapping[str, Any], where: str) -> Audience:
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"{where}: the name may hold lower-case letters, digits, '-' and '_' only"
        )
    if unknown := sorted(set(raw) - _KEYS):
        raise SettingsError(f"{where}: unknown keys {unknown}; known are {sorted(_KEYS)}")
    if bad := [k for k, v in raw.items() if not isinstance(v, str)]:
        raise SettingsError(f"{where}: {bad[0]!r} must be a string")
    if not (audience := raw.get("audience", "")):
        raise SettingsError(f"{where}: 'audience' is missing: what the issuer calls the service")
    scope = raw.get("scope", "")
    if not _SCOPE.fullmatch(scope):
        raise SettingsError(
            f"{where}: 'scope' must be scopes separated by one space; the issuer needs it explicit"
        )
    if "offline_access" in scope.split():
        raise SettingsError(
            f"{where}: 'offline_access' in an exchange is refused by the issuer: take it out"
        )
    file = raw.get("file", f"{name}.token")
    if not _FILE.fullmatch(file):
        raise SettingsError(f"{where}: 'file' must be a plain file name, not {file!r}")
    fmt = raw.get("format", "bare")
    if fmt not in FORMATS:
        raise SettingsError(f"{where}: 'format' must be one of {list(FORMATS)}, not {fmt!r}")
    endpoint = raw.get("endpoint", "")
    if fmt == "eos":
        if not endpoint:
            raise SettingsError(
                f"{where}: format 'eos' needs 'endpoint', as in 'iam.example.org/userinfo'"
            )
        check_endpoint(endpoint, where=where)
    elif endpoint:
        raise SettingsError(f"{where}: 'endpoint' belongs to format 'eos' only")
    return Audience(name, audience, scope, file, fmt, raw.get("label", "") or name, endpoint)


#: File names of the token directory that no audience may take.
RESERVED_FILES = frozenset({"rucio.cfg", "status.json", "agent.lock"})


def parse_audiences(
    raw: Mapping[str, Mapping[str, Any]], *, setting: str = "audiences"
) -> tuple[Audience, ...]:
    """Check the configured audiences; `SettingsError` names the entry and the mend."""
    if not raw:
        raise SettingsError(f"{setting} is empty: a session would get no token at all")
    found = []
    for name, entry in raw.items():
        where = f"{setting}[{name!r}]"
        if not isinstance(entry, Mapping):
            raise SettingsError(f"{where} must be a mapping with the keys {sorted(_KEYS)}")
        found.append(_audience(str(name), entry, where))
    files = [a.file for a in found]
    for one in found:
        if one.file in RESERVED_FILES or files.count(one.file) > 1:
            raise SettingsError(
                f"{setting}[{one.name!r}]: the file {one.file!r} is taken; choose another"
            )
    if sum(a.format == "eos" for a in found) > 1:
        raise SettingsError(
            f"{setting}: OAUTH2_TOKEN names one file, so only one audience can have format 'eos'"
        )
    return tuple(found)

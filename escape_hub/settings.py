"""Frozen settings, checked once. A `SettingsError` names the setting and the mend.

The hub fills them from its traits, which have the same names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args
from urllib.parse import urlsplit

from escape_hub.core.algorithms import ALGORITHMS
from escape_hub.core.urls import WELL_KNOWN, is_safe_url
from escape_hub.errors import SettingsError

ClientAuth = Literal["client_secret_basic", "client_secret_post"]


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerSettings:
    """How to talk to the identity service. Times are in seconds. ``repr`` shows no secret.

    ``issuer``: its address, as its metadata gives it, trailing slash included.
    ``expected_issuer``: what its tokens say in ``iss``, where that differs.
    ``ca_file``: PEM bundle that replaces the public certificate authorities.
    ``proxy``: address of an HTTP proxy for every call; loopback is never sent there.
    ``trust_env``: use HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE of the environment; a
    ``proxy`` or ``ca_file`` set here comes first.
    ``connect_timeout`` is for a connection, ``total_timeout`` for a whole call.
    ``clock_skew``: how far the two clocks may be apart.
    """

    issuer: str
    client_id: str
    client_secret: str = field(repr=False)
    expected_issuer: str | None = None
    client_auth: ClientAuth = "client_secret_basic"
    signing_algorithms: tuple[str, ...] = ("RS256", "ES256")
    ca_file: str | None = None
    proxy: str | None = field(default=None, repr=False)
    trust_env: bool = True
    connect_timeout: float = 3.0
    total_timeout: float = 30.0
    clock_skew: float = 60.0

    def __post_init__(self) -> None:
        self._check_issuer()
        self._check_client()
        self._check_algorithms()
        self._check_network()

    def _check_issuer(self) -> None:
        if not self.issuer:
            raise SettingsError(
                "issuer is empty: set it to the identity service's address, as in "
                "'https://iam.example.org/'"
            )
        if self.issuer.endswith(WELL_KNOWN):
            raise SettingsError(f"issuer: leave out {WELL_KNOWN!r}, it is added by itself")
        for name, value in (("issuer", self.issuer), ("expected_issuer", self.expected_issuer)):
            if value is None:
                continue
            # No query either: an issuer has none (Discovery 1.0 section 3).
            if not is_safe_url(value) or "?" in value:
                raise SettingsError(
                    f"{name}: it must be an https address without query, fragment and user, as "
                    "in 'https://iam.example.org/' (http is for loopback only)"
                )

    def _check_client(self) -> None:
        if not self.client_id:
            raise SettingsError("client_id is empty: register this hub at the identity service")
        if not self.client_secret:
            raise SettingsError(
                "client_secret is empty: the hub is a confidential client, for it exchanges tokens"
            )
        if self.client_auth not in get_args(ClientAuth):
            raise SettingsError(f"client_auth must be one of {list(get_args(ClientAuth))}")

    def _check_algorithms(self) -> None:
        if isinstance(self.signing_algorithms, str):
            raise SettingsError("signing_algorithms must be a list, as in ['RS256', 'ES256']")
        object.__setattr__(self, "signing_algorithms", tuple(self.signing_algorithms))
        if not self.signing_algorithms:
            raise SettingsError("signing_algorithms is empty: allow at least 'RS256'")
        if bad := [name for name in self.signing_algorithms if name not in ALGORITHMS]:
            raise SettingsError(
                f"signing_algorithms: {bad[0]!r} cannot be allowed; choose among "
                f"{sorted(ALGORITHMS)}"
            )

    def _check_network(self) -> None:
        if self.proxy is not None:
            # Its text may hold a password: it is not repeated.
            try:
                parts = urlsplit(self.proxy)
                good = parts.scheme in ("http", "https") and bool(parts.hostname)
                _ = parts.port
            except ValueError:
                good = False
            if not good:
                raise SettingsError(
                    "proxy: it must be an address as in 'http://proxy.example.org:3128'"
                )
        for name in ("connect_timeout", "total_timeout"):
            if not 0 < getattr(self, name) <= 600:
                raise SettingsError(f"{name}: it must be more than 0 and at most 600 seconds")
        if not 0 <= self.clock_skew <= 300:
            raise SettingsError("clock_skew: it must be between 0 and 300 seconds; mend the clocks")

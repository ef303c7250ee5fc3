"""What every provider offers to the tests, and what differs between them, as data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

#: A person's password is the person's name.
USERS = ("alice", "bob")


@dataclass(frozen=True)
class Addresses:
    """What a provider must know before a login.

    ``public_port``: the loopback port by which everybody else reaches the provider (a
    relay stands there), and which is part of its issuer. The URIs are the hub's; the
    back-channel one is called by the provider itself.
    """

    public_port: int
    redirect_uri: str
    post_logout_redirect_uri: str
    backchannel_logout_uri: str


@dataclass(frozen=True)
class Pages:
    """How a browser recognises and fills in the provider's own pages.

    ``username`` and ``password`` are field names. ``consent`` and ``logout`` are the
    fields of the button that agrees: set in the form that holds them, or in a form
    that has neither password nor them left out.
    """

    username: str
    password: str
    consent: Mapping[str, str] = field(default_factory=dict)
    logout: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Capabilities:
    """Documented differences. Each is asserted by a case, not only used to leave one out.

    ``exchange``: RFC 8693 by the provider, by a grant that the test added, or none;
    ``exchange_scopes``: what an operator configures for each audience.
    ``offline_scope``: a refresh token is given for the scope ``offline_access`` only.
    ``replay``: what a spent refresh token, presented again, does to its successor;
    ``race_winners``: how many of two refreshes at once may succeed.
    ``rp_logout``: whether a logout with a good id_token_hint asks the person first;
    ``rp_logout_ends_session``: whether it ends the refresh token of an ordinary sign-in.
    ``dead_refresh_token``, ``wrong_secret``: the provider's ``error``;
    ``disabled_user_code``: the reference of ours that a locked account leads to.
    ``login_query``: what a login's authorization request needs besides.
    ``logout_by_post``: whether its end-session endpoint takes a POST, as RP-Initiated
    Logout 1.0 section 2 wants it; the hub's `logout_method` follows from it.
    ``allow``: the hub's setting that lets alice and bob in.
    """

    exchange: Literal["yes", "no", "grant of our own"]
    exchange_scopes: Mapping[str, str]
    issuer_ends_in_slash: bool
    callback_iss: bool
    offline_scope: bool
    replay: Literal["kills the session", "winner lives"]
    race_winners: tuple[int, ...]
    access_token_outlives_refresh: bool
    refreshed_id_token: Literal["without nonce", "with nonce"]
    userinfo_takes_exchanged: bool
    rp_logout: Literal["at once", "confirmation page"]
    rp_logout_ends_session: bool
    logout_by_post: bool
    backchannel_logout: bool
    disable_user: bool
    groups: bool
    dead_refresh_token: str
    disabled_user_code: str
    wrong_secret: str
    allow: Mapping[str, tuple[str, ...]]
    login_query: Mapping[str, str] = field(default_factory=dict)


class Provider(Protocol):
    """An OpenID provider on loopback, with rotation of refresh tokens on.

    ``port`` is where it listens itself. Attributes are valid once `start` has returned;
    `start` fails when the provider does not answer.
    """

    name: str
    title: str
    pages: Pages
    capabilities: Capabilities
    client_id: str
    client_secret: str
    addresses: Addresses
    port: int
    issuer: str
    version: str

    def start(self, addresses: Addresses) -> None:
        """Start and wait until it answers; ``version`` is then what it says of itself."""

    def stop(self) -> None:
        """End it at once; what it stored is gone."""

    def set_access_token_lifetime(self, seconds: int) -> None:
        """For tokens issued from now on."""

    def rotate_keys(self) -> None:
        """Sign with a new key from now on. Sessions live on."""

    def service(self, audience: str) -> tuple[str, str] | None:
        """Credentials of the service behind ``audience``, where it may introspect (RFC 7662)."""

    def revoke_user_session(self, user: str) -> None:
        """What an administrator does to end somebody's sessions."""

    def disable_user(self, user: str) -> None:
        """Lock the account, where the provider can (`Capabilities.disable_user`)."""

    def enable_user(self, user: str) -> None:
        """Undo `disable_user`."""


def make(name: str, directory: Path) -> Provider:
    """The provider called ``name``; its files go into ``directory``."""
    from tests.providers.keycloak import Keycloak
    from tests.providers.mitreid import MitreId
    from tests.providers.panva import Panva

    kinds: dict[str, type[Keycloak] | type[Panva] | type[MitreId]] = {
        kind.name: kind for kind in (Panva, MitreId, Keycloak)
    }
    directory.mkdir(parents=True, exist_ok=True)
    return kinds[name](directory)


NAMES = ("panva", "mitreid", "keycloak")

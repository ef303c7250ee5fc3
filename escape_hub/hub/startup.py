"""Checks at the start of the hub: a configuration that cannot work stops it with one line."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, NoReturn

from jupyterhub import crypto, orm, roles, scopes
from jupyterhub.app import JupyterHub

from escape_hub.errors import SettingsError
from escape_hub.hub.login import RESERVED_PARAMETERS
from escape_hub.hub.swan_names import OLD_CLASS, SWAN_NAMES

#: What a server's own token must be allowed to do at the token endpoint.
TOKEN_SCOPE = "custom:escape:tokens"  # noqa: S105 (the name of a scope)
#: The fragment of the configuration that defines the scope and grants it.
SCOPE_FRAGMENT = "hub_config/jupyterhub_config.d/40_roles.py"

#: Settings of upstream that would be ignored here, and what to use instead.
REPLACED: dict[str, str] = {
    "authorize_url": "nothing: it comes from the issuer's metadata",
    "token_url": "nothing: it comes from the issuer's metadata",
    "userdata_url": "nothing: it comes from the issuer's metadata",
    "userdata_from_id_token": "nothing: userinfo is asked, and must agree with the id_token",
    "userdata_params": "nothing",
    "userdata_token_method": "nothing: the token goes into the header",
    "token_params": "nothing",
    "extra_params": "nothing",
    "basic_auth": "client_auth",
    "validate_server_cert": "ca_file (certificates are always checked)",
    "tls_verify": "ca_file (certificates are always checked)",
    "http_request_kwargs": "ca_file and http_proxy",
    "claim_groups_key": "auth_state_groups_key, as in 'oauth_user.groups'",
    "username_key": "username_claim",
    "modify_auth_state_hook": "post_auth_hook, or c.Spawner.auth_state_hook",
    "refresh_user_hook": "nothing: tokens are renewed by the hub itself",
}

#: Switches that are never off: their safe value, and why.
FORCED: dict[str, tuple[Any, str]] = {
    "enable_auth_state": (True, "without it no token could be kept"),
    "enable_pkce": (True, "PKCE protects the authorization code"),
    "refresh_pre_spawn": (True, "a session starts with fresh tokens"),
}


def configured(authenticator: Any) -> Iterable[tuple[str, str]]:
    """``(section, name)`` of everything the operator set on the authenticator's classes."""
    for cls in type(authenticator).__mro__:
        section = authenticator.config.get(cls.__name__)
        for name in section or ():
            yield cls.__name__, name


def check_names(authenticator: Any) -> None:
    """Refuse names that nobody reads here: SWAN's, and upstream's that are replaced."""
    if OLD_CLASS in authenticator.config:
        old = sorted(authenticator.config[OLD_CLASS])
        hint = "; ".join(f"{n} -> {SWAN_NAMES[n]}" for n in old if n in SWAN_NAMES)
        raise SettingsError(
            f"c.{OLD_CLASS} is not read here: write c.EscapeAuthenticator instead"
            + (f" ({hint})" if hint else "")
        )
    for section, name in configured(authenticator):
        instead = SWAN_NAMES.get(name) or REPLACED.get(name)
        if instead and not (name in SWAN_NAMES and authenticator.has_trait(name)):
            raise SettingsError(f"c.{section}.{name} has no effect here: use {instead}")


def check_forced(authenticator: Any) -> None:
    """Refuse to start with a protection switched off."""
    for name, (value, why) in FORCED.items():
        if getattr(authenticator, name) != value:
            raise SettingsError(f"{name} cannot be {not value}: {why}; take the setting out")
    if authenticator.auth_refresh_age <= 0:
        raise SettingsError(
            "auth_refresh_age must be more than 0: with 0 the hub looks at nobody's sign-in any "
            "more, not even before a spawn"
        )
    if taken := sorted(RESERVED_PARAMETERS & set(authenticator.extra_authorize_params)):
        raise SettingsError(f"extra_authorize_params must not hold {taken}: the hub sets them")
    if "openid" not in authenticator.scope:
        raise SettingsError("scope must hold 'openid': a sign-in needs an id_token")


def check_encryption() -> None:
    """Refuse to start without a key: refresh tokens are never stored in the clear."""
    try:
        crypto.CryptKeeper.instance().check_available()
    except ValueError as error:
        raise SettingsError(f"{crypto.KEY_ENV}: {error}") from None
    except crypto.EncryptionUnavailable:
        raise SettingsError(
            f"{crypto.KEY_ENV} is not set: sign-ins are stored encrypted, and need a key that "
            "stays the same over restarts. Make one with 'openssl rand -hex 32' and put it into "
            "the hub's environment"
        ) from None


def check_scope() -> None:
    """Refuse to start without the scope of the token endpoint."""
    if TOKEN_SCOPE not in scopes.scope_definitions:
        raise SettingsError(
            f"the scope {TOKEN_SCOPE!r} is not defined, so no session could get a token: add "
            f"{SCOPE_FRAGMENT} to the configuration (c.JupyterHub.custom_scopes)"
        )


def check_hub_roles(db: Any, hub_roles: Mapping[str, Collection[str]]) -> None:
    """Refuse names that are no roles of the hub, or that the hub gives by itself."""
    own = {role["name"] for role in roles.get_default_roles()}
    for name, wanted in hub_roles.items():
        if name in own:
            raise SettingsError(
                f"hub_roles must not hold {name!r}, which the hub gives by itself"
                + (": use admin_roles" if name == "admin" else "")
            )
        if orm.Role.find(db, name) is None:
            raise SettingsError(
                f"hub_roles names {name!r}, and the hub has no such role: define it in "
                "c.JupyterHub.load_roles"
            )
        if not wanted:
            raise SettingsError(f"hub_roles[{name!r}] is empty, so nobody could have that role")


def missing_scope(username: str) -> SettingsError:
    """For a spawn whose server would not be let in at the token endpoint."""
    return SettingsError(
        f"the server's token of {username!r} lacks the scope '{TOKEN_SCOPE}!user': it must be in "
        f"the role 'user' and in Spawner.server_token_scopes; {SCOPE_FRAGMENT} sets both"
    )


def is_hub(parent: Any) -> bool:
    """Whether an authenticator's parent is a hub; a test may make one alone."""
    return isinstance(parent, JupyterHub)


def stop_with_line(app: Any, error: Exception) -> NoReturn:
    """End the hub with the reason in one line and no traceback (exit status 1)."""
    message = error.message if isinstance(error, SettingsError) else str(error)
    if "client_secret" in message and not isinstance(error, SettingsError):
        message = "client_secret must be a string"  # traitlets would show the value
    app.log.critical("The configuration cannot work: %s", message)
    app.exit(1)
    raise SystemExit(1)

"""Names that SWAN's operators know, and what replaces them here.

SWAN's ``KeyCloakAuthenticator`` is another program; only the names of its
settings stand here, so that an old configuration fails at start and says what
to write instead, rather than being ignored in silence.
"""

from __future__ import annotations

OLD_CLASS = "KeyCloakAuthenticator"

#: Old trait -> what to write instead, on ``c.EscapeAuthenticator``.
SWAN_NAMES: dict[str, str] = {
    "oidc_issuer": "issuer",
    "enable_logout": "logout_at_issuer",
    "logout_redirect_uri": "logout_redirect_url",
    "keycloak_logout_url": "logout_at_issuer (the address comes from the issuer's metadata)",
    "claim_roles_key": "roles_claim (a claim's name, with '.' between nested names)",
    "admin_role": "admin_roles (a set)",
    "exchange_tokens": "audiences",
    "jwt_signing_algorithms": "signing_algorithms",
    "check_signature": "nothing: signatures are always checked",
    "verify_aud": "nothing: the audience is always checked",
    "get_uid_hook": "c.Spawner.auth_state_hook (the claims are in auth_state['oauth_user'])",
    "pre_spawn_hook": "audiences, which puts the token files into the session; "
    "for anything else c.Spawner.pre_spawn_hook",
}

#: Traits of SWAN that have the same name here and upstream.
SAME_NAMES: tuple[str, ...] = (
    "allowed_roles",
    "auth_refresh_age",
    "client_id",
    "client_secret",
    "logout_redirect_url",
    "oauth_callback_url",
    "scope",
    "username_claim",
)

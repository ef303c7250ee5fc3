"""How real identity services refuse: one table, so that a client is tested against each.

Sources: INDIGO IAM 1.12 (``IamRefreshTokenGranter``, ``TokenExchangeTokenGranter``),
MITREid Connect 1.3.4, the base of INDIGO IAM 1.x (``DefaultOAuth2ProviderTokenService``),
and Keycloak 26.7.3, the last two as seen on loopback.
"""

from __future__ import annotations

from dataclasses import dataclass


class OAuthError(Exception):
    """A refusal of the token endpoint: HTTP status, ``error``, ``error_description``."""

    def __init__(self, status: int, error: str, description: str = "") -> None:
        super().__init__(f"{status} {error}")
        self.status = status
        self.error = error
        self.description = description


@dataclass(frozen=True, slots=True)
class Refusal:
    """One way to refuse. The description may hold ``{token}``, ``{user}`` or ``{client}``."""

    status: int
    error: str
    description: str

    def fill(self, **values: str) -> OAuthError:
        """The error to raise, with the values written into its description."""
        return OAuthError(self.status, self.error, self.description.format(**values))


@dataclass(frozen=True, slots=True)
class Dialect:
    """The refusals that differ between services, and the type an exchange answers with."""

    dead_refresh: Refusal
    reused_refresh: Refusal
    dead_subject: Refusal
    suspended: Refusal
    suspended_subject: Refusal
    refused_audience: Refusal
    bad_secret: Refusal
    unknown_client: Refusal
    issued_token_type: str


_JWT = "urn:ietf:params:oauth:token-type:jwt"
_ACCESS = "urn:ietf:params:oauth:token-type:access_token"
_UNKNOWN = Refusal(401, "invalid_client", "Invalid client credentials")
_AUDIENCE = Refusal(403, "access_denied", "Token exchange not allowed")
_SUSPENDED = Refusal(401, "unauthorized", "User {user} is not active")

_KEYCLOAK_CLIENT = "Invalid client or Invalid client credentials"

DIALECTS: dict[str, Dialect] = {
    "iam-new": Dialect(
        dead_refresh=Refusal(400, "invalid_grant", "Invalid refresh token"),
        reused_refresh=Refusal(400, "invalid_grant", "Invalid refresh token"),
        dead_subject=Refusal(400, "invalid_grant", "Invalid subject token"),
        suspended=_SUSPENDED,
        suspended_subject=_SUSPENDED,
        refused_audience=_AUDIENCE,
        bad_secret=_UNKNOWN,
        unknown_client=_UNKNOWN,
        issued_token_type=_JWT,
    ),
    # MITREid writes the whole token into the description: a client must never log it.
    "iam-old": Dialect(
        dead_refresh=Refusal(401, "invalid_token", "Invalid refresh token: {token}"),
        reused_refresh=Refusal(401, "invalid_token", "Invalid refresh token: {token}"),
        dead_subject=Refusal(401, "invalid_token", "Invalid access token: {token}"),
        suspended=_SUSPENDED,
        suspended_subject=_SUSPENDED,
        refused_audience=_AUDIENCE,
        bad_secret=Refusal(401, "unauthorized", "Bad credentials"),
        unknown_client=Refusal(401, "unauthorized", "Bad credentials"),
        issued_token_type=_JWT,
    ),
    "keycloak": Dialect(
        dead_refresh=Refusal(400, "invalid_grant", "Token is not active"),
        reused_refresh=Refusal(
            400, "invalid_grant", "Maximum allowed refresh token reuse exceeded"
        ),
        dead_subject=Refusal(400, "invalid_request", "Invalid token"),
        suspended=Refusal(400, "invalid_grant", "User disabled"),
        suspended_subject=Refusal(400, "invalid_request", "Invalid token"),
        refused_audience=Refusal(400, "invalid_client", "Audience not found"),
        bad_secret=Refusal(401, "unauthorized_client", _KEYCLOAK_CLIENT),
        unknown_client=Refusal(401, "invalid_client", _KEYCLOAK_CLIENT),
        issued_token_type=_ACCESS,
    ),
}  # fmt: skip

#: INDIGO IAM, `IamRefreshTokenGranter`: 400 invalid_grant, and the refresh token stays valid.
AUP_TEXT = "User {user} needs to sign AUP for this organization in order to proceed."


def aup_unsigned(user: str) -> OAuthError:
    """The refusal that heals as soon as the user signs the acceptable use policy."""
    return OAuthError(400, "invalid_grant", AUP_TEXT.format(user=user))

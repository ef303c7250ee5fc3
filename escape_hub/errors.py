"""The errors of escape_hub. Each class says who must act, and no text carries a secret.

Every error has a ``code``: a short reference that a person can quote, that is
also in the hub's log, and that never changes once released.
"""

from __future__ import annotations


class EscapeHubError(Exception):
    """Base of all errors of this package.

    ``message`` is for the person who must act: what happened, which setting or
    file, what to do. It must never contain a token, a secret or a reply of the
    issuer that was not scrubbed.
    """

    code = "escape-hub"

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        if code is not None:
            self.code = code


class SettingsError(EscapeHubError):
    """The operator must change the configuration; raised before the hub serves anything."""

    code = "settings"


class TokenError(EscapeHubError):
    """A token is not what it must be."""

    code = "token"


class MalformedTokenError(TokenError):
    """Not a token of the expected form; it must not be written to a file."""

    code = "token-malformed"


class ExpiredTokenError(TokenError):
    """The token's life is over, or not begun."""

    code = "token-expired"


class AudienceMismatchError(TokenError):
    """The token is good, but for somebody else."""

    code = "token-audience"


class InvalidTokenError(TokenError):
    """A signed token of the issuer breaks a rule of OpenID Connect; ``code`` names the rule."""

    code = "token-invalid"


class IssuerError(EscapeHubError):
    """The issuer answered with a refusal, or not at all."""

    code = "issuer"

    def __init__(
        self, message: str, *, code: str | None = None, oauth_error: str | None = None
    ) -> None:
        super().__init__(message, code=code)
        #: The ``error`` member of RFC 6749 section 5.2, when there was one.
        self.oauth_error = oauth_error


class LoginRequiredError(IssuerError):
    """Terminal for the user (``invalid_grant`` and its kin): log in again.

    ``confirm`` is true when the refusal is one that we do not know: ask once more
    with the same refresh token, and believe the second answer.
    """

    code = "login-required"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        oauth_error: str | None = None,
        confirm: bool = False,
    ) -> None:
        super().__init__(message, code=code, oauth_error=oauth_error)
        self.confirm = confirm


class UserActionRequiredError(IssuerError):
    """The user must do something at the issuer (sign the acceptable use policy).

    The refresh token stays valid and must be kept. ``message`` is shown to the user.
    """

    code = "user-action"


class IssuerMisconfiguredError(IssuerError):
    """``invalid_client`` and its kin: alert the operator, log nobody out."""

    code = "issuer-misconfigured"


class IssuerUnavailableError(IssuerError):
    """Network, 408, 429, 5xx or garbage: keep what there is and retry.

    ``retry_after`` is the issuer's wish in seconds. ``maybe_processed`` is true
    when the request may have reached the issuer and only the reply was lost:
    a rotated refresh token may be spent, so it must not be presented again at once.
    """

    code = "issuer-unavailable"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        oauth_error: str | None = None,
        retry_after: float | None = None,
        maybe_processed: bool = False,
    ) -> None:
        super().__init__(message, code=code, oauth_error=oauth_error)
        self.retry_after = retry_after
        self.maybe_processed = maybe_processed


class NotAllowedError(EscapeHubError):
    """The person is known and not allowed here; ``message`` says which group is missing."""

    code = "not-allowed"


class IdentityConflictError(EscapeHubError):
    """The hub's user of that name belongs to another (issuer, subject)."""

    code = "identity-conflict"


class CredentialFileError(EscapeHubError):
    """A file or directory of the session cannot be trusted or written; names path and mode."""

    code = "credential-file"

"""Who must act when the issuer refuses: a table, and the few lines that read it.

Each row cites where its knowledge comes from. The first row that fits decides.
Two rules stand above the table:

- Only the refresh grant can say that a person must log in again. At an exchange
  neither ``invalid_client`` nor ``invalid_request`` nor ``invalid_grant`` says who
  must act; it follows from what came before (`classify_refusal`, ``subject_fresh``).
- Whatever could be the operator's mistake logs nobody out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from escape_hub.core.scrub import scrub, shortened
from escape_hub.errors import (
    IssuerError,
    IssuerMisconfiguredError,
    IssuerUnavailableError,
    LoginRequiredError,
    UserActionRequiredError,
)

#: The requests that can be refused. "userinfo" and "revocation" are no grants of RFC 6749.
Grant = Literal["authorization_code", "refresh_token", "token-exchange", "userinfo", "revocation"]


class Act(Enum):
    """Who must act; each value has its class in `escape_hub.errors`."""

    RETRY = "retry"
    LOGIN = "login"
    CONFIRM = "log in, once a second try says the same"
    USER = "the user, at the issuer"
    OPERATOR = "operator"
    SUBJECT = "the subject token was refused: what came before decides"


@dataclass(frozen=True, slots=True)
class Row:
    """A refusal we know. ``None`` in a column fits everything; ``description`` is searched."""

    grant: str | None
    status: frozenset[int] | None
    error: frozenset[str] | None
    description: re.Pattern[str] | None
    act: Act
    code: str
    message: str
    source: str


def _row(
    grant: str | None,
    status: Iterable[int] | None,
    error: str | None,
    description: str | None,
    act: Act,
    code: str,
    message: str,
    source: str,
) -> Row:
    return Row(
        grant,
        None if status is None else frozenset(status),
        None if error is None else frozenset(error.split()),
        None if description is None else re.compile(description, re.IGNORECASE),
        act,
        code,
        message,
        source,
    )


#: Characters of an issuer's words that are looked at. MITREid echoes whole tokens in them.
_MAX_ERROR, _MAX_DESCRIPTION = 200, 4096
# Gaps have an end: with ".*" a description of the right words would be searched for minutes.
_AUP = (
    r"sign(ed|ing)?\s{1,9}(the\s{1,9})?(AUP|acceptable use)"
    r"|(AUP|acceptable use policy)\b.{0,100}\bsign"
)
_DEAD = "the sign-in is no longer valid at the identity service: sign in again"
_DISABLED = "the identity service has suspended this account: ask its administrators"
_CLIENT = "the identity service refuses this hub's client: check client_id and client_secret"
_OPERATOR = "the identity service refuses what this hub is set up to ask for"
_NOT_ALLOWED = "an exchange is not allowed: have the issuer's administrators allow it"

TABLE: tuple[Row, ...] = (
    # The person must do something at the issuer; the refresh token stays valid.
    _row(None, None, None, _AUP, Act.USER, "aup-unsigned",
         "the identity service asks you to sign its acceptable use policy: open its page, sign, "
         "and come back", "INDIGO IAM IamRefreshTokenGranter, TokenExchangeTokenGranter"),
    # The account is off. Before the client's rows: IAM and MITREid share "unauthorized".
    _row("refresh_token", {401}, "unauthorized", r"\bnot active\b|suspend|disabled|locked",
         Act.LOGIN, "user-suspended", _DISABLED, "INDIGO IAM IamRefreshTokenGranter"),
    _row("refresh_token", None, "invalid_grant",
         r"\buser (is )?disabled\b|suspend|account.{0,100}locked",
         Act.LOGIN, "user-suspended", _DISABLED, "Keycloak 26 (run): 400 'User disabled'"),
    _row("token-exchange", {401}, "unauthorized", r"\bnot active\b|suspend|disabled|locked",
         Act.SUBJECT, "exchange-subject-refused", "", "INDIGO IAM, as above"),
    # The subject of an exchange is dead or old.
    _row("token-exchange", None, "invalid_token invalid_grant", None,
         Act.SUBJECT, "exchange-subject-refused", "",
         "INDIGO IAM TokenExchangeTokenGranter (1.12: invalid_token, newer: invalid_grant)"),
    _row("token-exchange", {400}, "invalid_request", r"^invalid token\b|subject[ _]token",
         Act.SUBJECT, "exchange-subject-refused", "",
         "Keycloak 26 (run): expired, revoked, gone, disabled; RFC 8693 2.2.2"),
    # The rest of an exchange's refusals is the audience's configuration.
    _row("token-exchange", None, "invalid_client invalid_request", None,
         Act.OPERATOR, "exchange-audience",
         "it is unknown, has no scope of ours, or " + _NOT_ALLOWED,
         "Keycloak 26 (run): unknown audience, no scope, exchange off; IAM: grant not enabled"),
    _row("token-exchange", None, "invalid_target", None, Act.OPERATOR, "exchange-audience",
         "the issuer does not know it", "RFC 8693 2.2.2"),
    _row("token-exchange", None, "invalid_scope", None, Act.OPERATOR, "exchange-scope",
         "its scope is not granted to this client", "INDIGO IAM TokenExchangePdp"),
    _row("token-exchange", None, "access_denied", None, Act.OPERATOR, "exchange-denied",
         "the issuer's policy forbids it, or " + _NOT_ALLOWED,
         "INDIGO IAM handlePdpDecision; Keycloak 26 (run): foreign subject"),
    _row("token-exchange", None, "unsupported_grant_type", None, Act.OPERATOR,
         "exchange-unsupported", "the identity service knows no token exchange (RFC 8693)",
         "RFC 6749 5.2; MITREid (run)"),
    _row("token-exchange", None, "unauthorized_client unauthorized", None,
         Act.OPERATOR, "client-refused", _CLIENT, "RFC 6749 5.2; Keycloak 26, MITREid (run)"),
    # userinfo takes the access token alone; whether the sign-in lives, a refresh must say.
    _row("userinfo", {403}, None, None, Act.OPERATOR, "userinfo-scope",
         "userinfo needs the scope 'openid'", "RFC 6750 3.1; Keycloak 26 (run)"),
    _row("userinfo", None, None, None, Act.RETRY, "userinfo-refused",
         "the identity service does not take the access token at userinfo", "RFC 6750 3.1"),
    # The client.
    _row(None, None, "invalid_client unauthorized_client unauthorized", None,
         Act.OPERATOR, "client-refused", _CLIENT,
         "RFC 6749 5.2; Keycloak 26 (run): unauthorized_client; MITREid (run): unauthorized"),
    _row("authorization_code", None, "invalid_grant", r"redirect[ _]uri",
         Act.OPERATOR, "redirect-uri", "the redirect URI of this hub is not the registered one",
         "Keycloak 26: 'Incorrect redirect_uri'; RFC 6749 5.2"),
    _row(None, None, "invalid_scope invalid_target access_denied unsupported_grant_type", None,
         Act.OPERATOR, "request-refused", _OPERATOR, "RFC 6749 5.2, RFC 8707 2"),
    # Our request has one form for everybody: if it is malformed, it is not one person's doing.
    _row("refresh_token", None, "invalid_request", None, Act.OPERATOR, "request-refused",
         _OPERATOR, "RFC 6749 5.2"),
    _row("authorization_code", None, "invalid_request", None, Act.OPERATOR, "request-refused",
         _OPERATOR, "RFC 6749 5.2"),
    # The sign-in is over.
    _row("refresh_token", None, "invalid_grant", r"reuse", Act.LOGIN, "refresh-reused",
         "the sign-in was used twice and the identity service ended it: sign in again",
         "Keycloak 26 (run): 'Maximum allowed refresh token reuse exceeded'"),
    _row("refresh_token", None, "invalid_grant invalid_token", None, Act.LOGIN, "refresh-refused",
         _DEAD, "RFC 6749 5.2; INDIGO IAM 1.12 and MITREid (run): 401 invalid_token"),
    _row("authorization_code", None, "invalid_grant invalid_token", None, Act.LOGIN,
         "code-refused", "the sign-in took too long or was used before: start it again",
         "RFC 6749 5.2"),
    # What nobody told us about.
    _row("refresh_token", None, None, None, Act.CONFIRM, "refresh-refused-unknown", _DEAD,
         "unknown 4xx: terminal after one retry"),
    _row("authorization_code", None, None, None, Act.LOGIN, "code-refused-unknown",
         "the identity service did not accept the sign-in: start it again", "unknown 4xx"),
    _row("token-exchange", None, None, None, Act.OPERATOR, "exchange-refused-unknown",
         "the issuer gives no reason that is known here", "unknown 4xx"),
    _row(None, None, None, None, Act.RETRY, "issuer-refused-unknown",
         "the identity service refuses for a reason that is not known here", "unknown 4xx"),
)  # fmt: skip

# Shown as they are: the longer ones look like secrets to `scrub`.
_KNOWN_ERRORS = frozenset[str]().union(*(row.error for row in TABLE if row.error))

# Statuses that say nothing of a token, whatever the body holds: (code, what to say).
# A gateway's 502 or 504 may hide that the issuer did its work (RFC 9110 15.6.3, 15.6.5).
_GATEWAY = frozenset({502, 504})
_TRANSIENT: dict[int, tuple[str, str]] = {
    404: ("issuer-not-there", "nothing answers at the identity service's address"),
    405: ("issuer-not-there", "nothing answers at the identity service's address"),
    408: ("issuer-timeout", "the identity service did not answer in time"),
    421: ("issuer-busy", "the identity service cannot answer now"),
    425: ("issuer-busy", "the identity service cannot answer now"),
    429: ("issuer-busy", "the identity service asks for patience"),
}


def _transient(status: int, retry_after: float | None) -> IssuerUnavailableError | None:
    if status in _TRANSIENT:
        code, message = _TRANSIENT[status]
    elif 300 <= status < 400:
        code, message = "issuer-redirect", "the identity service answers with a redirect"
    elif 400 <= status < 500:
        return None
    else:
        code, message = "issuer-down", "the identity service does not work at the moment"
    return IssuerUnavailableError(
        f"{message} (HTTP {status})",
        code=code,
        retry_after=retry_after,
        maybe_processed=status in _GATEWAY,
    )


def read_error(body: bytes) -> tuple[str, str] | None:
    """``(error, error_description)`` of RFC 6749 section 5.2; None when there is no such reply."""
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or not isinstance(error := document.get("error"), str):
        return None
    description = document.get("error_description")
    if not isinstance(description, str):
        description = ""
    return shortened(error, _MAX_ERROR), shortened(description, _MAX_DESCRIPTION)


def _fits(row: Row, grant: str, status: int, error: str, description: str) -> bool:
    return (
        (row.grant is None or row.grant == grant)
        and (row.status is None or status in row.status)
        and (row.error is None or error in row.error)
        and (row.description is None or row.description.search(description) is not None)
    )


def classify_refusal(
    status: int,
    body: bytes,
    *,
    grant: Grant,
    audience: str = "",
    subject_fresh: bool = True,
    retry_after: float | None = None,
    secrets: Iterable[str] = (),
) -> IssuerError:
    """The error to raise for a reply that is no success.

    ``audience`` is named in what the operator reads. ``subject_fresh`` is whether
    the subject token of an exchange was got just before: then its refusal is about
    the audience, and else a refresh must judge first. ``retry_after`` is in seconds.
    ``secrets`` are the values that were sent and must not come back in a message.
    """
    if (transient := _transient(status, retry_after)) is not None:
        return transient
    if (reply := read_error(body)) is None and grant != "userinfo":
        return IssuerUnavailableError(
            f"the identity service's answer cannot be read (HTTP {status})",
            code="issuer-garbage",
            retry_after=retry_after,
        )
    error, description = reply or ("", "")
    row = next(r for r in TABLE if _fits(r, grant, status, error, description))
    secrets = tuple(secrets)
    shown = error if error in _KNOWN_ERRORS else scrub(error, secrets)[:40] or None
    words = scrub(description, secrets)
    said = f" (HTTP {status}{' ' + shown if shown else ''}{': ' + words if words else ''})"
    about = f"audience {audience!r}: " if audience else ""
    match row.act:
        case Act.USER:
            return UserActionRequiredError(
                f"{row.message}. It says: {words}", code=row.code, oauth_error=shown
            )
        case Act.LOGIN | Act.CONFIRM:
            return LoginRequiredError(
                row.message, code=row.code, oauth_error=shown, confirm=row.act is Act.CONFIRM
            )
        case Act.OPERATOR:
            return IssuerMisconfiguredError(
                about + row.message + said, code=row.code, oauth_error=shown
            )
        case Act.SUBJECT if subject_fresh:
            return IssuerMisconfiguredError(
                f"{about}the issuer refuses a subject token that it has just issued{said}",
                code=row.code,
                oauth_error=shown,
            )
        case Act.SUBJECT:
            return IssuerUnavailableError(
                f"{about}the subject token is too old to be exchanged; a refresh comes first{said}",
                code=row.code,
                oauth_error=shown,
            )
        case _:  # RETRY
            return IssuerUnavailableError(
                row.message + said, code=row.code, oauth_error=shown, retry_after=retry_after
            )

"""Requests to the token endpoint, and what a good reply is (RFC 6749, RFC 8693).

Refusals are in `escape_hub.core.refusals`. Access and refresh tokens are opaque
(RFC 6749 section 1.4): their life is ``expires_in``. Only an exchanged token that
happens to be a JWT is looked into, to see that it is for whom it was asked.
"""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote_plus

from escape_hub.core.audiences import Audience
from escape_hub.core.compact import peek_claims
from escape_hub.core.refusals import classify_refusal
from escape_hub.core.tokens import AccessToken
from escape_hub.errors import IssuerMisconfiguredError, IssuerUnavailableError

__all__ = [
    "DEFAULT_LIFETIME",
    "TokenReply",
    "basic_credentials",
    "classify_refusal",
    "code_request",
    "exchange_request",
    "parse_exchange_reply",
    "parse_token_reply",
    "refresh_request",
]

GRANT_EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
TYPE_ACCESS_TOKEN = "urn:ietf:params:oauth:token-type:access_token"  # noqa: S105 a name
TYPE_JWT = "urn:ietf:params:oauth:token-type:jwt"

#: Seconds that a token is taken to live when the issuer does not say (``expires_in`` is only
#: recommended). Short: a token renewed too early costs a call, one trusted too long costs work.
DEFAULT_LIFETIME = 300.0
#: Nothing lives longer than this here, whatever the issuer says: ten years in seconds.
LONGEST_LIFETIME = 315_360_000.0

#: An ``exp`` beyond it (epoch seconds) is no time; NaN is none either.
_LATEST = 1e15
_MAX_TOKEN = 16 * 1024
_B64TOKEN = re.compile(r"[A-Za-z0-9\-._~+/]+=*")  # RFC 6750 2.1
_VSCHAR = re.compile(r"[\x20-\x7e]+")  # RFC 6749 appendix A.17


@dataclass(frozen=True, slots=True)
class TokenReply:
    """A success of the token endpoint. ``repr`` shows no secret.

    ``refresh_token`` None means: keep the old one (RFC 6749 section 6). ``scope`` is
    empty when the issuer does not say, that is when it granted what was asked.
    """

    access_token: AccessToken
    refresh_token: str | None = field(default=None, repr=False)
    id_token: str | None = field(default=None, repr=False)
    scope: tuple[str, ...] = ()


def basic_credentials(client_id: str, client_secret: str) -> str:
    """The ``Authorization`` value of client_secret_basic; both parts are form-encoded first.

    RFC 6749 section 2.3.1.
    """
    pair = f"{quote_plus(client_id)}:{quote_plus(client_secret)}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def code_request(code: str, redirect_uri: str, code_verifier: str) -> dict[str, str]:
    """The form of RFC 6749 section 4.1.3 with PKCE (RFC 7636 section 4.5)."""
    return {
        "grant_type": "authorization_code",
        "code": code,
        "redirect_uri": redirect_uri,
        "code_verifier": code_verifier,
    }


def refresh_request(refresh_token: str) -> dict[str, str]:
    """The form of RFC 6749 section 6. Without scope: what was granted is granted again."""
    return {"grant_type": "refresh_token", "refresh_token": refresh_token}


def exchange_request(subject_token: str, audience: Audience) -> dict[str, str]:
    """The form of RFC 8693 section 2.1 for one audience.

    ``scope`` is always there (INDIGO IAM refuses or widens without it). Only an access
    token is asked for: a refresh token would be a second secret to keep.
    """
    return {
        "grant_type": GRANT_EXCHANGE,
        "subject_token": subject_token,
        "subject_token_type": TYPE_ACCESS_TOKEN,
        "requested_token_type": TYPE_ACCESS_TOKEN,
        "audience": audience.audience,
        "scope": audience.scope,
    }


def _garbage(what: str) -> IssuerUnavailableError:
    # It said 200: whatever it had to do is done, and a rotated refresh token is lost with it.
    return IssuerUnavailableError(
        f"the identity service's answer cannot be used: {what}",
        code="token-reply",
        maybe_processed=True,
    )


def _object(body: bytes) -> dict[str, Any]:
    try:
        document: Any = json.loads(body)
    except (ValueError, RecursionError):
        raise _garbage("it is no JSON") from None
    if not isinstance(document, dict):
        raise _garbage("it is no JSON object")
    return document


def _seconds(value: object) -> float | None:
    """A positive number of seconds; some issuers write it as a string. None when absent."""
    if value is None:
        return None
    if isinstance(value, str) and re.fullmatch(r"\d{1,12}", value):
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _garbage("'expires_in' is no number")
    if not value > 0:  # NaN too
        raise _garbage("'expires_in' is not positive")
    return float(min(value, LONGEST_LIFETIME))


def _text(document: dict[str, Any], name: str, form: re.Pattern[str]) -> str | None:
    value = document.get(name)
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > _MAX_TOKEN or not form.fullmatch(value):
        raise _garbage(f"{name!r} has not the form of a token")
    return value


def _access_token(document: dict[str, Any], now: float) -> AccessToken:
    if (value := _text(document, "access_token", _B64TOKEN)) is None:
        raise _garbage("'access_token' is missing")
    lifetime = _seconds(document.get("expires_in"))
    return AccessToken(value, now + (DEFAULT_LIFETIME if lifetime is None else lifetime), now)


def parse_token_reply(body: bytes, *, now: float) -> TokenReply:
    """Read a 200 of the code and refresh grants (RFC 6749 section 5.1).

    ``now`` is when the request was sent: the token cannot have been issued earlier.
    A reply that cannot be used is `IssuerUnavailableError` with ``maybe_processed``.
    """
    document = _object(body)
    kind = document.get("token_type")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise IssuerMisconfiguredError(
            "the identity service issues no bearer tokens to this client: have token_type "
            "'Bearer' set for it",
            code="token-type",
        )
    scope = document.get("scope")
    return TokenReply(
        access_token=_access_token(document, now),
        refresh_token=_text(document, "refresh_token", _VSCHAR),
        id_token=_text(document, "id_token", _B64TOKEN),
        scope=tuple(scope.split()) if isinstance(scope, str) else (),
    )


def _refused(audience: Audience, code: str, what: str) -> IssuerMisconfiguredError:
    return IssuerMisconfiguredError(f"audience {audience.name!r}: {what}", code=code)


def _check_jwt(
    token: AccessToken, claims: dict[str, Any], audience: Audience, issuer: str, skew: float
) -> AccessToken:
    """The token, its life cut to ``exp`` where that differs by more than the clocks may."""
    if claims.get("iss") != issuer:
        raise _refused(audience, "exchange-iss", f"the exchanged token is not of {issuer!r}")
    aud = claims.get("aud")
    names = aud if isinstance(aud, list) else [aud]
    if audience.audience not in names:
        raise _refused(
            audience,
            "exchange-aud",
            f"the exchanged token is not for {audience.audience!r}: the issuer ignores the "
            "audience that was asked for",
        )
    exp = claims.get("exp")
    if isinstance(exp, bool) or not isinstance(exp, (int, float)) or not abs(exp) < _LATEST:
        raise _refused(audience, "exchange-exp", "the exchanged token has no 'exp'")
    if exp <= token.obtained_at - skew:
        raise _refused(
            audience, "exchange-exp", "the exchanged token is born expired: compare the clocks"
        )
    if exp < token.expires_at - skew:
        return AccessToken(token.value, max(float(exp), token.obtained_at), token.obtained_at)
    return token


def parse_exchange_reply(
    body: bytes, *, now: float, audience: Audience, issuer: str, skew: float
) -> AccessToken:
    """Read a 200 of an exchange (RFC 8693 section 2.2.1).

    ``issuer`` is what ``iss`` must be when the token is a JWT. The signature is not
    checked: the token came from the issuer itself over TLS (as OpenID Connect Core
    3.1.3.7 allows for an id_token), and its audience will check it.
    """
    document = _object(body)
    if document.get("issued_token_type") not in (TYPE_ACCESS_TOKEN, TYPE_JWT):
        raise _refused(
            audience, "exchange-type", "the issuer answers an exchange with another kind of token"
        )
    kind = document.get("token_type")
    if not isinstance(kind, str) or kind.lower() not in ("bearer", "n_a"):
        raise _refused(audience, "token-type", "the exchanged token is no bearer token")
    token = _access_token(document, now)
    claims = peek_claims(token.value)
    return token if claims is None else _check_jwt(token, claims, audience, issuer, skew)

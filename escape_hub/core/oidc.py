"""What makes the issuer's metadata, an id_token and a logout_token valid.

OpenID Connect Core 1.0 section 3.1.3.7, Discovery 1.0 section 4.3, Back-Channel
Logout 1.0 section 2.6, RFC 8725 (JWT best current practice). Signatures are in
`escape_hub.core.keys`. Every refusal has a code of its own, which never changes.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from escape_hub.core.urls import differ_by_slash, is_safe_url
from escape_hub.errors import InvalidTokenError, IssuerMisconfiguredError, IssuerUnavailableError

LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
#: Seconds after its ``iat`` in which a logout_token is taken; it bounds the replay cache too.
LOGOUT_WINDOW = 600.0

#: Claims of an id_token that are about the token and not about the person.
_ABOUT_THE_TOKEN = frozenset("at_hash aud auth_time azp c_hash exp iat jti nbf nonce typ".split())

_ENDPOINTS = (
    "authorization_endpoint",
    "token_endpoint",
    "jwks_uri",
    "userinfo_endpoint",
    "revocation_endpoint",
    "end_session_endpoint",
)
_REQUIRED = frozenset({"authorization_endpoint", "token_endpoint", "jwks_uri"})


@dataclass(frozen=True, slots=True)
class Metadata:
    """What we use of the issuer's metadata. ``iss_in_callback``: RFC 9207 section 3.

    ``token_issuer`` is what ``iss`` must be in every token; it is ``issuer`` unless the
    operator set ``expected_issuer``.
    """

    issuer: str
    token_issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str | None = None
    revocation_endpoint: str | None = None
    end_session_endpoint: str | None = None
    iss_in_callback: bool = False


def code_challenge(code_verifier: str) -> str:
    """The S256 challenge of a PKCE verifier (RFC 7636 section 4.2)."""
    digest = hashlib.sha256(code_verifier.encode()).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def same_secret(one: str | None, other: str | None) -> bool:
    """Constant-time equality of two values that are both there (``state``, ``nonce``)."""
    if one is None or other is None:
        return False
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


def _check_issuer(found: object, issuer: str, expected: str | None) -> str:
    if not isinstance(found, str) or not found:
        raise IssuerUnavailableError(
            "the identity service's metadata names no issuer", code="discovery-garbage"
        )
    if found in (issuer, expected):
        return found
    if differ_by_slash(found, issuer):
        raise IssuerMisconfiguredError(
            f"the identity service calls itself {found!r} and is configured as {issuer!r}: they "
            f"differ by the trailing slash only. Set issuer to {found!r}; if its tokens carry "
            f"the other form, set expected_issuer to that one",
            code="discovery-issuer-slash",
        )
    raise IssuerMisconfiguredError(
        f"the metadata of {issuer!r} belongs to another issuer: check the setting 'issuer'",
        code="discovery-issuer",
    )


def parse_metadata(document: object, *, issuer: str, expected_issuer: str | None) -> Metadata:
    """Check a discovery document (Discovery 1.0 sections 3 and 4.3).

    The issuer must be, character by character, ``issuer`` or ``expected_issuer``: nobody
    strips a slash here. What is no metadata at all is `IssuerUnavailableError` (a
    maintenance page, say); metadata that we must not use is `IssuerMisconfiguredError`.
    """
    if not isinstance(document, Mapping):
        raise IssuerUnavailableError(
            "the identity service's metadata is no JSON object", code="discovery-garbage"
        )
    found = _check_issuer(document.get("issuer"), issuer, expected_issuer)
    endpoints: dict[str, str | None] = {}
    for name in _ENDPOINTS:
        url = document.get(name)
        if url is None and name not in _REQUIRED:
            endpoints[name] = None
        elif isinstance(url, str) and is_safe_url(url):
            endpoints[name] = url
        else:
            raise IssuerMisconfiguredError(
                f"the identity service's metadata has no usable {name!r}: it must be an https "
                "address",
                code="discovery-endpoint",
            )
    return Metadata(
        issuer=found,
        token_issuer=expected_issuer or issuer,
        iss_in_callback=document.get("authorization_response_iss_parameter_supported") is True,
        **endpoints,  # type: ignore[arg-type]  # the required ones are strings, seen above
    )


def check_callback_iss(metadata: Metadata, iss: str | None) -> None:
    """RFC 9207 section 2.4: ``iss`` in the callback is ours; promised but absent is refused."""
    if iss is None:
        if metadata.iss_in_callback:
            raise InvalidTokenError(
                "the identity service's answer does not say who it is from, though it promised to",
                code="callback-iss-missing",
            )
    elif iss != metadata.issuer:
        raise InvalidTokenError(
            "the answer to the sign-in came from another identity service", code="callback-iss"
        )


class _Claims:
    """Reads claims of one kind of token; every refusal is ``<kind>-<what>``."""

    def __init__(self, kind: str, claims: Mapping[str, Any], now: float, skew: float) -> None:
        self.kind, self.claims, self.now, self.skew = kind, claims, now, skew

    def refuse(self, what: str, why: str) -> InvalidTokenError:
        name = self.kind.replace("-", "_")
        return InvalidTokenError(f"{name}: {why}", code=f"{self.kind}-{what}")

    def text(self, name: str) -> str:
        value = self.claims.get(name)
        # Control characters and halves of characters are nothing that a database could hold.
        if not isinstance(value, str) or not 0 < len(value) <= 255 or not value.isprintable():
            raise self.refuse(name, f"the claim {name!r} is missing or no text")
        return value

    def time(self, name: str) -> float | None:
        value = self.claims.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.refuse(name, f"the claim {name!r} is no time")
        if not (isinstance(value, int) or math.isfinite(value)) or abs(value) > 1e15:
            raise self.refuse(name, f"the claim {name!r} is no time")
        return float(value)

    def issuer(self, expected: str) -> None:
        iss = self.claims.get("iss")
        if iss == expected:
            return
        if isinstance(iss, str) and differ_by_slash(iss, expected):
            raise self.refuse(
                "iss-slash",
                f"it is of {iss!r}, expected is {expected!r}: they differ by the trailing slash "
                f"only. Set expected_issuer to {iss!r}",
            )
        raise self.refuse("iss", "it is of another issuer")

    def audience(self, client_id: str) -> None:
        aud = self.claims.get("aud")
        names = aud if isinstance(aud, list) else [aud]
        if client_id not in names:
            raise self.refuse("aud", "it is for another client")
        azp = self.claims.get("azp")
        if azp is None and len(names) > 1:
            raise self.refuse("azp", "it is for several audiences and does not say who asked")
        if azp is not None and azp != client_id:
            raise self.refuse("azp", "another client asked for it")

    def times(self) -> float:
        """Check exp, iat and nbf; returns iat."""
        if (exp := self.time("exp")) is None:
            raise self.refuse("exp", "the claim 'exp' is missing")
        if exp + self.skew <= self.now:
            raise self.refuse("exp", "it has expired")
        if (iat := self.time("iat")) is None:
            raise self.refuse("iat", "the claim 'iat' is missing")
        if iat - self.skew > self.now:
            raise self.refuse("iat", "it is of the future: compare the clocks")
        if (nbf := self.time("nbf")) is not None and nbf - self.skew > self.now:
            raise self.refuse("nbf", "it is not valid yet: compare the clocks")
        return iat


def check_id_token(
    claims: Mapping[str, Any],
    *,
    issuer: str,
    client_id: str,
    nonce: str | None,
    now: float,
    skew: float,
    same_as: tuple[str, str] | None = None,
) -> None:
    """OpenID Connect Core 1.0 section 3.1.3.7, on claims whose signature is good.

    ``nonce`` None is for the id_token of a refresh, which has none at Keycloak; one
    that is there all the same is not looked at (section 12.2). Then ``same_as`` is the
    (issuer, subject) of the login, which must not change. ``skew`` is in seconds.
    """
    token = _Claims("id-token", claims, now, skew)
    token.issuer(issuer)
    subject = token.text("sub")
    token.audience(client_id)
    token.times()
    if nonce is not None:
        found = claims.get("nonce")
        if not isinstance(found, str) or not same_secret(found, nonce):
            raise token.refuse("nonce", "it does not belong to this sign-in")
    if same_as is not None and (issuer, subject) != same_as:
        raise token.refuse("identity", "the refreshed one is of another person or issuer")


def personal_claims(claims: Mapping[str, Any]) -> dict[str, Any]:
    """What an id_token says of the person, without what it says of itself."""
    return {name: value for name, value in claims.items() if name not in _ABOUT_THE_TOKEN}


def check_logout_token(
    claims: Mapping[str, Any], *, issuer: str, client_id: str, now: float, skew: float
) -> None:
    """Back-Channel Logout 1.0 section 2.6, on claims whose signature is good.

    Whether its ``jti`` was seen before is for `escape_hub.core.replay` to say.
    """
    token = _Claims("logout-token", claims, now, skew)
    token.issuer(issuer)
    token.audience(client_id)
    if token.times() + LOGOUT_WINDOW + skew <= now:
        raise token.refuse("iat", "it is too old")
    token.text("jti")
    events = claims.get("events")
    if not isinstance(events, Mapping) or not isinstance(events.get(LOGOUT_EVENT), Mapping):
        raise token.refuse("events", "it tells of no logout")
    if "nonce" in claims:
        raise token.refuse("nonce", "it carries a nonce, as only an id_token may")
    named = [name for name in ("sub", "sid") if claims.get(name) is not None]
    if not named:
        raise token.refuse("sub", "it names neither a person nor a session")
    for name in named:
        token.text(name)


def check_userinfo(claims: object, subject: str | None) -> dict[str, Any]:
    """OpenID Connect Core 1.0 section 5.3.2: ``sub`` is there, and the id_token's.

    ``subject`` None checks that there is a ``sub`` at all; the caller then compares.
    """
    found = claims.get("sub") if isinstance(claims, dict) else None
    if not isinstance(claims, dict) or not isinstance(found, str) or not found:
        raise InvalidTokenError("userinfo: the claim 'sub' is missing", code="userinfo-sub")
    if subject is not None and found != subject:
        raise InvalidTokenError(
            "userinfo: it tells of another person than the id_token", code="userinfo-sub"
        )
    return claims

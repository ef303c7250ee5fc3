"""The issuer's public keys, and whether a token was signed with one of them.

RFC 7515 (JWS), RFC 7517 (JWK), RFC 8725. A token's header is read before anything
in it can be trusted: it only picks among algorithms that the operator allows and
keys that the issuer publishes. ``jku``, ``jwk``, ``x5u`` and ``x5c`` are ignored.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt

from escape_hub.core.algorithms import ALGORITHMS
from escape_hub.core.compact import peek_header
from escape_hub.errors import InvalidTokenError, IssuerUnavailableError

MAX_TOKEN = 16 * 1024
MIN_RSA_BITS = 2048

_MAX_KEYS = 100
_PUBLIC_MEMBERS = {"RSA": ("n", "e"), "EC": ("x", "y"), "OKP": ("x",)}
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Key:
    """A published signing key; ``members`` are its public parts alone, ``bits`` for RSA."""

    kty: str
    kid: str | None
    alg: str | None
    crv: str | None
    bits: int
    members: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Header:
    """What of a token's header takes part in its verification."""

    alg: str
    kid: str | None


def _key(raw: object) -> Key | None:
    if not isinstance(raw, Mapping) or raw.get("use", "sig") != "sig":
        return None
    operations = raw.get("key_ops")
    if operations is not None and not (isinstance(operations, list) and "verify" in operations):
        return None
    kty, crv = raw.get("kty"), raw.get("crv")
    if not isinstance(kty, str) or kty not in _PUBLIC_MEMBERS:
        return None
    members: dict[str, str] = {}
    for name in _PUBLIC_MEMBERS[kty]:
        value = raw.get(name)
        if not isinstance(value, str) or not _BASE64URL.fullmatch(value):
            return None
        members[name] = value
    if kty != "RSA" and not isinstance(crv, str):
        return None
    kid, alg = raw.get("kid"), raw.get("alg")
    bits = 0
    if kty == "RSA":
        number = members["n"] + "=" * (-len(members["n"]) % 4)
        try:
            bits = int.from_bytes(base64.urlsafe_b64decode(number), "big").bit_length()
        except ValueError:
            return None
    return Key(
        kty=kty,
        kid=kid if isinstance(kid, str) else None,
        alg=alg if isinstance(alg, str) else None,
        crv=crv if isinstance(crv, str) and kty != "RSA" else None,
        bits=bits,
        members=members,
    )


def parse_key_set(document: object) -> tuple[Key, ...]:
    """The signing keys of a JWKS; what is for encryption or unknown is left out.

    A document without one is `IssuerUnavailableError`: the keys known before stay.
    """
    raw = document.get("keys") if isinstance(document, Mapping) else None
    listed: Iterable[object] = raw[:_MAX_KEYS] if isinstance(raw, list) else ()
    keys = tuple(key for entry in listed if (key := _key(entry)) is not None)
    if not keys:
        raise IssuerUnavailableError(
            "the identity service publishes no signing key that can be used", code="jwks-empty"
        )
    return keys


def read_header(
    token: str, *, kind: str, types: Collection[str], algorithms: Collection[str]
) -> Header:
    """Check size, form, ``alg``, ``crit`` and ``typ`` of a token before its signature.

    ``kind`` ("id-token", "logout-token") begins the code of every refusal. ``types``
    are the media types allowed, lower case without "application/"; an absent ``typ``
    is allowed (RFC 7519 section 5.1, Back-Channel Logout 1.0 section 2.4).
    """

    def refuse(what: str, why: str) -> InvalidTokenError:
        return InvalidTokenError(f"{kind.replace('-', '_')}: {why}", code=f"{kind}-{what}")

    if len(token) > MAX_TOKEN:
        raise refuse("size", f"it is longer than {MAX_TOKEN} characters")
    # Read here and not by the library, whose opinions on headers change with its version.
    if (header := peek_header(token)) is None:
        raise refuse("form", "it is no signed JWT")
    alg, kid, typ = header.get("alg"), header.get("kid"), header.get("typ")
    if not isinstance(alg, str) or alg not in algorithms or alg not in ALGORITHMS:
        raise refuse("alg", "its signature algorithm is not among signing_algorithms")
    if "crit" in header or "b64" in header:
        raise refuse("crit", "it demands an extension that is not known here")
    if typ is not None:
        name = typ.lower().removeprefix("application/") if isinstance(typ, str) else ""
        if name not in types:
            raise refuse("typ", "it is a token of another kind")
    if kid is not None and not isinstance(kid, str):
        raise refuse("form", "its key id is no text")
    return Header(alg, kid)


def select_key(keys: Iterable[Key], header: Header) -> Key | None:
    """The one key that the header means; None when the issuer publishes none such.

    Matches ``kid``, ``kty``, curve and ``alg``. Several without a ``kid`` to tell them
    apart, or one that is too weak, is `InvalidTokenError`.
    """
    kty, crv = ALGORITHMS[header.alg]
    fitting = [
        key
        for key in keys
        if key.kty == kty
        and key.crv == crv
        and key.alg in (None, header.alg)
        and header.kid in (None, key.kid)
    ]
    if len(fitting) > 1:
        raise InvalidTokenError(
            "the identity service publishes several keys that fit and the token does not say "
            "which one signed it",
            code="jwks-ambiguous",
        )
    if fitting and kty == "RSA" and fitting[0].bits < MIN_RSA_BITS:
        raise InvalidTokenError(
            f"the identity service signs with an RSA key of {fitting[0].bits} bits; at least "
            f"{MIN_RSA_BITS} are needed",
            code="jwks-weak-key",
        )
    return fitting[0] if fitting else None


def signed_claims(token: str, header: Header, key: Key, *, kind: str) -> dict[str, Any]:
    """The claims of ``token`` if ``key`` signed it, else `InvalidTokenError`."""
    material: dict[str, Any] = {"kty": key.kty, **key.members}
    if key.crv is not None:
        material["crv"] = key.crv
    name = kind.replace("-", "_")
    try:
        # The algorithm is passed on: PyJWK takes RS256 for an RSA key that names none.
        public = jwt.PyJWK(material, algorithm=header.alg)
        payload = jwt.PyJWS(algorithms=[header.alg]).decode(
            token, key=public, algorithms=[header.alg]
        )
    except Exception:
        # Whatever a library raises on a stranger's bytes is a refusal, never a crash.
        raise InvalidTokenError(
            f"{name}: its signature is not the identity service's", code=f"{kind}-signature"
        ) from None
    try:
        claims: Any = json.loads(payload)
    except (ValueError, RecursionError):
        claims = None
    if not isinstance(claims, dict):
        raise InvalidTokenError(f"{name}: its content is no JSON object", code=f"{kind}-form")
    return claims

"""The signature algorithms that an operator may allow."""

from __future__ import annotations

from collections.abc import Mapping

#: Name (RFC 7518 section 3.1, RFC 8037) -> key type and curve. Neither "none" nor HS*: with
#: a shared secret everybody who can verify could also sign (RFC 8725 section 3.1).
ALGORITHMS: Mapping[str, tuple[str, str | None]] = {
    "RS256": ("RSA", None),
    "RS384": ("RSA", None),
    "RS512": ("RSA", None),
    "PS256": ("RSA", None),
    "PS384": ("RSA", None),
    "PS512": ("RSA", None),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}

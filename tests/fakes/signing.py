"""Keys of an issuer and tokens signed with them, good and hostile, without an issuer."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

ISSUER = "https://iam.example.org/"
CLIENT = "escape-hub"
NOW = 1_800_000_000.0


@cache
def rsa_key(name: str = "k1", bits: int = 2048) -> rsa.RSAPrivateKey:
    """An RSA key by name; the same name gives the same key."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def ec_key(curve: str = "P-256") -> ec.EllipticCurvePrivateKey:
    """A key on a NIST curve."""
    curves = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
    return ec.generate_private_key(curves[curve])


@cache
def ed_key() -> ed25519.Ed25519PrivateKey:
    """An Ed25519 key."""
    return ed25519.Ed25519PrivateKey.generate()


def jwk(key: Any, kid: str | None = "k1", **members: Any) -> dict[str, Any]:
    """The public JWK of a private key; ``members`` are added, None removes one."""
    kinds = {rsa.RSAPrivateKey: "RS256", ec.EllipticCurvePrivateKey: "ES256"}
    name = next((n for kind, n in kinds.items() if isinstance(key, kind)), "EdDSA")
    algorithm: Any = jwt.get_algorithm_by_name(name)
    made = {**algorithm.to_jwk(key.public_key(), as_dict=True), "use": "sig", "kid": kid, **members}
    return {k: v for k, v in made.items() if v is not None}


def claims(**changed: Any) -> dict[str, Any]:
    """The claims of a good id_token at `NOW`; None removes one."""
    made = {
        "iss": ISSUER,
        "sub": "alice-sub",
        "aud": CLIENT,
        "exp": NOW + 600,
        "iat": NOW,
        "nonce": "n-1",
        **changed,
    }
    return {k: v for k, v in made.items() if v is not None}


def signed(
    content: dict[str, Any] | None = None,
    key: Any = None,
    alg: str = "RS256",
    kid: str | None = "k1",
    **header: Any,
) -> str:
    """A compact JWT; header members given as None are left out."""
    head = {"kid": kid, "typ": "JWT", **header}
    made: Any = jwt.PyJWS().encode(
        json.dumps(claims() if content is None else content).encode(),
        key if key is not None else rsa_key(),
        algorithm=alg,
        headers={k: v for k, v in head.items() if v is not None},
    )
    token = str(made)
    if head["typ"] is None:  # PyJWS writes its own
        return _without_typ(token, key if key is not None else rsa_key(), alg)
    return token


def b64(raw: bytes) -> str:
    """base64url without padding."""
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def assembled(header: Any, content: Any, signature: bytes = b"") -> str:
    """A compact form of any header and content, with any signature."""
    return ".".join(
        (b64(json.dumps(header).encode()), b64(json.dumps(content).encode()), b64(signature))
    )


def hmac_signed(secret: bytes, alg: str = "HS256") -> str:
    """A token whose HMAC key is ``secret``: the client's, or a public key taken for one."""
    head = assembled({"alg": alg, "kid": "k1"}, claims()).rsplit(".", 1)[0]
    return f"{head}.{b64(hmac.new(secret, head.encode(), hashlib.sha256).digest())}"


def public_pem(key: Any) -> bytes:
    """The public key as PEM."""
    made: bytes = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return made


def _without_typ(token: str, key: Any, alg: str) -> str:
    header, content, _ = token.split(".")
    raw = base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))
    bare = {k: v for k, v in json.loads(raw).items() if k != "typ"}
    message = f"{b64(json.dumps(bare).encode())}.{content}"
    algorithm: Any = jwt.get_algorithm_by_name(alg)
    return f"{message}.{b64(algorithm.sign(message.encode(), key))}"

"""Makes and reads the signed tokens: access tokens, id_tokens, logout tokens, all RS256 JWTs."""

from __future__ import annotations

import json
import math
import secrets
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.utils import base64url_encode

from escape_hub.demo.iam.hostile import Draft
from escape_hub.demo.iam.state import SigningKey, State

_RS256 = jwt.get_algorithm_by_name("RS256")
_ES256 = jwt.get_algorithm_by_name("ES256")
_HS256 = jwt.get_algorithm_by_name("HS256")


def _jwk(public: Any, kid: str, alg: str) -> dict[str, Any]:
    algorithm = _ES256 if alg == "ES256" else _RS256
    return {**algorithm.to_jwk(public, as_dict=True), "kid": kid, "use": "sig", "alg": alg}


def _part(value: Mapping[str, Any]) -> bytes:
    return base64url_encode(json.dumps(value, separators=(",", ":")).encode())


class Signer:
    """Holds the issuer's keys, and a few wrong ones for hostile tokens."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._loaded: dict[str, Any] = {}

    def _private(self, key: SigningKey) -> Any:
        if key.kid not in self._loaded:
            pem = key.pem.encode()
            self._loaded[key.kid] = serialization.load_pem_private_key(pem, password=None)
        return self._loaded[key.kid]

    @cached_property
    def _foreign(self) -> Any:
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)

    @cached_property
    def _weak(self) -> Any:
        # The weakness is what a client must notice.
        return rsa.generate_private_key(public_exponent=65537, key_size=1024)  # noqa: S505

    @cached_property
    def _ec(self) -> Any:
        return ec.generate_private_key(ec.SECP256R1())

    @property
    def active(self) -> SigningKey:
        """The key that signs now: the newest."""
        return self._state.keys[-1]

    def jwks(self, extra: set[str] = frozenset()) -> dict[str, Any]:  # type: ignore[assignment]
        """The JSON Web Key Set (RFC 7517 section 5), with the named hostile keys beside."""
        keys = [_jwk(self._private(k).public_key(), k.kid, "RS256") for k in self._state.keys]
        if "weak" in extra:
            keys.append(_jwk(self._weak.public_key(), "weak", "RS256"))
        if "ec" in extra:
            keys.append(_jwk(self._ec.public_key(), "ec", "ES256"))
        return {"keys": keys}

    def sign(self, draft: Draft, *, client_secret: str = "") -> str:
        """The compact form (RFC 7515 section 7.1) of a draft."""
        header = dict(draft.header)
        if header.get("jwk") == "foreign":
            header["jwk"] = _jwk(self._foreign.public_key(), "foreign", "RS256")
        message = _part(header) + b"." + _part(draft.claims)
        signature = self._signature(draft.signer, message, client_secret)
        if draft.flip:
            signature = bytes([signature[0] ^ 1]) + signature[1:]
        return (message + b"." + base64url_encode(signature)).decode()

    def _signature(self, signer: str, message: bytes, client_secret: str) -> bytes:
        if signer == "none":
            return b""
        if signer == "client_secret":
            return _HS256.sign(message, client_secret.encode())
        if signer == "public_key":
            public = self._private(self.active).public_key()
            pem = public.public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
            return _HS256.sign(message, pem)
        if signer == "ec":
            return _ES256.sign(message, self._ec)
        keys = {"issuer": lambda: self._private(self.active)}
        keys |= {"foreign": lambda: self._foreign, "weak": lambda: self._weak}
        return _RS256.sign(message, keys[signer]())

    def draft(self, claims: Mapping[str, Any], *, typ: str = "") -> Draft:
        """Claims with the header of a good token."""
        header = {"kid": self.active.kid, "alg": "RS256"}
        return Draft(header | ({"typ": typ} if typ else {}), claims)

    def read(self, token: str) -> dict[str, Any] | None:
        """The claims of a token signed by a published key; None for any other. No expiry check."""
        try:
            kid = jwt.get_unverified_header(token).get("kid")
            key = next(k for k in self._state.keys if k.kid == kid)
            public = self._private(key).public_key()
            off = {"verify_exp": False, "verify_aud": False, "verify_iat": False}
            claims = jwt.decode(token, public, algorithms=["RS256"], options=off)  # type: ignore[arg-type]
        except (jwt.InvalidTokenError, StopIteration):
            return None
        return dict(claims)


def access_claims(
    *,
    issuer: str,
    sub: str,
    client: str,
    scope: list[str],
    grant_id: str,
    now: float,
    lifetime: int,
    audience: str = "",
    act: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Claims of an access token in INDIGO IAM's form: ``aud`` and ``act`` only after an exchange.

    ``jti`` begins with the grant's id, so that a token dies with its grant
    without being stored. The expiry is rounded up: ``expires_in`` promises no
    more than the token has.
    """
    claims: dict[str, Any] = {
        "iss": issuer,
        "sub": sub,
        "iat": int(now),
        "exp": math.ceil(now + lifetime),
        "jti": f"{grant_id}.{secrets.token_hex(12)}",
        "client_id": client,
        "scope": " ".join(scope),
    }
    if audience:
        claims["aud"] = audience
    if act:
        claims["act"] = dict(act)
    return claims

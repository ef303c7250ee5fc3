"""Discovery, keys and userinfo."""

from __future__ import annotations

import json
from typing import Any

from escape_hub.demo.iam import hostile
from escape_hub.demo.iam.base import Handler
from escape_hub.demo.iam.grants import EXCHANGE
from escape_hub.demo.iam.service import Iam


def metadata(iam: Iam) -> dict[str, Any]:
    """The provider's metadata (OpenID Connect Discovery section 3), too generous as INDIGO IAM's.

    INDIGO IAM 1.12 advertises ``none``, HS* and PKCE ``plain``; a client must
    not take its algorithms from here. This service accepts S256 alone.
    """
    config = iam.config
    members: dict[str, Any] = {
        "issuer": config.issuer_url,
        "authorization_endpoint": config.endpoint("authorize"),
        "token_endpoint": config.endpoint("token"),
        "userinfo_endpoint": config.endpoint("userinfo"),
        "jwks_uri": config.endpoint("jwk"),
        "introspection_endpoint": config.endpoint("introspect"),
        "revocation_endpoint": config.endpoint("revoke"),
        "response_types_supported": ["code"],
        "response_modes_supported": ["query"],
        "grant_types_supported": ["authorization_code", "refresh_token", EXCHANGE],
        "subject_types_supported": ["public"],
        "scopes_supported": sorted({s for c in config.clients.values() for s in c.scopes}),
        "claims_supported": ["sub", "preferred_username", "name", "email", config.groups_claim],
        "code_challenge_methods_supported": ["plain", "S256"],
        "id_token_signing_alg_values_supported": ["HS256", "RS256", "ES256", "none"],
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
    }
    if config.callback_iss:
        members["authorization_response_iss_parameter_supported"] = True
    if config.end_session:
        members["end_session_endpoint"] = config.endpoint("end_session")
    if config.backchannel_logout:
        members["backchannel_logout_supported"] = True
        members["backchannel_logout_session_supported"] = True
    present = iam.faults.hostile
    if "discovery_issuer" in present:
        members["issuer"] = present["discovery_issuer"]
    members |= present.get("metadata", {})
    return {k: v for k, v in members.items() if v is not None}


class Discovery(Handler):
    """``GET /.well-known/openid-configuration``."""

    endpoint = "discovery"

    async def get(self) -> None:
        """The metadata."""
        self.send_json(metadata(self.iam))


class Jwk(Handler):
    """``GET /jwk``: the keys, cacheable as long as INDIGO IAM says."""

    endpoint = "jwk"

    async def get(self) -> None:
        """The JSON Web Key Set."""
        self.set_header("Cache-Control", "public, max-age=21600")
        self.send_json(self.iam.signer.jwks(hostile.extra_keys(self.iam.faults.hostile)))


class Userinfo(Handler):
    """``GET`` and ``POST /userinfo`` (OpenID Connect Core 5.3); token in the header only."""

    endpoint = "userinfo"

    async def get(self) -> None:
        """Claims about the token's user."""
        found = self.iam.living(self.bearer())
        if found is None:
            self._refuse(401, "invalid_token")
            return
        claims, _, user = found
        scope = claims["scope"].split()
        if "openid" not in scope:
            self._refuse(403, "insufficient_scope")
            return
        answer = {"sub": user.sub} | self.iam.person_claims(user, scope)
        match self.iam.faults.hostile.get("userinfo_sub"):
            case "other":
                answer["sub"] = "someone-else"
            case "absent":
                del answer["sub"]
        self.send_json(answer)

    post = get

    def _refuse(self, status: int, error: str) -> None:
        self.set_status(status)
        # RFC 6750 section 3: a request without a token is told nothing but the scheme.
        detail = f', error="{error}"' if self.bearer() else ""
        self.set_header("WWW-Authenticate", f'Bearer realm="development IAM"{detail}')
        self.set_header("Content-Type", "application/json")
        self.finish(json.dumps({"error": error}))


class Caught(Handler):
    """``/caught``: where mode ``307`` leads, at another name of this machine. It only counts."""

    async def prepare(self) -> None:
        """Count whoever comes."""
        await super().prepare()
        self.iam.counters.request("caught")

    async def get(self) -> None:
        """Nothing worth having."""
        self.send_json({})

    post = get

"""Keycloak as a process and its admin REST API; the standard library only.

Used twice: `fetch` makes the database once (a minute), `keycloak` starts from a copy
of it (a quarter of that). Ports and addresses are not in the database: the client's
redirect URIs are set through the admin API after each start.
"""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

REALM = "escape"
CLIENT_ID = "escape-hub"
CLIENT_SECRET = "keycloak-test-secret"
ADMIN_PASSWORD = "keycloak-admin-test-password"
AUDIENCES = ("eos-eulake", "rucio")
USERS = {"alice": ["/escape", "/escape/cms"], "bob": ["/escape"]}

# Small: a test's Keycloak serves one client. The second compiler is not worth its start.
_JVM = "-XX:-UseG1GC -XX:+UseSerialGC -XX:TieredStopAtLevel=1"


def command(tree: Path, *, port: int, public_port: int, database: Path) -> list[str]:
    """Start the server in ``tree`` on loopback ``port`` with the H2 files in ``database``.

    ``--hostname`` pins the issuer: without it the issuer follows the Host header.
    """
    h2 = f"jdbc:h2:file:{database}/keycloakdb;NON_KEYWORDS=VALUE;DB_CLOSE_ON_EXIT=FALSE"
    return [
        "sh",
        str(tree / "bin/kc.sh"),
        "start-dev",
        "--http-host=127.0.0.1",
        f"--http-port={port}",
        f"--hostname=http://127.0.0.1:{public_port}",
        "--cache=local",
        f"--db-url={h2}",
        "--log-level=warn",
    ]


def environment() -> dict[str, str]:
    """JVM options; the bootstrap administrator is used only when the database is new."""
    return {
        "KC_BOOTSTRAP_ADMIN_USERNAME": "admin",
        "KC_BOOTSTRAP_ADMIN_PASSWORD": ADMIN_PASSWORD,
        "JAVA_OPTS_KC_HEAP": "-Xms64m -Xmx256m",
        "JAVA_OPTS_APPEND": _JVM,
    }


class Admin:
    """The admin REST API of the server at ``base`` (no trailing slash)."""

    def __init__(self, base: str) -> None:
        self.base = base
        self._token, self._token_until = "", 0.0

    def answers(self) -> bool:
        """Whether the server is up: the master realm publishes its metadata."""
        try:
            url = f"{self.base}/realms/master/.well-known/openid-configuration"
            with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - loopback
                return bool(answer.status == 200)
        except OSError:
            return False

    def __call__(self, method: str, path: str, body: Any = None) -> Any:
        """``path`` is below ``/admin``; the JSON answer, or None. Fails on any refusal."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self._access_token()}"}
        return self._send(method, f"/admin{path}", data, headers, "application/json")

    def _access_token(self) -> str:
        if time.monotonic() > self._token_until:
            form = {
                "grant_type": "password",
                "client_id": "admin-cli",
                "username": "admin",
                "password": ADMIN_PASSWORD,
            }
            path = "/realms/master/protocol/openid-connect/token"
            body = urllib.parse.urlencode(form).encode()
            found = self._send("POST", path, body, {}, "application/x-www-form-urlencoded")
            self._token = found["access_token"]
            self._token_until = time.monotonic() + found["expires_in"] / 2
        return self._token

    def _send(
        self, method: str, path: str, data: bytes | None, headers: dict[str, str], kind: str
    ) -> Any:
        request = urllib.request.Request(  # noqa: S310 - loopback
            f"{self.base}{path}", data, {**headers, "Content-Type": kind}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310 - loopback
                text = answer.read()
        except urllib.error.HTTPError as error:
            detail = error.read().decode(errors="replace")[:300]
            raise AssertionError(f"{method} {path}: {error.code} {detail}") from None
        return json.loads(text) if text else None


def create_realm(admin: Admin) -> None:
    """The realm as an operator would make it: the built-in client scopes stay as shipped.

    The client may exchange its own tokens (26's standard token exchange); refresh tokens
    rotate; each audience is an optional client scope, so that a login token has none.
    """
    admin("POST", "/realms", _realm())
    realm = f"/realms/{REALM}"
    for audience in AUDIENCES:
        admin("POST", f"{realm}/clients", _confidential(audience, standardFlowEnabled=False))
        mapper = {
            "included.client.audience": audience,
            "access.token.claim": "true",
            "introspection.token.claim": "true",
        }
        admin("POST", f"{realm}/client-scopes", _scope(audience, "oidc-audience-mapper", mapper))
    groups = {
        "claim.name": "groups",
        "full.path": "true",
        "id.token.claim": "true",
        "access.token.claim": "true",
        "userinfo.token.claim": "true",
    }
    mapper_type = "oidc-group-membership-mapper"
    admin("POST", f"{realm}/client-scopes", _scope("groups", mapper_type, groups))
    attributes = {
        "pkce.code.challenge.method": "S256",
        "standard.token.exchange.enabled": "true",
        "backchannel.logout.session.required": "true",
    }
    hub = _confidential(CLIENT_ID, secret=CLIENT_SECRET, attributes=attributes)
    admin("POST", f"{realm}/clients", hub)
    client = admin("GET", f"{realm}/clients?clientId={CLIENT_ID}")[0]["id"]
    ids = {scope["name"]: scope["id"] for scope in admin("GET", f"{realm}/client-scopes")}
    admin("PUT", f"{realm}/clients/{client}/default-client-scopes/{ids['groups']}")
    for audience in AUDIENCES:
        admin("PUT", f"{realm}/clients/{client}/optional-client-scopes/{ids[audience]}")


def _realm() -> dict[str, Any]:
    return {
        "realm": REALM,
        "enabled": True,
        "sslRequired": "none",
        "accessTokenLifespan": 3600,
        "ssoSessionIdleTimeout": 7200,
        "revokeRefreshToken": True,
        "refreshTokenMaxReuse": 0,
        # The default hash is slow on purpose; here it would be paid at every login.
        "passwordPolicy": "hashAlgorithm(pbkdf2-sha256) and hashIterations(1000)",
        "groups": [{"name": "escape", "subGroups": [{"name": "cms"}]}],
        "users": [
            {
                "username": name,
                "enabled": True,
                "email": f"{name}@example.org",
                "emailVerified": True,
                "firstName": name.title(),
                "lastName": "Example",
                "groups": groups,
                "credentials": [{"type": "password", "value": name, "temporary": False}],
                "realmRoles": [f"default-roles-{REALM}"],
            }
            for name, groups in USERS.items()
        ],
    }


def _confidential(client_id: str, **more: Any) -> dict[str, Any]:
    return {
        "clientId": client_id,
        "protocol": "openid-connect",
        "publicClient": False,
        "directAccessGrantsEnabled": False,
        "fullScopeAllowed": False,
        **more,
    }


def _scope(name: str, mapper_type: str, config: dict[str, str]) -> dict[str, Any]:
    return {
        "name": name,
        "protocol": "openid-connect",
        "attributes": {"include.in.token.scope": "true", "display.on.consent.screen": "false"},
        "protocolMappers": [
            {
                "name": name,
                "protocol": "openid-connect",
                "protocolMapper": mapper_type,
                "config": config,
            }
        ],
    }

"""Keycloak, as distributed, from a copy of the prepared database."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests.harness.processes import Process, bare_environment, free_port
from tests.providers import fetch, keycloak_server
from tests.providers.keycloak_server import REALM, Admin
from tests.providers.provider import Addresses, Capabilities, Pages

_KEYS = "org.keycloak.keys.KeyProvider"


class Keycloak:
    """Rotation as "Revoke Refresh Token" with reuse 0; standard token exchange (26)."""

    name = "keycloak"
    title = "Keycloak"
    client_id = keycloak_server.CLIENT_ID
    client_secret = keycloak_server.CLIENT_SECRET
    pages = Pages(username="username", password="password", logout={"confirmLogout": "Logout"})
    capabilities = Capabilities(
        exchange="yes",
        # An audience is a client scope there; without "openid" userinfo refuses the token.
        exchange_scopes={"eos-eulake": "openid eos-eulake", "rucio": "openid rucio"},
        issuer_ends_in_slash=False,
        callback_iss=True,
        offline_scope=False,
        replay="kills the session",
        race_winners=(1,),
        access_token_outlives_refresh=True,
        refreshed_id_token="without nonce",
        userinfo_takes_exchanged=True,
        rp_logout="at once",
        rp_logout_ends_session=True,
        logout_by_post=True,
        backchannel_logout=True,
        disable_user=True,
        groups=True,
        dead_refresh_token="invalid_grant",
        disabled_user_code="user-suspended",
        wrong_secret="unauthorized_client",
        allow={"allowed_groups": ("/escape",)},
    )

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.issuer = self.version = ""
        self.port = 0
        self._admin = Admin("")
        self._process: Process | None = None
        self._rotations = 0

    def start(self, addresses: Addresses) -> None:
        prepared = fetch.prepare("keycloak")
        database = self.directory / "database"
        shutil.copytree(prepared / "database", database, dirs_exist_ok=True)
        self.addresses, self.port = addresses, free_port()
        self._process = Process(
            "keycloak",
            keycloak_server.command(
                prepared / "server",
                port=self.port,
                public_port=addresses.public_port,
                database=database,
            ),
            directory=self.directory,
            env=bare_environment() | keycloak_server.environment(),
        )
        self._admin = Admin(f"http://127.0.0.1:{self.port}")
        self.issuer = f"http://127.0.0.1:{addresses.public_port}/realms/{REALM}"
        self._process.start()
        self._process.wait_until("Keycloak to answer", self._admin.answers, 180)
        self.version = self._admin("GET", "/serverinfo")["systemInfo"]["version"]
        self._register(addresses)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill_group()
            self._process.exit_code(20)
        shutil.rmtree(self.directory / "database", ignore_errors=True)

    def set_access_token_lifetime(self, seconds: int) -> None:
        self._realm("PUT", "", {"accessTokenLifespan": seconds})

    def rotate_keys(self) -> None:
        """A new active key of higher priority; the old ones stop to exist."""
        self._rotations += 1
        old = [
            found
            for found in self._realm("GET", f"/components?type={_KEYS}")
            if found["providerId"] == "rsa-generated"
        ]
        self._realm(
            "POST",
            "/components",
            {
                "name": f"rotated-{self._rotations}",
                "providerId": "rsa-generated",
                "providerType": _KEYS,
                "config": {"priority": [str(200 + self._rotations)], "algorithm": ["RS256"]},
            },
        )
        for component in old:
            self._realm("DELETE", f"/components/{component['id']}")

    def service(self, audience: str) -> tuple[str, str] | None:
        """Only a client that is in a token's audience may introspect it."""
        client = self._realm("GET", f"/clients?clientId={audience}")[0]["id"]
        return audience, str(self._realm("GET", f"/clients/{client}/client-secret")["value"])

    def revoke_user_session(self, user: str) -> None:
        self._realm("POST", f"/users/{self._user_id(user)}/logout")

    def disable_user(self, user: str) -> None:
        self._realm("PUT", f"/users/{self._user_id(user)}", {"enabled": False})

    def enable_user(self, user: str) -> None:
        self._realm("PUT", f"/users/{self._user_id(user)}", {"enabled": True})

    def _register(self, addresses: Addresses) -> None:
        client = self._realm("GET", f"/clients?clientId={self.client_id}")[0]
        client["redirectUris"] = [addresses.redirect_uri]
        client["attributes"] |= {
            "post.logout.redirect.uris": addresses.post_logout_redirect_uri,
            "backchannel.logout.url": addresses.backchannel_logout_uri,
        }
        self._realm("PUT", f"/clients/{client['id']}", client)

    def _user_id(self, name: str) -> str:
        return str(self._realm("GET", f"/users?username={name}&exact=true")[0]["id"])

    def _realm(self, method: str, path: str, body: Any = None) -> Any:
        return self._admin(method, f"/realms/{REALM}{path}", body)

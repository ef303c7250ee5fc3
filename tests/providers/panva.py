"""panva's ``oidc-provider``, the certified one of npm, with its own development pages."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import httpx

from tests.harness.processes import Process, bare_environment, free_port
from tests.providers import fetch
from tests.providers.provider import Addresses, Capabilities, Pages


class Panva:
    """It has no token exchange: the grant in ``panva_op.mjs`` is ours, and proves nothing of it."""

    name = "panva"
    title = "oidc-provider"
    client_id = "escape-hub"
    client_secret = "panva-test-secret"
    pages = Pages(
        username="login",
        password="password",
        consent={"prompt": "consent"},
        logout={"logout": "yes"},
    )
    capabilities = Capabilities(
        exchange="grant of our own",
        exchange_scopes={"eos-eulake": "openid profile", "rucio": "openid profile"},
        issuer_ends_in_slash=False,
        callback_iss=True,
        offline_scope=True,
        replay="kills the session",
        race_winners=(1,),
        access_token_outlives_refresh=True,
        refreshed_id_token="with nonce",
        userinfo_takes_exchanged=False,
        rp_logout="confirmation page",
        rp_logout_ends_session=False,
        logout_by_post=False,
        backchannel_logout=True,
        disable_user=True,
        groups=True,
        dead_refresh_token="invalid_grant",
        disabled_user_code="refresh-refused",
        wrong_secret="invalid_client",
        allow={"allowed_groups": ("escape",)},
        # OpenID Connect Core 1.0 section 11: offline_access wants a consent each time.
        login_query={"prompt": "consent"},
    )

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.issuer = self.version = ""
        self.port = 0
        self._process: Process | None = None

    def start(self, addresses: Addresses) -> None:
        modules = fetch.prepare("panva")
        self.addresses, self.port = addresses, free_port()
        self.issuer = f"http://127.0.0.1:{addresses.public_port}"
        config = self.directory / "panva.json"
        config.write_text(
            json.dumps(
                {
                    "modules": str(modules),
                    "port": self.port,
                    "issuer": self.issuer,
                    "client_id": self.client_id,
                    "client_secret": self.client_secret,
                    "redirect_uri": addresses.redirect_uri,
                    "post_logout_redirect_uri": addresses.post_logout_redirect_uri,
                    "backchannel_logout_uri": addresses.backchannel_logout_uri,
                    "audiences": list(self.capabilities.exchange_scopes),
                    "users": {"alice": ["escape", "escape/cms"], "bob": ["escape"]},
                }
            )
        )
        script = Path(__file__).with_name("panva_op.mjs")
        command = [str(fetch.node()), str(script), str(config)]
        self._process = Process("panva", command, directory=self.directory, env=bare_environment())
        self._process.start()
        ready = self._process.wait_until("oidc-provider to listen", self._ready, 60)
        self.version = ready

    def _ready(self) -> str:
        assert self._process is not None
        found = re.search(r"^ready (\S+)$", self._process.log_text, re.MULTILINE)
        return found.group(1) if found else ""

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill_group()
            self._process.exit_code(20)

    def set_access_token_lifetime(self, seconds: int) -> None:
        self._control("lifetime", seconds=seconds)

    def rotate_keys(self) -> None:
        self._control("rotate_keys")

    def service(self, audience: str) -> tuple[str, str] | None:
        """Introspection is off by default."""
        return None

    def revoke_user_session(self, user: str) -> None:
        self._control("revoke", user=user)

    def disable_user(self, user: str) -> None:
        self._control("disable", user=user)

    def enable_user(self, user: str) -> None:
        self._control("enable", user=user)

    def _control(self, what: str, **values: Any) -> None:
        httpx.post(f"http://127.0.0.1:{self.port}/of-a-test/{what}", json=values).raise_for_status()

"""MITREid Connect 1.3.4, the base of INDIGO IAM 1.x, in Jetty; it has no token exchange."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.harness.person import forms
from tests.harness.processes import Process, bare_environment, free_port
from tests.providers import fetch, mitreid_config
from tests.providers.provider import USERS, Addresses, Capabilities, Pages

_JVM = ["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
_JVM += ["--add-opens", "java.base/java.lang=ALL-UNNAMED"]


class MitreId:
    """Refresh tokens rotate because the client's "reuse" is switched off."""

    name = "mitreid"
    title = "MITREid Connect"
    client_id = "escape-hub"
    client_secret = "mitreid-test-secret"
    pages = Pages(
        username="username",
        password="password",
        consent={"user_oauth_approval": "true", "authorize": "Authorize", "remember": "none"},
        logout={"approve": "Yes"},
    )
    capabilities = Capabilities(
        exchange="no",
        exchange_scopes={"eos-eulake": "openid profile", "rucio": "openid profile"},
        issuer_ends_in_slash=True,
        callback_iss=False,
        offline_scope=True,
        replay="winner lives",
        # Of 40 races 23 had two winners, both with a living refresh token.
        race_winners=(1, 2),
        access_token_outlives_refresh=False,
        refreshed_id_token="with nonce",
        userinfo_takes_exchanged=False,
        rp_logout="confirmation page",
        rp_logout_ends_session=False,
        logout_by_post=False,
        backchannel_logout=False,
        disable_user=False,
        groups=False,
        dead_refresh_token="invalid_token",
        disabled_user_code="",
        wrong_secret="unauthorized",
        allow={"allowed_users": USERS},
    )

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.app = directory / "app"
        self.issuer = self.version = ""
        self.port = 0
        self._process: Process | None = None
        self._rotations = 0

    def start(self, addresses: Addresses) -> None:
        prepared = fetch.prepare("mitreid")
        shutil.copytree(prepared / "app", self.app, dirs_exist_ok=True)
        self.addresses, self.port = addresses, free_port()
        self.issuer = f"http://127.0.0.1:{addresses.public_port}/"
        mitreid_config.configure(
            self.app,
            addresses,
            issuer=self.issuer,
            database=self.directory / "database",
            client=(self.client_id, self.client_secret),
        )
        mitreid_config.use_new_key(self.app, "first")
        self._run()
        found = re.search(r"MITREid Connect</a>\s*([\d.]+)|>\s*([\d.]+)\s*<", self._footer())
        assert found, "MITREid's page does not tell its version"
        self.version = next(group for group in found.groups() if group)

    @property
    def _direct(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def _footer(self) -> str:
        page = httpx.get(f"{self._direct}about").text
        return page[page.index('id="footer"') :]

    def _run(self) -> None:
        jetty = fetch.prepare("mitreid") / "jetty-runner.jar"
        listen = ["--host", "127.0.0.1", "--port", str(self.port), "--path", "/"]
        command = ["java", *_JVM, "-jar", str(jetty), *listen, str(self.app)]
        self._process = Process(
            "mitreid", command, directory=self.directory, env=bare_environment()
        )
        self._process.start()
        self._process.wait_until("MITREid to answer", self._answers, 120)

    def _answers(self) -> bool:
        try:
            url = f"{self._direct}.well-known/openid-configuration"
            return httpx.get(url, timeout=30).status_code == 200
        except httpx.TransportError:
            return False

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill_group()
            self._process.exit_code(20)
        for part in (self.app, self.directory / "database"):
            shutil.rmtree(part, ignore_errors=True)

    def set_access_token_lifetime(self, seconds: int) -> None:
        with self._signed_in("admin") as admin:
            found = next(c for c in _json(admin, "clients") if c["clientId"] == self.client_id)
            found["accessTokenValiditySeconds"] = seconds
            admin.put(f"api/clients/{found['id']}", json=found).raise_for_status()

    def rotate_keys(self) -> None:
        """It reads its keys at the start only: a restart over the same database."""
        assert self._process is not None
        # Every commit is on disk at once (`mitreid_config`); an orderly end takes up to 20 s.
        self._process.kill_group()
        self._process.exit_code(20)
        self._rotations += 1
        mitreid_config.keep_database(self.app)
        mitreid_config.use_new_key(self.app, f"rotated-{self._rotations}")
        self._run()

    def service(self, audience: str) -> tuple[str, str] | None:
        """Without exchange there is nothing to introspect."""
        return None

    def revoke_user_session(self, user: str) -> None:
        """The person's own "active tokens" page; its administrators have none for others."""
        with self._signed_in(user) as person:
            for token in _json(person, "tokens/refresh"):
                person.delete(f"api/tokens/refresh/{token['id']}").raise_for_status()

    def disable_user(self, user: str) -> None:
        raise NotImplementedError("MITREid keeps accounts in files or elsewhere")

    enable_user = disable_user

    @contextmanager
    def _signed_in(self, user: str) -> Iterator[httpx.Client]:
        """A browser session at its own pages, where its API answers."""
        with httpx.Client(base_url=self.issuer, timeout=60, follow_redirects=True) as client:
            login = next(f for f in forms(client.get("login")) if "password" in f["fields"])
            fields = {**login["fields"], "username": user, "password": user}
            answer = client.post("login", data=fields)
            assert "error=failure" not in str(answer.url), f"{user} cannot sign in"
            yield client


def _json(client: httpx.Client, path: str) -> Any:
    answer = client.get(f"api/{path}", headers={"Accept": "application/json"})
    answer.raise_for_status()
    return answer.json()

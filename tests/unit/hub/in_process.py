"""A real JupyterHub inside the test, without proxy process and single-user processes.

Everything between the socket and the database is the real thing; only the proxy keeps
its routes in memory, and a "server" is an HTTP server of a few lines in this process.
"""

from __future__ import annotations

import logging
import secrets
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import tornado.web
from jupyterhub import crypto, orm
from jupyterhub.app import JupyterHub
from jupyterhub.proxy import Proxy
from jupyterhub.spawner import Spawner
from jupyterhub.user import User
from tornado.httpserver import HTTPServer
from traitlets import Any as AnyTrait
from traitlets.config import Config

from escape_hub.clock import SystemClock
from escape_hub.demo.iam.config import CLIENT_ID, CLIENT_SECRET, ClientConfig
from escape_hub.hub.authenticator import EscapeAuthenticator
from tests.fakes.iam_peer import Peer
from tests.harness.processes import free_port

TOKEN_SCOPE = "custom:escape:tokens"
SERVER_SCOPES = ["users:activity!user", "access:servers!server", f"{TOKEN_SCOPE}!user"]
AUDIENCES = {
    "eos": {
        "audience": "eos-eulake",
        "scope": "openid profile",
        "format": "eos",
        "endpoint": "iam.example.org/userinfo",
        "label": "EOS storage",
    },
    "rucio": {"audience": "rucio", "scope": "openid profile", "label": "Rucio catalogue"},
}


class MemoryProxy(Proxy):
    """A proxy that only remembers its routes."""

    should_start = False
    routes = AnyTrait()

    async def add_route(self, routespec: str, target: str, data: dict[str, Any]) -> None:
        self.routes = {
            **(self.routes or {}),
            routespec: {"routespec": routespec, "target": target, "data": data},
        }

    async def delete_route(self, routespec: str) -> None:
        self.routes = {k: v for k, v in (self.routes or {}).items() if k != routespec}

    async def get_all_routes(self) -> dict[str, Any]:
        return dict(self.routes or {})


class _Ok(tornado.web.RequestHandler):
    def get(self) -> None:
        self.finish("ok")


class InProcessSpawner(Spawner):
    """A server that answers 200 to everything, in this process; it survives its hub."""

    RUNNING: ClassVar[dict[int, HTTPServer]] = {}
    port = 0

    async def start(self) -> tuple[str, int]:
        self.port = free_port()
        server = self.RUNNING[self.port] = HTTPServer(tornado.web.Application([(r".*", _Ok)]))
        server.listen(self.port, "127.0.0.1")
        return "127.0.0.1", self.port

    async def poll(self) -> int | None:
        return None if self.port in self.RUNNING else 0

    async def stop(self, now: bool = False) -> None:
        if server := self.RUNNING.pop(self.port, None):
            server.stop()
            await server.close_all_connections()

    def get_state(self) -> dict[str, Any]:
        return {**super().get_state(), "port": self.port}

    def load_state(self, state: dict[str, Any]) -> None:
        super().load_state(state)
        self.port = state.get("port", 0)

    def clear_state(self) -> None:
        super().clear_state()
        self.port = 0


class ShiftedClock(SystemClock):
    """The real clock, ``shift`` seconds ahead."""

    shift = 0.0

    def now(self) -> float:
        return super().now() + self.shift


class AuthenticatorInTest(EscapeAuthenticator):
    """Ours, with a clock that tests can put forward."""

    def new_clock(self) -> ShiftedClock:
        return ShiftedClock()


class _Remember(logging.Handler):
    def __init__(self, records: list[logging.LogRecord]) -> None:
        super().__init__()
        self.records = records

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


class QuietHub(JupyterHub):
    """A hub that reads no file and catches no signal; ``records`` is what it logged."""

    records = AnyTrait()

    def load_config_file(self, *args: Any, **kwargs: Any) -> None:
        """Its configuration is passed in."""

    def init_signal(self) -> None:
        """The signals are pytest's."""

    def init_logging(self) -> None:
        super().init_logging()
        self.log.propagate = True
        self.log.handlers.clear()
        # Not by caplog: the migration of a new database takes its handler away.
        self.records = []
        self.log.addHandler(_Remember(self.records))


def hub_config(iam: Peer, port: int, directory: Path) -> Config:
    """What an operator would write, for a hub at ``port``."""
    c = Config()
    c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{port}"
    c.JupyterHub.bind_url = f"http://127.0.0.1:{port}/"
    c.JupyterHub.db_url = f"sqlite:///{directory}/hub.sqlite"
    c.JupyterHub.cookie_secret = secrets.token_bytes(32)
    c.JupyterHub.proxy_class = MemoryProxy
    c.JupyterHub.spawner_class = InProcessSpawner
    c.JupyterHub.authenticator_class = AuthenticatorInTest
    c.JupyterHub.log_level = "DEBUG"
    c.JupyterHub.custom_scopes = {TOKEN_SCOPE: {"description": "Fetch one's own tokens"}}
    c.JupyterHub.load_roles = [{"name": "user", "scopes": ["self", f"{TOKEN_SCOPE}!user"]}]
    c.Spawner.server_token_scopes = list(SERVER_SCOPES)
    c.EscapeAuthenticator.issuer = iam.url
    c.EscapeAuthenticator.client_id = CLIENT_ID
    c.EscapeAuthenticator.client_secret = CLIENT_SECRET
    c.EscapeAuthenticator.oauth_callback_url = f"http://127.0.0.1:{port}/hub/oauth_callback"
    c.EscapeAuthenticator.audiences = AUDIENCES
    c.EscapeAuthenticator.allowed_groups = {"escape"}
    return c


class HubInTest:
    """A hub that answers at ``url`` (ends in ``/``), and its IAM."""

    def __init__(self, app: QuietHub, iam: Peer, port: int) -> None:
        self.app, self.iam = app, iam
        self.url = f"http://127.0.0.1:{port}/"

    @property
    def authenticator(self) -> Any:
        return self.app.authenticator

    @property
    def settings(self) -> dict[str, Any]:
        """What the handlers read."""
        found: dict[str, Any] = self.app.tornado_application.settings
        return found

    @property
    def clock(self) -> ShiftedClock:
        found: ShiftedClock = self.app.authenticator.clock
        return found

    async def delete_everybody(self) -> None:
        """What an administrator does with every user."""
        for row in list(self.app.db.query(orm.User)):
            user = self.app.users[row]
            for name, spawner in list(user.spawners.items()):
                if spawner.active:
                    await user.stop(name)
            await self.authenticator.delete_user(user)
            await user.delete_spawners()
            self.app.users.delete(user)

    def user(self, name: str) -> User:
        found = orm.User.find(self.app.db, name)
        assert found is not None, name
        return self.app.users[found]

    async def state(self, name: str) -> Any:
        return await self.authenticator.runtime.store.load(name)


def iam_client(port: int) -> ClientConfig:
    """The registration of a hub at ``port``."""
    home = f"http://127.0.0.1:{port}/hub"
    return ClientConfig(
        CLIENT_SECRET,
        redirect_uris=(f"{home}/oauth_callback",),
        post_logout_redirect_uris=(f"{home}/escape/signed_out",),
        backchannel_logout_uri=f"{home}/escape/backchannel_logout",
    )


@asynccontextmanager
async def hub_in_test(
    directory: Path, *, config: Any = None, iam: Any = None
) -> AsyncIterator[HubInTest]:
    """A hub and its IAM, stopped at the end. ``config(c)`` changes the hub's settings."""
    port = free_port()
    async with Peer(client=iam_client(port), **(iam or {})) as peer:
        c = hub_config(peer, port, directory)
        if config is not None:
            config(c)
        async with running(c, peer, port) as hub:
            yield hub


@asynccontextmanager
async def running(
    config: Config, iam: Peer, port: int, *, crypt_key: str = "11" * 32
) -> AsyncIterator[HubInTest]:
    """The hub of a configuration; may be entered again for a restart with the same database."""
    JupyterHub.clear_instance()
    await _close_upstreams_client()
    use_crypt_key(crypt_key)
    app = QuietHub(config=config)
    try:
        await initialize(app)
        await app.start()
        yield HubInTest(app, iam, port)
    finally:
        await _stop(app)


async def initialize(app: QuietHub) -> None:
    """`JupyterHub.initialize`, whose older line has event schemas of an older form."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The `version` property of an event schema")
        await app.initialize([])


async def _stop(app: QuietHub) -> None:
    if app.http_server:
        app.http_server.stop()
        await app.http_server.close_all_connections()
    for callback in app._periodic_callbacks.values():
        callback.stop()
    if app.metrics_collector:
        app.metrics_collector.stop()
    await app.cleanup()
    await _close_upstreams_client()
    engine = app.db.get_bind()
    app.db.close()
    engine.dispose()


async def _close_upstreams_client() -> None:
    """JupyterHub 6's HTTP client, which a hub forgets when the next one starts."""
    try:
        from jupyterhub.httpclient import JupyterHubHTTPClient as Client
    except ImportError:
        return
    if Client.initialized():
        await Client.instance().close()
    for client in list(Client._loop_instances.values()):
        await client.close()


def use_crypt_key(key: str) -> None:
    """What ``JUPYTERHUB_CRYPT_KEY`` would say."""
    crypto.CryptKeeper.clear_instance()
    crypto.CryptKeeper.instance().keys = [one.encode() for one in key.split(";") if one]

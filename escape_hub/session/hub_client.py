"""Asks the hub for this session's access tokens, with the server's own hub token.

One blocking request by the standard library, made in the agent's thread. The
request goes straight to the hub: no proxy of the environment is ever used, no
redirect is followed, so the hub token reaches the hub alone.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from escape_hub.errors import SettingsError
from escape_hub.session.hub_reply import MAX_REPLY, HubUnavailableError, TokensReply, read_reply

if TYPE_CHECKING:  # imported when used: a session's start must not wait for them
    import http.client
    import socket

_SHUT_RDWR = 2  # socket.SHUT_RDWR, without its import


@dataclass(frozen=True, slots=True)
class HubConnection:
    """Where the hub is and how to prove who asks; built from a spawned server's environment."""

    api_url: str
    api_token: str = field(repr=False)
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""

    @classmethod
    def from_environment(cls, env: Mapping[str, str]) -> HubConnection:
        """Read ``JUPYTERHUB_API_URL``, ``_API_TOKEN`` and ``JUPYTERHUB_SSL_*``."""
        url, token = env.get("JUPYTERHUB_API_URL", ""), env.get("JUPYTERHUB_API_TOKEN", "")
        if not url or not token:
            raise SettingsError(
                "JUPYTERHUB_API_URL or JUPYTERHUB_API_TOKEN is missing: start the session from "
                "the hub, and give a sidecar the same two variables"
            )
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise SettingsError("JUPYTERHUB_API_URL is no http or https address")
        return cls(
            url.rstrip("/"),
            token,
            env.get("JUPYTERHUB_SSL_CLIENT_CA", ""),
            env.get("JUPYTERHUB_SSL_CERTFILE", ""),
            env.get("JUPYTERHUB_SSL_KEYFILE", ""),
        )


class HubClient:
    """The one request of a session. Not for use by two threads at once, but for `cancel`."""

    def __init__(self, connection: HubConnection) -> None:
        self._at = connection
        self._socket: socket.socket | None = None

    def fetch(self, *, min_valid_period: float = 0.0, timeout: float = 30.0) -> TokensReply:
        """Ask for tokens that live at least ``min_valid_period`` seconds.

        ``timeout`` (seconds) bounds the whole exchange, however slowly the reply
        drips. Raises `HubUnavailableError` or `HubRefusalError`.
        """
        import http.client

        parts = urlsplit(self._at.api_url)
        target = f"{parts.path}/escape/tokens?min_valid_period={min_valid_period:g}"
        headers = {"Authorization": f"token {self._at.api_token}", "Accept": "application/json"}
        connection = self._connect(timeout)
        watchdog = threading.Timer(timeout, self.cancel)
        watchdog.daemon = True
        watchdog.start()
        try:
            connection.connect()
            # Kept here: http.client forgets its socket once the reply has no further request.
            self._socket = connection.sock
            connection.request("GET", target, headers=headers)
            with connection.getresponse() as response:
                body = response.read(MAX_REPLY + 1)
                date = response.getheader("Date")
        except (OSError, http.client.HTTPException, ValueError, AttributeError) as error:
            # AttributeError: what http.client makes of a socket closed under it by `cancel`.
            raise HubUnavailableError(
                f"the hub does not answer ({type(error).__name__}); trying again by itself"
            ) from None
        finally:
            watchdog.cancel()
            self._socket = None
            connection.close()
        return read_reply(response.status, body, _date(date))

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        import http.client

        parts = urlsplit(self._at.api_url)
        host = parts.hostname or ""
        if parts.scheme == "http":
            return http.client.HTTPConnection(host, parts.port, timeout=timeout)
        import ssl

        try:
            context = ssl.create_default_context(cafile=self._at.ca_file or None)
            if self._at.cert_file and self._at.key_file:
                context.load_cert_chain(self._at.cert_file, self._at.key_file)
        except OSError as error:
            raise HubUnavailableError(
                f"the certificates named by JUPYTERHUB_SSL_* cannot be used "
                f"({type(error).__name__})",
                code="hub-certificates",
            ) from None
        return http.client.HTTPSConnection(host, parts.port, timeout=timeout, context=context)

    def cancel(self) -> None:
        """End a request under way, from another thread."""
        sock = self._socket
        if sock is not None:
            try:
                sock.shutdown(_SHUT_RDWR)
            except OSError:
                pass  # closed already


def _date(value: str | None) -> float | None:
    """``Date`` (RFC 9110 section 6.6.1) in epoch seconds."""
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(value).timestamp() if value else None
    except (ValueError, OverflowError):
        return None

"""HTTP to the issuer: one pooled client, and whether a request left before it failed."""

from __future__ import annotations

import asyncio
import email.utils
import http.cookiejar
import json
import logging
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import httpx

from escape_hub import __version__
from escape_hub.core.urls import is_loopback
from escape_hub.errors import IssuerMisconfiguredError, IssuerUnavailableError, SettingsError
from escape_hub.settings import IssuerSettings

if TYPE_CHECKING:
    from escape_hub.clock import Clock

#: Bytes of a reply that are read; what is longer is no reply of an issuer.
MAX_REPLY = 256 * 1024
#: Renewals keep at most 32 calls in flight; the rest is for sign-ins while those hang.
MAX_CONNECTIONS = 100
#: Seconds an idle connection is kept: less than the 20 s after which Tomcat closes it, for
#: a connection closed under a request looks like a lost reply.
KEEPALIVE = 15.0


@dataclass(frozen=True, slots=True)
class Reply:
    """A complete answer. ``retry_after`` is in seconds. The body may hold tokens."""

    status: int
    body: bytes = field(repr=False)
    retry_after: float | None = None

    def json(self) -> Any:
        """The body as JSON; None when it is not."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            return None


class IssuerHttp:
    """The client of one issuer: TLS, proxy, time and size limits of every call.

    Follows no redirect, keeps no cookie (a session of one user must not answer for
    another), asks for no compression (a small reply stays small).
    """

    def __init__(self, settings: IssuerSettings, clock: Clock) -> None:
        self._settings, self._clock = settings, clock
        # httpcore prints reply headers at DEBUG, and MITREid echoes tokens in them.
        logging.getLogger("httpcore").setLevel(logging.INFO)
        limits = httpx.Limits(
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_CONNECTIONS,
            keepalive_expiry=KEEPALIVE,
        )
        verify = _tls(settings)
        direct = httpx.AsyncHTTPTransport(verify=verify, limits=limits)
        self._client = httpx.AsyncClient(
            verify=verify,
            proxy=settings.proxy,
            trust_env=settings.trust_env,
            mounts={f"all://{host}": direct for host in _direct_hosts(settings)},
            timeout=httpx.Timeout(settings.total_timeout, connect=settings.connect_timeout),
            limits=limits,
            follow_redirects=False,
            cookies=http.cookiejar.CookieJar(
                http.cookiejar.DefaultCookiePolicy(allowed_domains=[])
            ),
            headers={
                "User-Agent": f"escape-hub/{__version__}",
                "Accept": "application/json",
                "Accept-Encoding": "identity",
            },
        )

    async def get(self, url: str, *, bearer: str | None = None) -> Reply:
        """GET ``url``, with an access token in the header (RFC 6750 section 2.1) or without."""
        headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
        return await self._send("GET", url, headers, None)

    async def post(self, url: str, form: Mapping[str, str], headers: Mapping[str, str]) -> Reply:
        """POST a form."""
        return await self._send("POST", url, headers, form)

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None
    ) -> Reply:
        # What only reads may be asked again at any time: nothing of it can be spent.
        sent = _Sent(changes_something=method == "POST")
        try:
            async with asyncio.timeout(self._settings.total_timeout):
                async with self._client.stream(
                    method, url, headers=headers, data=form, extensions={"trace": sent.trace}
                ) as response:
                    body = await _read(response)
        except (TimeoutError, httpx.TimeoutException):
            raise IssuerUnavailableError(
                "the identity service did not answer in time",
                code="issuer-timeout",
                maybe_processed=sent.maybe_processed,
            ) from None
        except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError, OSError) as error:
            raise _network_error(error, sent) from None
        if body is None:
            raise IssuerUnavailableError(
                "the identity service's answer is compressed or too long to be one",
                code="issuer-garbage",
                maybe_processed=sent.maybe_processed,
            )
        retry_after = _retry_after(response.headers.get("Retry-After"), self._clock.now())
        return Reply(response.status_code, body, retry_after)


class _Sent:
    """Sees, in httpcore's trace, whether a request began to leave this machine.

    ``maybe_processed``: a request that changes something did; ``left``: any request did.
    """

    def __init__(self, *, changes_something: bool) -> None:
        self._changes_something = changes_something
        self.left = False

    @property
    def maybe_processed(self) -> bool:
        return self.left and self._changes_something

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        # A proxy's CONNECT is no request to the issuer.
        if event.endswith("send_request_headers.started"):
            self.left = self.left or info["request"].method != b"CONNECT"


def _tls(settings: IssuerSettings) -> ssl.SSLContext:
    if settings.ca_file is None:
        return httpx.create_ssl_context(trust_env=settings.trust_env)
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(
            f"ca_file: {settings.ca_file!r} cannot be read as PEM certificates "
            f"({type(error).__name__}): give the path of a bundle that the hub may read"
        ) from None


def _direct_hosts(settings: IssuerSettings) -> set[str]:
    """Hosts that no proxy may see: this machine's own names."""
    hosts = {"localhost", "127.0.0.1", "[::1]"}
    host = urlsplit(settings.issuer).hostname
    if host is not None and is_loopback(host):
        hosts.add(f"[{host}]" if ":" in host else host)
    return hosts


async def _read(response: httpx.Response) -> bytes | None:
    """The body; None when it is longer than `MAX_REPLY` or encoded against our wish."""
    if response.headers.get("Content-Encoding", "identity").lower() != "identity":
        return None
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > MAX_REPLY:
            return None
    return bytes(body)


def _network_error(
    error: Exception, sent: _Sent
) -> IssuerUnavailableError | IssuerMisconfiguredError:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return IssuerMisconfiguredError(
                f"the identity service's certificate is not trusted ({cause.verify_message}): "
                "set ca_file to the authority that signed it",
                code="issuer-tls",
            )
        cause = cause.__cause__ or cause.__context__
    # The text of a network error can hold an address with a query: only its kind is told.
    return IssuerUnavailableError(
        f"the identity service cannot be reached ({type(error).__name__})",
        code="issuer-lost" if sent.left else "issuer-unreachable",
        maybe_processed=sent.maybe_processed,
    )


def _retry_after(value: str | None, now: float) -> float | None:
    """Seconds of a Retry-After header, number or date (RFC 9110 section 10.2.3)."""
    if value is None:
        return None
    if value.strip().isascii() and value.strip().isdigit():
        return float(value.strip()[:9])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError, TypeError):
        return None

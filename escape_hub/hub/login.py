"""The two ends of a login: off to the issuer, and back with a code.

Whatever goes wrong on the way is a page with a reason and a way on; nothing of the
address that brings the code is logged or left in the address bar.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

from jupyterhub.utils import get_browser_protocol, url_path_join
from tornado import web

from escape_hub.core.oidc import check_callback_iss
from escape_hub.errors import (
    EscapeHubError,
    IssuerMisconfiguredError,
    IssuerUnavailableError,
)
from escape_hub.hub.audit import log_unexpected
from escape_hub.hub.login_flight import (
    LIFETIME,
    LoginFlight,
    cookie_name,
    local_path,
    state_key,
    unknown_login,
)
from escape_hub.hub.refusal_pages import (
    RefusingHandler,
    SignInError,
    redirect_to_page,
)

#: Seconds a person waits at the button for an issuer that hangs.
START_TIMEOUT = 10.0
_MAX_PARAMETER = 8192
#: Parameters of the authorization request that belong to us (OpenID Connect Core 3.1.2.1).
RESERVED_PARAMETERS = frozenset(
    "client_id client_secret code_challenge code_challenge_method nonce redirect_uri request "
    "request_uri response_mode response_type scope state".split()
)


@dataclass(frozen=True, slots=True)
class LoginReply:
    """What came back from the issuer, for `EscapeAuthenticator.authenticate`."""

    code: str = field(repr=False)
    flight: LoginFlight
    redirect_uri: str


def callback_url(handler: Any) -> str:
    """The redirect URI, as registered at the issuer, seen from the person's browser."""
    authenticator = handler.authenticator
    if authenticator.oauth_callback_url:
        return str(authenticator.oauth_callback_url)
    path = url_path_join(handler.hub.base_url, "oauth_callback")
    if public := handler.settings.get("public_url"):
        return str(public._replace(path=path).geturl())
    return f"{get_browser_protocol(handler.request)}://{handler.request.host}{path}"


class EscapeLoginHandler(RefusingHandler):
    """``GET /hub/oauth_login?next=PATH``: remember the login in a cookie, go to the issuer."""

    async def get(self) -> None:
        authenticator = self.authenticator
        next_url = local_path(self._validate_next_url(self.get_argument("next", "")))
        flight = LoginFlight.start(next_url, authenticator.clock.now())
        try:
            url = await asyncio.wait_for(self._authorization_url(flight), START_TIMEOUT)
        except TimeoutError:
            error = IssuerUnavailableError(
                f"the issuer did not answer within {START_TIMEOUT:.0f} s", code="issuer-timeout"
            )
            await self.show(self.describe(error, next_url))
        except EscapeHubError as error:
            await self.show(self.describe(error, next_url))
        else:
            await self._set_flight_cookie(flight)
            # 303, for the hub logs where a 302 leads to, and the nonce with it.
            self.redirect(url, status=303)

    async def _authorization_url(self, flight: LoginFlight) -> str:
        authenticator = self.authenticator
        url: str = await authenticator.issuer_client.authorization_url(
            redirect_uri=callback_url(self),
            scope=tuple(authenticator.scope),
            state=flight.state,
            nonce=flight.nonce,
            code_challenge=flight.challenge,
            extra=dict(authenticator.extra_authorize_params),
        )
        return url

    async def _set_flight_cookie(self, flight: LoginFlight) -> None:
        self._set_cookie(
            cookie_name(flight.state),
            await flight.seal(),
            encrypted=False,
            path=url_path_join(self.hub.base_url, "oauth_callback"),
            max_age=LIFETIME,
            # The way back is a navigation from the issuer's site: Strict would lose it.
            samesite="Lax",
        )


class EscapeCallbackHandler(RefusingHandler):
    """``GET /hub/oauth_callback``: check that the answer is to a login of this browser."""

    async def get(self) -> None:
        flight: LoginFlight | None = None
        try:
            flight = await self._land()
            code = await self._code()
            reply = LoginReply(code, flight, callback_url(self))
            user = await self.login_user({"login": reply})
            if user is None:
                raise SignInError("The hub refused this account.", code="sign-in-hook")
            await self.authenticator.signed_in(user)
        except EscapeHubError as error:
            self._refuse(error, flight)
        except web.HTTPError as error:
            # From an operator's hook: its message is meant for people.
            self._refuse(SignInError(_words_of(error), code="sign-in-hook"), flight)
        except Exception as error:
            log_unexpected(self.log, "a sign-in", error)
            self._refuse(EscapeHubError(type(error).__name__, code="sign-in-internal"), flight)
        else:
            self.redirect(flight.next_url or self.get_next_url(user), status=303)

    async def _land(self) -> LoginFlight:
        """The login that this is the answer to; it cannot come back a second time."""
        state = self._parameter("state")
        if state is None:
            raise unknown_login()
        name, used = cookie_name(state), self.authenticator.used_states
        value = self.get_cookie(name)
        self.clear_cookie(name, path=url_path_join(self.hub.base_url, "oauth_callback"))
        if value is None or used.get(state_key(state)):
            raise unknown_login()
        used.put(state_key(state), True)
        flight = await LoginFlight.unseal(value)
        flight.must_fit(state, self.authenticator.clock.now())
        return flight

    async def _code(self) -> str:
        metadata = await self.authenticator.issuer_client.metadata()
        check_callback_iss(metadata, self._parameter("iss"))
        if (error := self._parameter("error")) is not None:
            raise _refused_by_issuer(error)
        if (code := self._parameter("code")) is None:
            raise SignInError("The identity service sent no code.", code="sign-in-no-code")
        return code

    def _parameter(self, name: str) -> str | None:
        """A parameter that is there once at most (RFC 6749 section 3.1)."""
        raw = self.request.query_arguments.get(name, [])
        try:
            if len(raw) > 1 or any(len(v) > _MAX_PARAMETER for v in raw):
                raise ValueError(name)
            # Not tornado's own decoding: its complaint would quote the value.
            return raw[0].decode() or None if raw else None
        except ValueError:
            raise SignInError(
                "The identity service's answer is malformed.", code="sign-in-form"
            ) from None

    def _refuse(self, error: EscapeHubError, flight: LoginFlight | None) -> None:
        redirect_to_page(self, self.describe(error, flight.next_url if flight else ""))

    def append_query_parameters(self, url: str, exclude: Any = None) -> str:
        # Upstream would carry code and state on to the next page.
        return url

    def _request_summary(self) -> str:
        # Tornado's warnings print this; the query holds the code.
        return f"{self.request.method} {self.request.path} ({self.request.remote_ip})"

    def log_exception(self, typ: Any, value: Any, tb: Any) -> None:
        # Upstream's prints the whole request, code included.
        log_unexpected(self.log, self._request_summary(), value)


def _words_of(error: web.HTTPError) -> str:
    """The message with its values filled in; Tornado keeps the two apart, and doubles a "%"."""
    try:
        return (error.log_message or "") % error.args or error.reason or ""
    except (TypeError, ValueError):
        return error.log_message or ""


def _refused_by_issuer(error: str) -> EscapeHubError:
    """RFC 6749 section 4.1.2.1 and OpenID Connect Core section 3.1.2.6.

    ``error_description`` is not shown: whoever makes a link can write anything there.
    """
    known = error if error.isascii() and error.isidentifier() and len(error) < 40 else "unreadable"
    if known == "access_denied":
        return SignInError("The identity service did not get your consent.", code="consent-refused")
    if known in {"temporarily_unavailable", "server_error"}:
        return IssuerUnavailableError(f"the callback says {known!r}", code="issuer-down")
    if known in {"invalid_scope", "unauthorized_client", "unsupported_response_type"}:
        return IssuerMisconfiguredError(
            f"the callback says {known!r}: check scope and the client's registration",
            code="client-refused",
            oauth_error=known,
        )
    return SignInError(f"The identity service says {known!r}.", code="sign-in-refused")

"""Pages that say why somebody is not signed in, and what to do about it.

Each has a short reference that stands in the hub's log beside the reason. A
refusal at the callback is shown by a redirect, so that the authorization code does
not stay in the address bar, the history or a ``Referer``.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from jupyterhub.handlers import BaseHandler
from jupyterhub.utils import url_path_join
from tornado.httputil import url_concat

from escape_hub.errors import (
    EscapeHubError,
    IdentityConflictError,
    IssuerMisconfiguredError,
    IssuerUnavailableError,
    LoginRequiredError,
    NotAllowedError,
    TokenError,
    UserActionRequiredError,
)

TEMPLATE = "escape_refused.html"
T = TypeVar("T")


class SignInError(EscapeHubError):
    """The sign-in itself went wrong in the browser: too old, used before, refused, tampered."""

    code = "sign-in"


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a person reads. ``status`` is the HTTP status of the page."""

    status: int
    title: str
    message: str
    remedy: str
    reference: str
    retry_url: str = ""


#: Codes of id_token refusals that a wrong clock explains.
CLOCK_CODES = frozenset({"id-token-exp", "id-token-iat", "id-token-nbf"})
_AGAIN = "Sign in again. If it goes on like this, give the reference below to the administrators."
_OPERATOR = "Give the reference below to the administrators of this service."


def _words(error: EscapeHubError, service: str) -> tuple[int, str, str, str]:
    """``(status, title, message, remedy)``; the first class that fits decides."""
    own = error.message
    match error:
        case IssuerUnavailableError():
            return (
                503,
                f"{service} does not answer",
                "Signing in is not possible at the moment. Sessions that are running go on.",
                "Try again in a minute.",
            )
        case UserActionRequiredError():
            return 403, f"Something is left to do at {service}", own, "Then sign in again."
        case NotAllowedError(code="blocked"):
            return 403, "This account is blocked", own, ""
        case NotAllowedError():
            return 403, "You are not allowed in here yet", own, "Once that is done, sign in again."
        case IdentityConflictError():
            return 403, "This user name belongs to somebody else", own, _OPERATOR
        case SignInError(code="consent-refused"):
            return 403, "You refused consent", own, "Sign in again and agree, if you want to go on."
        case SignInError() | LoginRequiredError():
            return 400, "This sign-in did not come to its end", own, _AGAIN
        case IssuerMisconfiguredError():
            return (
                503,
                "Signing in is out of order",
                f"{service} refuses what this hub asks for. Sessions that are running go on.",
                _OPERATOR,
            )
        case TokenError() if error.code in CLOCK_CODES:
            return (
                403,
                "The clocks disagree",
                f"The clock of this hub and that of {service} are too far apart: {own}",
                _OPERATOR,
            )
        case TokenError():
            return (
                403,
                f"The answer of {service} cannot be trusted",
                "Nobody was signed in.",
                _AGAIN,
            )
    return 500, "Signing in failed", "Something went wrong in this hub.", _OPERATOR


def refusal(error: EscapeHubError, *, service: str, retry_url: str = "") -> Refusal:
    """The page for ``error``. ``service`` is the name people know the issuer by."""
    status, title, message, remedy = _words(error, service)
    reference = f"{error.code}-{secrets.token_hex(3)}"
    return Refusal(status, title, message, remedy, reference, retry_url)


class ExpiringStore(Generic[T]):
    """A bounded memory of values by key; the oldest go first. Times are seconds."""

    def __init__(self, now: Callable[[], float], *, lifetime: float, limit: int) -> None:
        self._now, self._lifetime, self._limit = now, lifetime, limit
        self._entries: OrderedDict[str, tuple[float, T]] = OrderedDict()

    def put(self, key: str, value: T) -> None:
        """Remember ``value`` under ``key`` for the store's lifetime."""
        self._drop_old()
        self._entries.pop(key, None)
        while len(self._entries) >= self._limit:
            self._entries.popitem(last=False)
        self._entries[key] = (self._now() + self._lifetime, value)

    def get(self, key: str) -> T | None:
        """The value, or None when it is unknown or its time is over."""
        self._drop_old()
        found = self._entries.get(key)
        return found[1] if found else None

    def pop(self, key: str) -> T | None:
        """The value as `get` gives it, and forget it."""
        found = self.get(key)
        self._entries.pop(key, None)
        return found

    def _drop_old(self) -> None:
        now = self._now()
        while self._entries and next(iter(self._entries.values()))[0] <= now:
            self._entries.popitem(last=False)


class RefusingHandler(BaseHandler):
    """A page handler of the sign-in: no refresh, nothing cached, refusals as pages."""

    async def refresh_auth(self, user: Any, force: bool = False) -> Any:
        # Whoever is about to sign in needs no renewal first, and must not wait for one.
        return user

    def set_default_headers(self) -> None:
        super().set_default_headers()
        self.set_header("Cache-Control", "no-store")
        self.set_header("Referrer-Policy", "no-referrer")

    def describe(self, error: EscapeHubError, next_url: str = "") -> Refusal:
        """The refusal for ``error``, which is logged with its reference."""
        login_url = self.authenticator.login_url(self.hub.base_url)
        found = refusal(
            error,
            service=self.authenticator.login_service,
            retry_url=url_concat(login_url, {"next": next_url}) if next_url else login_url,
        )
        level = self.log.error if isinstance(error, IssuerMisconfiguredError) else self.log.warning
        if found.status == 500:
            level = self.log.error
        level("Sign-in refused, reference %s: %s", found.reference, error.message)
        return found

    async def show(self, found: Refusal) -> None:
        """Answer with the page."""
        self.set_status(found.status)
        if found.status == 503:
            self.set_header("Retry-After", "60")
        html = await self.render_template(
            TEMPLATE,
            status_code=found.status,
            title=found.title,
            message=found.message,
            remedy=found.remedy,
            reference=found.reference,
            retry_url=found.retry_url,
            retry_label=f"Sign in with {self.authenticator.login_service}",
            home_url=url_path_join(self.hub.base_url, "home"),
        )
        self.finish(html)  # JupyterHub's is no coroutine


class RefusedHandler(RefusingHandler):
    """``GET /hub/oauth_refused/KEY``: the page of a refusal at the callback."""

    async def get(self, key: str) -> None:
        found = self.authenticator.refusals.get(key)
        if found is None:
            error = SignInError("This page is over.", code="sign-in-over")
            found = replace(self.describe(error), status=404)
        await self.show(found)


def redirect_to_page(handler: RefusingHandler, found: Refusal) -> None:
    """Show ``found`` at an address of its own, without what stands in the present one."""
    key = secrets.token_urlsafe(16)
    handler.authenticator.refusals.put(key, found)
    handler.redirect(url_path_join(handler.hub.base_url, "oauth_refused", key), status=303)

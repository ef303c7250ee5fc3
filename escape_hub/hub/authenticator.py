"""Log in at the issuer, stay who you are, and be let in for as long as the rules say so.

Invariants kept here: identity is (issuer, subject) and never a name alone; nobody is
let in without a rule; an issuer that does not answer logs nobody out while a token
lives; and no token-authenticated request is ever turned away by a refresh.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from jupyterhub.apihandlers.users import UserServerAPIHandler
from jupyterhub.handlers.pages import SpawnHandler
from tornado import web
from traitlets import TraitError, default

from escape_hub.clock import Clock, SystemClock
from escape_hub.core.audiences import Audience, parse_audiences
from escape_hub.core.auth_state import ForeignAuthStateError, NeedsLogin
from escape_hub.core.authorization import is_admin, require_allowed
from escape_hub.core.renewal import RenewalPolicy, may_go_on
from escape_hub.errors import SettingsError
from escape_hub.hub import backchannel, pages, startup
from escape_hub.hub.broker import TokenBroker
from escape_hub.hub.handlers import api_handlers
from escape_hub.hub.identity import hub_username, identify
from escape_hub.hub.issuer import Issuer
from escape_hub.hub.login import EscapeCallbackHandler, EscapeLoginHandler, LoginReply
from escape_hub.hub.login_flight import LIFETIME
from escape_hub.hub.logout import EscapeLogoutHandler, SignedOutHandler
from escape_hub.hub.membership import Membership
from escape_hub.hub.refusal_pages import ExpiringStore, Refusal, RefusedHandler
from escape_hub.hub.renewal import RenewalService
from escape_hub.hub.runtime import Runtime
from escape_hub.hub.spawner_traits import check_at_start
from escape_hub.settings import IssuerSettings

#: Seconds a page waits for a renewal that can no longer wait.
PAGE_PATIENCE = 5.0


class EscapeAuthenticator(Membership):
    """OpenID Connect with discovery, PKCE, nonce and checked tokens; see `EscapeTraits`.

    Made without ``issuer`` (in a test, never in a hub) it is its base class.
    """

    clock: Clock
    runtime: Runtime
    broker: TokenBroker
    renewal: RenewalService
    issuer_client: Issuer
    audience_settings: tuple[Audience, ...]

    # -- defaults that differ from upstream's ------------------------------------------

    @default("login_service")
    def _default_login_service(self) -> str:
        return "ESCAPE IAM" if self.issuer else self._login_service_default()

    @default("scope")
    def _default_scope(self) -> list[str]:
        return ["openid", "profile", "email", "offline_access"] if self.issuer else []

    @default("username_claim")
    def _default_username_claim(self) -> str:
        return "preferred_username" if self.issuer else "username"

    @default("enable_auth_state")
    def _default_enable_auth_state(self) -> bool:
        return bool(self.issuer)

    @default("manage_groups")
    def _default_manage_groups(self) -> bool:
        return bool(self.issuer) or startup.is_hub(self.parent)

    @default("client_secret")
    def _default_client_secret(self) -> str:
        # Taken out of the environment, which the proxy and local sessions would inherit.
        names = ("ESCAPE_HUB_CLIENT_SECRET", "OAUTH_CLIENT_SECRET")
        return next((s for name in names if (s := os.environ.pop(name, ""))), "")

    @default("auth_refresh_age")
    def _default_auth_refresh_age(self) -> int:
        # A look at what is stored costs 0.2 ms, and "sign in again" should not be late.
        return 60 if self.issuer else 300

    # -- start -------------------------------------------------------------------------

    def __init__(self, **kwargs: Any) -> None:
        try:
            super().__init__(**kwargs)
            self._set_up()
        except (SettingsError, TraitError, ValueError) as error:
            if not startup.is_hub(app := kwargs.get("parent")):
                raise
            startup.stop_with_line(app, error)

    def _set_up(self) -> None:
        """Check every setting, before the hub serves anything and without the issuer."""
        in_hub = startup.is_hub(self.parent)
        if not self.issuer and not in_hub:
            return
        startup.check_names(self)
        self.issuer_settings = self._issuer_settings()
        startup.check_forced(self)
        self.audience_settings = parse_audiences(self.audiences, setting="audiences")
        self.policy = RenewalPolicy(
            outage_grace=self.outage_grace,
            max_session_age=self.max_session_age,
            check_interval=self.blocked_check_interval,
            rate=self.renewal_rate,
            in_flight=self.renewal_concurrency,
        )
        if in_hub:
            startup.check_encryption()
        self.clock = self.new_clock()
        self.issuer_client = Issuer(self.issuer_settings, clock=self.clock)
        self.used_states: ExpiringStore[bool] = ExpiringStore(
            lambda: self.clock.now(), lifetime=2 * LIFETIME, limit=20_000
        )
        self.refusals: ExpiringStore[Refusal] = ExpiringStore(
            lambda: self.clock.now(), lifetime=LIFETIME, limit=1_000
        )

    def new_clock(self) -> Clock:
        """The clock of everything here; tests have another."""
        return SystemClock()

    def _issuer_settings(self) -> IssuerSettings:
        try:
            return IssuerSettings(
                issuer=self.issuer,
                expected_issuer=self.expected_issuer or None,
                client_id=self.client_id,
                client_secret=self.client_secret,
                client_auth=self.client_auth,
                signing_algorithms=tuple(self.signing_algorithms),
                ca_file=self.ca_file or None,
                proxy=self.http_proxy or None,
            )
        except SettingsError as error:
            name = "http_" if error.message.startswith("proxy") else ""
            raise SettingsError(name + error.message) from None

    def check_allow_config(self) -> None:
        """Say at start that nobody can come in, and which settings change that."""
        if self.issuer and self.rules.empty and not self.allow_existing_users:
            self.log.warning(
                "Nobody can sign in: no rule lets anybody in. Set one of allowed_groups, "
                "allowed_roles, allowed_users, admin_users (or allow_all) on "
                "c.EscapeAuthenticator"
            )
        elif not self.issuer:
            super().check_allow_config()

    def get_handlers(self, app: Any) -> list[Any]:
        """Routes below ``/hub/``; called once by the hub, which is then about to run."""
        if not self.issuer:
            return list(super().get_handlers(app))
        try:
            startup.check_scope()
            startup.check_hub_roles(app.db, self.hub_roles)
            check_at_start(app, [audience.name for audience in self.audience_settings])
        except SettingsError as error:
            startup.stop_with_line(app, error)
        self.runtime = Runtime(self, app)
        self.broker, self.renewal = self.runtime.broker, self.runtime.renewal
        self.runtime.start_with(app)
        return [
            (r"/oauth_login", EscapeLoginHandler),
            (r"/oauth_callback", EscapeCallbackHandler),
            (r"/oauth_refused/([A-Za-z0-9_-]+)", RefusedHandler),
            (r"/logout", EscapeLogoutHandler),
            (r"/escape/signed_out", SignedOutHandler),
            *backchannel.routes(self),
            *api_handlers(),
            *pages.handlers(app),
        ]

    # -- login -------------------------------------------------------------------------

    async def authenticate(self, handler: Any, data: Any = None, **kwargs: Any) -> Any:
        """Turn the issuer's code into a hub user; an `EscapeHubError` says why not.

        Only our callback brings a `LoginReply`: whatever else asks the hub to
        authenticate somebody (a password in the body of an API request) gets None.
        """
        if not self.issuer:
            return await super().authenticate(handler, data, **kwargs)
        login = data.get("login") if isinstance(data, Mapping) else None
        if not isinstance(login, LoginReply):
            return None
        identity = await identify(self.issuer_client, login)
        username = hub_username(self, identity.claims)
        identities = self.runtime.identities
        with self.runtime.judging(username):
            identities.check(username, identity.issuer, identity.subject)
            person = await self.person(username, identity.claims, identity.reply.scope)
            require_allowed(self.rules, person)
        identities.bind(username, identity.issuer, identity.subject, self.clock.now())
        state = await self.runtime.begin(username, identity)
        model: dict[str, Any] = {
            "name": username,
            "admin": is_admin(self.rules, person),
            "auth_state": state.to_dict(),
        }
        if self.manage_groups:
            model["groups"] = sorted(person.groups)
        return model

    async def signed_in(self, user: Any) -> None:
        """After a login was stored: hub roles, and running sessions get their tokens again."""
        await self.roles_after_login(user, self.runtime.store)
        self.runtime.signed_in(user)

    # -- staying signed in -------------------------------------------------------------

    async def refresh_user(self, user: Any, handler: Any = None, **kwargs: Any) -> Any:
        """True, or False where a browser must be sent to the login; never new auth_state.

        False is for requests with the user's own cookie alone: on JupyterHub 5 it
        would turn every API request of a running server into a 403.
        """
        if not self.issuer:
            return await super().refresh_user(user, handler, **kwargs)
        if not _is_own_page(user, handler):
            return True
        try:
            if _is_start(handler):
                # The start renews by itself (`spawning`), while the starting page says so:
                # until the wait here was over JupyterHub would call the server not running.
                state = await self.broker.state(user.name)
                if may_go_on(self.policy, state, self.clock.now()):
                    return True
            # Asks no issuer unless a renewal can no longer wait.
            state = await self.broker.renew(user.name, patience=PAGE_PATIENCE)
        except LookupError:
            return False
        except ForeignAuthStateError as error:
            self.log.info("%s must sign in: %s", user.name, error.message)
            return False
        return may_go_on(self.policy, state, self.clock.now())

    # -- servers and users -------------------------------------------------------------

    def pre_spawn_start(self, user: Any, spawner: Any) -> None:
        """Remember the new server's own token; refuse a spawn that could never get any."""
        if not self.issuer:
            return
        row = self.runtime.server_tokens.record(spawner.api_token, user.name, spawner.name)
        names = {scope.split("!")[0] for scope in row.scopes} if row else set()
        if not names & {startup.TOKEN_SCOPE, "inherit"}:
            message = startup.missing_scope(user.name).message
            self.log.error("%s", message)
            raise web.HTTPError(
                503,
                "This hub is not set up to give sessions access to the data lake: tell %s",
                self.contact,
            )

    def post_spawn_stop(self, user: Any, spawner: Any) -> None:
        """A stopped server's token is worth nothing any more."""
        if self.issuer and not spawner.will_resume:
            self.runtime.server_tokens.forget(user.name, spawner.name)

    async def delete_user(self, user: Any) -> None:
        """An administrator deletes the hub user: the name is free for another person."""
        super().delete_user(user)
        if self.issuer:
            reason = NeedsLogin(
                "user-deleted", "this user was deleted", self.clock.now(), wipe=True
            )
            await self.runtime.end(user.name, reason)
            self.runtime.identities.forget(user.name)
            self.runtime.server_tokens.forget(user.name)


def _is_own_page(user: Any, handler: Any) -> bool:
    """Whether the request came with the user's own cookie.

    JupyterHub 6.1 reads ``_token_authenticated`` without ever setting it for a
    cookie, which is an HTTP 500 when a refresh fails: it is set here.
    """
    if handler is None:
        return False
    if not hasattr(handler, "_token_authenticated"):
        handler._token_authenticated = False
    # During the look at the cookie itself 5.5 has no current user yet: it is this one.
    requester = getattr(handler, "_jupyterhub_user", None) or user
    return not handler._token_authenticated and requester.name == user.name


def _is_start(handler: Any) -> bool:
    """Whether the request starts a server."""
    starts = isinstance(handler, SpawnHandler | UserServerAPIHandler)
    return starts and handler.request.method == "POST"

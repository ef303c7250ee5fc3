"""What runs inside the hub beside its handlers: broker, renewal, and the tables of ours.

Made once, when the hub asks the authenticator for its handlers; started when the hub
runs; stopped before the hub cleans up, so that a refresh token just rotated is
still stored.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from jupyterhub import crypto

from escape_hub.clock import Clock
from escape_hub.core.auth_state import AuthState, NeedsLogin
from escape_hub.core.pacing import TokenBucket
from escape_hub.errors import IdentityConflictError, NotAllowedError
from escape_hub.hub.audit import Audit, attach_to, log_unexpected
from escape_hub.hub.backchannel import BackchannelLogout
from escape_hub.hub.broker import TokenBroker
from escape_hub.hub.crypt_keys import remember_keys
from escape_hub.hub.identities import Identities
from escape_hub.hub.identity import Identity
from escape_hub.hub.metrics import metrics_of
from escape_hub.hub.refusal_pages import ExpiringStore
from escape_hub.hub.renewal import RenewalService
from escape_hub.hub.server_tokens import ServerTokens
from escape_hub.hub.store import HubAuthStateStore, protect_from_rewrites

log = logging.getLogger(__name__)

#: Seconds in which the issuer may tell us of a logout that began here. Whoever takes longer
#: there loses the access of their servers, and not an administrator's word.
LEAVING = 120.0


class RateLimit:
    """A token bucket for each key; the keys least lately used are forgotten."""

    def __init__(self, clock: Clock, *, rate: float, burst: float, keys: int = 20_000) -> None:
        self._clock, self._rate, self._burst, self._keys = clock, rate, burst, keys
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def wait(self, key: str) -> float:
        """0 and one request counted, or the seconds until there is room for one."""
        now = self._clock.now()
        bucket = self._bucket(key, now)
        return 0.0 if bucket.take(1, now) else bucket.wait(1, now)

    def room_in(self, key: str) -> float:
        """Seconds until `wait` would give 0; counts nothing."""
        now = self._clock.now()
        return self._bucket(key, now).wait(1, now)

    def charge(self, key: str) -> None:
        """Count one request that turned out to cost."""
        now = self._clock.now()
        self._bucket(key, now).charge(1, now)

    def _bucket(self, key: str, now: float) -> TokenBucket:
        bucket = self._buckets.pop(key, None) or TokenBucket(self._rate, self._burst, now)
        self._buckets[key] = bucket
        if len(self._buckets) > self._keys:
            self._buckets.popitem(last=False)
        return bucket


class Runtime:
    """The hub's long-lived parts. ``authenticator`` holds the settings, ``app`` is the hub."""

    def __init__(self, authenticator: Any, app: Any) -> None:
        self._authenticator, self._app = authenticator, app
        self._clock: Clock = authenticator.clock
        attach_to(app.log)
        remember_keys(app.db, crypto.CryptKeeper.instance().keys)
        protect_from_rewrites()
        self.identities = Identities(app.db)
        self.identities.create_table()
        self.server_tokens = ServerTokens(app.db)
        self.server_tokens.create_table()
        self.store = HubAuthStateStore(app)
        self.audit = Audit()
        self._count, self._count_until = 0, 0.0
        self.limits = {
            "tokens": RateLimit(self._clock, rate=1.0, burst=10.0),
            "renew": RateLimit(self._clock, rate=0.1, burst=3.0),
            "backchannel": RateLimit(self._clock, rate=0.5, burst=20.0),
        }
        self._leaving: ExpiringStore[str] = ExpiringStore(
            self._clock.now, lifetime=LEAVING, limit=20_000
        )
        self.backchannel = BackchannelLogout(authenticator, self, app)
        self.metrics = metrics = metrics_of()
        rng = random.SystemRandom()
        self.broker = TokenBroker(
            issuer=authenticator.issuer_client,
            store=self.store,
            audiences=authenticator.audience_settings,
            policy=authenticator.policy,
            clock=self._clock,
            rng=rng,
            metrics=metrics,
            audit=self.audit,
            authorize=authenticator.authorize,
        )
        self.renewal = RenewalService(
            broker=self.broker,
            sessions=self.sessions,
            policy=authenticator.policy,
            clock=self._clock,
            rng=rng,
            metrics=metrics,
        )

    # -- sessions ----------------------------------------------------------------------

    def sessions(self) -> Iterable[str]:
        """Names of the users with a server that runs, starts or stops."""
        return [user.name for user in self._app.users.values() if self.has_session(user)]

    def session_count(self) -> int:
        """How many servers run; counted every ten seconds, for it looks at every user."""
        now = self._clock.now()
        if now >= self._count_until:
            counts: dict[str, int] = self._app.users.count_active_users()
            self._count, self._count_until = counts["active"], now + 10.0
        return self._count

    @staticmethod
    def has_session(user: Any) -> bool:
        """Whether any server of the user runs, starts or stops."""
        return any(spawner.active for spawner in user.spawners.values())

    # -- people ------------------------------------------------------------------------

    async def begin(self, username: str, identity: Identity) -> AuthState:
        """The state of a fresh login, each audience exchanged as far as it can be had."""
        return await self.broker.begin(
            username,
            identity.reply,
            issuer=identity.issuer,
            subject=identity.subject,
            claims=identity.claims,
            sid=identity.sid,
        )

    @contextmanager
    def judging(self, username: str) -> Iterator[None]:
        """Whoever is refused stands in the audit log, as whoever is let in does."""
        try:
            yield
        except (NotAllowedError, IdentityConflictError) as error:
            self.audit.record("login", username, "refused", reference=error.code)
            raise

    def signed_in(self, user: Any) -> None:
        """Running sessions go on with the new sign-in."""
        self._leaving.pop(user.name)
        if self.has_session(user):
            self.renewal.schedule(user.name)

    def leaves_with_access(self, username: str, sid: str | None) -> None:
        """The person goes from our logout to the issuer's while their servers keep their access."""
        self._leaving.put(username, sid or "")

    def left_with_access(self, username: str, sid: str | None) -> bool:
        """Whether a logout at the issuer is the end of one that began here; true once.

        ``sid`` is the issuer's session that ended, None when it does not say.
        """
        own = self._leaving.get(username)
        if own is None or (own and sid and own != sid):
            return False
        self._leaving.pop(username)
        return True

    async def end(self, username: str, reason: NeedsLogin) -> None:
        """The sign-in is over: nothing to renew, tokens cleared, refresh token revoked.

        Never raises: a logout goes on whatever happens here.
        """
        self.renewal.unschedule(username)
        try:
            await self.broker.forget(
                username, reason=reason, revoke=self._authenticator.revoke_on_logout
            )
        except Exception as error:
            log_unexpected(log, f"ending the sign-in of {username!r}", error)

    # -- start and stop ----------------------------------------------------------------

    def start_with(self, app: Any) -> None:
        """Start when the hub runs; stop before it cleans up."""
        self._starting = asyncio.ensure_future(self._start(app))
        clean_up = app.cleanup

        async def stop_first() -> None:
            await self.stop()
            await clean_up()

        # No hook of JupyterHub comes early enough: its own shutdown cancels every task,
        # and a renewal that was cancelled may have lost a rotated refresh token.
        app.cleanup = stop_first

    async def _start(self, app: Any) -> None:
        await asyncio.shield(app._start_future)
        await self.renewal.start()

    async def stop(self) -> None:
        """Stop renewing; what is under way is finished and stored first."""
        self._starting.cancel()
        await self.backchannel.finish()
        try:
            await self.renewal.stop()
        except Exception as error:
            log_unexpected(log, "the end of the renewal", error)
        await self._authenticator.issuer_client.aclose()

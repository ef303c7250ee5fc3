"""Whatever goes wrong in whatever order: nothing expired is handed out, nothing rotated is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from escape_hub.core.auth_state import AuthState, NeedsLogin
from escape_hub.errors import (
    IssuerMisconfiguredError,
    LoginRequiredError,
    UserActionRequiredError,
)
from tests.fakes.clock import FakeClock, settle
from tests.fakes.issuer import ISSUER, LOST, FakeIssuer, unavailable
from tests.fakes.rig import FlakyStore, Rig

USERS = ("alice", "bob")
FAULTS = {
    "refresh": [
        unavailable(),
        unavailable("issuer-busy", retry_after=40.0),
        IssuerMisconfiguredError("no", code="client-refused"),
        UserActionRequiredError("sign", code="aup-unsigned"),
        LoginRequiredError("?", code="refresh-refused-unknown", confirm=True),
        LOST,
    ],
    "exchange": [unavailable(), IssuerMisconfiguredError("no", code="exchange-denied"), LOST],
    "userinfo": [unavailable(), LOST],
}


class Renewals(RuleBasedStateMachine):
    """Two users, one issuer with single-use refresh tokens, one hub that may be restarted."""

    @initialize(life=st.sampled_from([30.0, 700.0, 3600.0]), latency=st.sampled_from([0.0, 0.4]))
    def start(self, life: float, latency: float) -> None:
        self.loop = asyncio.Runner()
        self.clock = FakeClock()
        self.issuer = FakeIssuer(self.clock, lifetime=life, latency=latency, timeout=12.0)
        self.store = FlakyStore()
        self.rig = self.hub()
        self.begun: list[tuple[str, asyncio.Task[AuthState]]] = []
        self.run(self.rig.service.start())
        for user in USERS:
            self.login(user)

    def hub(self) -> Rig:
        rig = Rig(clock=self.clock, issuer=self.issuer, store=self.store)
        rig.users = list(USERS)
        return rig

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run(work)

    def teardown(self) -> None:
        if hasattr(self, "loop"):
            self.issuer.hang = self.issuer.down = self.store.broken = False
            self.run(self.rest())
            self.check_nothing_lost()
            self.run(self.stop())
            self.loop.close()

    async def rest(self) -> None:
        """Long enough for everything begun to end and for the store to be written."""
        await self.clock.advance(60)

    async def stop(self) -> None:
        await self.clock.run(self.rig.service.stop())
        await settle()

    # -- what may happen ---------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.1, 0.5, 3.0, 14.0, 31.0, 400.0, 2000.0, 5000.0]))
    def time_passes(self, seconds: float) -> None:
        self.run(self.clock.advance(seconds))

    @rule(
        user=st.sampled_from(USERS),
        force=st.booleans(),
        period=st.sampled_from([0.0, 10.0, 2000.0]),
        callers=st.integers(1, 4),
    )
    def somebody_asks(self, user: str, force: bool, period: float, callers: int) -> None:
        async def ask() -> None:
            for _ in range(callers):
                work = self.rig.broker.renew(user, force=force, min_valid_period=period)
                self.begun.append((user, asyncio.ensure_future(work)))
            await settle()

        self.run(ask())

    @rule(user=st.sampled_from(USERS))
    def login(self, user: str) -> None:
        async def log_in() -> None:
            reply = self.issuer.sign_in(user)
            begin = self.rig.broker.begin(user, reply, issuer=ISSUER, subject=user, claims={})
            state = await self.clock.run(begin)
            if not self.store.broken:  # JupyterHub's own save would fail, and so the login
                self.store.states[user] = state

        self.run(log_in())

    @rule(user=st.sampled_from(USERS))
    def logout(self, user: str) -> None:
        reason = NeedsLogin("signed-out", "you signed out", self.clock.now(), wipe=True)
        self.run(self.clock.run(self.rig.broker.forget(user, reason=reason)))

    @rule(data=st.data(), stage=st.sampled_from(sorted(FAULTS)))
    def a_call_will_fail(self, data: st.DataObject, stage: str) -> None:
        fault = data.draw(st.sampled_from(FAULTS[stage]))
        self.issuer.fail(stage, fault)

    @rule(name=st.sampled_from(["down", "hang"]), value=st.booleans())
    def the_issuer_changes(self, name: str, value: bool) -> None:
        setattr(self.issuer, name, value)

    @rule(broken=st.booleans())
    def the_database_changes(self, broken: bool) -> None:
        self.store.broken = broken

    @precondition(lambda self: not self.store.broken)
    @rule()
    def the_hub_restarts(self) -> None:
        async def restart() -> None:
            await self.stop()
            self.rig = self.hub()
            await self.rig.service.start()

        self.run(restart())

    # -- what must hold ----------------------------------------------------------------------

    @invariant()
    def no_refresh_token_is_presented_twice_at_once(self) -> None:
        assert self.issuer.presented_at_once == 0

    @invariant()
    def nothing_expired_is_handed_out_as_living(self) -> None:
        now = self.clock.now()
        for user, task in [pair for pair in self.begun if pair[1].done()]:
            self.begun.remove((user, task))
            if isinstance(error := task.exception(), LookupError):
                continue
            assert error is None
            for token in task.result().exchanged.values():
                if token.is_valid(now):
                    sign_in, known, _ = self.issuer._access[token.value]
                    assert sign_in.subject == user
                    assert known.expires_at >= token.expires_at

    @invariant()
    def who_signed_out_has_no_token(self) -> None:
        for state in self.store.states.values():
            if state.needs_login is not None:
                assert state.refresh_token is None
            if state.needs_login is not None and state.needs_login.wipe:
                assert not state.exchanged
                assert state.login_token is None

    def check_nothing_lost(self) -> None:
        for user, state in self.store.states.items():
            if state.needs_login is not None or state.refresh_token in self.issuer.lost:
                continue
            assert self.issuer.is_current(state.refresh_token), f"{user}'s was lost"


class TestRenewals(Renewals.TestCase):
    settings = settings(
        max_examples=60,
        stateful_step_count=30,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )

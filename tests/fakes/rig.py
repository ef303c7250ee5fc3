"""Broker, service, store and issuer on one simulated clock, for tests of the renewal."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import Any

from prometheus_client import CollectorRegistry

from escape_hub.core.audiences import Audience
from escape_hub.core.auth_state import AuthState
from escape_hub.core.renewal import RenewalPolicy
from escape_hub.hub.audit import Audit
from escape_hub.hub.broker import TokenBroker
from escape_hub.hub.metrics import metrics_of
from escape_hub.hub.renewal import RenewalService
from escape_hub.hub.store import MemoryStore
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import ISSUER, FakeIssuer

EOS = Audience("eos", "eos-eulake", "openid", "eos.token", label="EOS storage")
RUCIO = Audience("rucio", "rucio", "openid profile", "rucio.token", label="Rucio catalogue")


class FlakyStore(MemoryStore):
    """A store whose saves fail while ``broken``, and which can be given something to do first."""

    def __init__(self) -> None:
        super().__init__()
        self.broken = False
        self.saves = 0
        self.loads = 0
        self.history: list[AuthState] = []

    async def load(self, user: str) -> AuthState | None:
        self.loads += 1
        return await super().load(user)

    async def save(
        self, user: str, state: AuthState, *, expected: int | None = None, wipe: bool = False
    ) -> None:
        self.saves += 1
        if self.broken:
            raise OSError("the disk is full")
        await super().save(user, state, expected=expected, wipe=wipe)
        self.history.append(state)


class Rig:
    """Everything that renews, and short ways to ask about it."""

    def __init__(
        self,
        policy: RenewalPolicy | None = None,
        store: FlakyStore | None = None,
        issuer: FakeIssuer | None = None,
        clock: FakeClock | None = None,
        seed: int = 1,
        **more: Any,
    ) -> None:
        self.clock = clock or FakeClock()
        self.issuer = issuer or FakeIssuer(self.clock)
        self.store = store or FlakyStore()
        self.metrics = metrics_of(CollectorRegistry())
        self.registry = self.metrics.registry
        self.policy = policy or RenewalPolicy()
        self.users: list[str] = []
        rng = Random(seed)  # noqa: S311
        self.broker = TokenBroker(
            self.issuer,
            self.store,
            (EOS, RUCIO),
            self.policy,
            self.clock,
            rng,
            self.metrics,
            Audit(),
            **more,
        )
        self.service = RenewalService(
            self.broker, lambda: self.users, self.policy, self.clock, rng, self.metrics
        )

    async def login(self, user: str = "alice", *, offline: bool = True) -> AuthState:
        """Log in, and store the state as JupyterHub does: without any comparing."""
        state = await self.begin(user, offline=offline)
        self.store.states[user] = state
        return state

    async def begin(self, user: str = "alice", *, offline: bool = True) -> AuthState:
        reply = self.issuer.sign_in(user, offline=offline)
        return await self.clock.run(
            self.broker.begin(
                user, reply, issuer=ISSUER, subject=user, claims={"sub": user}, sid=None
            )
        )

    async def renew(self, user: str = "alice", **wish: Any) -> AuthState:
        return await self.clock.run(self.broker.renew(user, **wish))

    async def renew_due(self, user: str = "alice") -> AuthState:
        return await self.clock.run(self.broker.renew_due(user))

    def stored(self, user: str = "alice") -> AuthState:
        return self.store.states[user]

    def are_good(self, state: AuthState, names: Iterable[str] = ("eos", "rucio")) -> bool:
        """Whether every service of the lake would accept its token now."""
        wanted = {"eos": EOS.audience, "rucio": RUCIO.audience}
        return all(
            name in state.exchanged
            and self.issuer.is_good(state.exchanged[name].value, wanted[name])
            for name in names
        )

    def metric(self, name: str, **labels: str) -> float:
        value = self.registry.get_sample_value(f"escape_hub_{name}", labels)
        return 0.0 if value is None else value

"""The gate before the issuer: order, pace, and what it learns from answers."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client import CollectorRegistry

from escape_hub.core.renewal import RenewalPolicy
from escape_hub.errors import IssuerMisconfiguredError, IssuerUnavailableError
from escape_hub.hub.admission import (
    ON_DEMAND,
    QUEUED,
    SCHEDULED,
    Admission,
    NotAdmittedError,
    Place,
)
from escape_hub.hub.metrics import metrics_of
from tests.fakes.clock import FakeClock, settle
from tests.fakes.issuer import unavailable


class Gate:
    """An `Admission` on simulated time, and the order in which it lets renewals in."""

    def __init__(self, **policy: float) -> None:
        self.clock = FakeClock()
        self.metrics = metrics_of(CollectorRegistry())
        self.admission = Admission(RenewalPolicy(**policy), self.clock, self.metrics)
        self.admitted: list[str] = []
        self.active = self.most_active = 0

    async def renewal(self, name: str, place: Place, patience: float = 1e6, seconds: float = 0.0):
        async with self.admission.renewal(place, patience) as queued:
            self.admitted.append(name)
            self.active += 1
            self.most_active = max(self.most_active, self.active)
            await self.clock.sleep(seconds)
            self.active -= 1
            return queued

    def begin(self, name: str, urgency: int, at: float, calls: int = 1, **more: float):
        return asyncio.ensure_future(self.renewal(name, Place(urgency, at, calls), **more))

    async def fail(self, times: int) -> None:
        async def down() -> None:
            raise unavailable()

        for _ in range(times):
            with pytest.raises(IssuerUnavailableError):
                await self.admission.call("refresh", down)

    async def answer(self) -> None:
        async def good() -> None:
            return None

        await self.admission.call("refresh", good)


async def test_the_most_urgent_go_first_whoever_came_first():
    gate = Gate(rate=1, burst=1)
    places = [("first", SCHEDULED, 50.0), ("late", SCHEDULED, 30.0), ("soon", SCHEDULED, 10.0)]
    tasks = [gate.begin(*one) for one in [*places, ("person", ON_DEMAND, 99.0)]]
    await gate.clock.advance(10)
    assert gate.admitted == ["first", "person", "soon", "late"]
    assert [await task for task in tasks] == [False, True, True, True]


async def test_a_queued_renewal_can_be_lifted_to_the_front_and_is_let_in_once():
    gate = Gate(rate=1, burst=1)
    place = Place(SCHEDULED, 99.0)
    tasks = [gate.begin("first", SCHEDULED, 0.0), gate.begin("other", SCHEDULED, 1.0)]
    tasks.append(asyncio.ensure_future(gate.renewal("lifted", place)))
    await settle()
    gate.admission.promote(place)
    gate.admission.promote(place)
    await gate.clock.advance(10)
    assert gate.admitted == ["first", "lifted", "other"]
    await asyncio.gather(*tasks)


async def test_who_runs_out_of_patience_takes_no_permit():
    gate = Gate(rate=1, burst=4)
    await gate.begin("first", SCHEDULED, 0.0, 4)
    impatient = gate.begin("impatient", SCHEDULED, 0.0, 4, patience=2.0)
    patient = gate.begin("patient", SCHEDULED, 1.0, 4)
    await gate.clock.advance(4)
    assert impatient.exception().code == QUEUED
    assert gate.admitted == ["first", "patient"]
    await patient


async def test_who_is_cancelled_in_the_queue_leaves_the_others_their_turn():
    gate = Gate(rate=1, burst=1)
    first, gone, other = (gate.begin(n, SCHEDULED, i) for i, n in enumerate("abc"))
    await settle()
    gone.cancel()
    await gate.clock.advance(2)
    assert gate.admitted == ["a", "c"]
    await asyncio.gather(first, other)
    assert gate.admission._active == 0


async def test_a_full_house_lets_the_next_in_when_one_leaves():
    gate = Gate(rate=1000, burst=1000, in_flight=3)
    tasks = [gate.begin(str(i), SCHEDULED, i, seconds=5.0) for i in range(9)]
    await gate.clock.advance(4)
    assert gate.active == 3
    await gate.clock.advance(20)
    assert len(gate.admitted) == 9
    assert gate.most_active == 3
    await asyncio.gather(*tasks)


async def test_an_open_breaker_turns_everybody_away_at_once_even_from_the_queue():
    gate = Gate(rate=0.01, burst=1)
    await gate.begin("first", SCHEDULED, 0.0)
    queued = gate.begin("queued", SCHEDULED, 0.0)
    await settle()
    await gate.fail(5)
    await settle()
    assert isinstance(queued.exception(), NotAdmittedError)
    with pytest.raises(NotAdmittedError):
        await gate.begin("next", ON_DEMAND, 0.0)
    assert gate.metrics.registry.get_sample_value("escape_hub_idp_circuit_open") == 1


async def test_a_good_probe_opens_the_gate_slowly():
    gate = Gate(rate=1000, burst=1000)
    await gate.fail(5)
    await gate.clock.advance(15)
    async with gate.admission.renewal(Place(SCHEDULED, 0.0), 1.0):
        await gate.answer()
    assert gate.metrics.registry.get_sample_value("escape_hub_idp_circuit_open") == 0
    tasks = [gate.begin(str(i), SCHEDULED, i, seconds=1.0) for i in range(10)]
    await settle()
    assert gate.active == 2
    await gate.answer()
    await gate.clock.advance(1)
    assert gate.active == 3
    await gate.clock.advance(10)
    await asyncio.gather(*tasks)


async def test_a_refusal_is_an_answer_and_no_outage():
    gate = Gate()

    async def refuse() -> None:
        raise IssuerMisconfiguredError("no")

    async def subject_refused() -> None:
        # What the client raises when the subject token is old; the issuer answered 400.
        raise unavailable("exchange-subject-refused", oauth_error="invalid_request")

    for request in (refuse, subject_refused):
        await gate.fail(4)
        for _ in range(9):
            with pytest.raises((IssuerMisconfiguredError, IssuerUnavailableError)):
                await gate.admission.call("exchange", request)
        assert not gate.admission.breaker.is_open


async def test_no_more_calls_are_in_flight_than_allowed():
    gate = Gate(in_flight=4)
    active = most = 0

    async def slow() -> None:
        nonlocal active, most
        active += 1
        most = max(most, active)
        await gate.clock.sleep(1)
        active -= 1

    calls = [asyncio.ensure_future(gate.admission.call("x", slow)) for _ in range(11)]
    await gate.clock.advance(0.5)
    assert active == 4
    await gate.clock.advance(5)
    await asyncio.gather(*calls)
    assert most == 4


async def test_a_login_waits_for_nobody_and_those_after_it_pay():
    gate = Gate(rate=1, burst=4)
    gate.admission.charge(10)
    queued = gate.begin("next", SCHEDULED, 0.0, 1)
    await gate.clock.advance(6.9)
    assert not queued.done()
    await gate.clock.advance(0.2)
    assert queued.done()


async def test_a_closed_gate_lets_nothing_begin_and_what_has_begun_end():
    gate = Gate(rate=1, burst=1)
    begun = gate.begin("begun", SCHEDULED, 0.0, seconds=3.0)
    queued = gate.begin("queued", SCHEDULED, 0.0)
    await settle()
    await gate.admission.aclose()
    await gate.clock.advance(5)
    assert queued.exception().code == QUEUED
    assert await begun is False
    with pytest.raises(NotAdmittedError):
        await gate.begin("next", ON_DEMAND, 0.0)

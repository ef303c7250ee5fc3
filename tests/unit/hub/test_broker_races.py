"""Many callers, logins in between, lost replies, a failing database: nothing is lost."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from escape_hub.core.auth_state import NeedsLogin
from escape_hub.core.renewal import LOST_REPLY
from escape_hub.errors import LoginRequiredError
from escape_hub.hub.slots import Slot, Slots
from escape_hub.hub.store import StateMovedError
from tests.fakes.clock import FakeClock
from tests.fakes.issuer import LOST, FakeIssuer, unavailable
from tests.fakes.rig import FlakyStore, Rig

SIGNED_OUT = NeedsLogin("signed-out", "you signed out", 0.0, wipe=True)


@pytest.fixture
def rig() -> Rig:
    """An issuer that takes 300 ms for everything, with single-use refresh tokens."""
    clock = FakeClock()
    return Rig(clock=clock, issuer=FakeIssuer(clock, latency=0.3))


async def expired(rig: Rig) -> None:
    await rig.login()
    await rig.clock.advance(3700)


async def burst(rig: Rig) -> list:
    callers = (rig.broker.renew("alice", force=i % 4 == 0) for i in range(20))
    return await rig.clock.run(asyncio.gather(*callers, return_exceptions=True))


async def test_twenty_at_once_spend_one_refresh_token_and_all_get_its_fruits(rig):
    await expired(rig)
    states = await burst(rig)
    assert rig.issuer.calls["refresh"] == 1
    assert rig.issuer.refused.total() == 0
    assert all(rig.are_good(state) for state in states)
    assert len({state.generation for state in states}) == 1
    assert rig.metric("singleflight_joins_total") == 19


async def test_the_test_above_fails_without_the_lock(rig):
    class Unlocked(Slots):
        @asynccontextmanager
        async def hold(self, user):
            yield Slot(), False

    rig.broker._slots = Unlocked()
    await expired(rig)
    await burst(rig)
    assert rig.issuer.calls["refresh"] > 1
    assert rig.issuer.presented_at_once > 0
    assert not rig.issuer.is_current(rig.stored().refresh_token)


async def test_joiners_of_a_failure_share_it_too(rig):
    await expired(rig)
    rig.issuer.down = True
    states = await burst(rig)
    assert rig.issuer.calls["refresh"] == 1
    assert {state.failures[""].kind for state in states} == {"transient"}


async def test_users_do_not_wait_for_each_other(rig):
    for name in ("alice", "bob"):
        await rig.login(name)
    await rig.clock.advance(3700)
    before = rig.clock.now()
    await rig.clock.run(asyncio.gather(*(rig.broker.renew(n) for n in ("alice", "bob"))))
    assert rig.clock.now() - before == pytest.approx(0.6)


async def test_a_caller_who_goes_away_leaves_the_renewal_running(rig):
    await expired(rig)
    caller = asyncio.ensure_future(rig.broker.renew("alice"))
    await rig.clock.advance(0.1)
    caller.cancel()
    await rig.clock.advance(1)
    assert rig.are_good(rig.stored())


async def test_an_impatient_caller_gets_what_is_known_and_the_renewal_goes_on(rig):
    await expired(rig)
    state = await rig.renew(patience=0.1)
    assert not rig.are_good(state)
    await rig.clock.advance(1)
    assert rig.are_good(rig.stored())
    assert rig.issuer.calls["refresh"] == 1


async def test_nothing_is_remembered_of_a_user_after_a_good_renewal(rig):
    await expired(rig)
    await rig.renew()
    assert len(rig.broker._slots) == 0


# -- logins and logouts in between -----------------------------------------------------------


@pytest.mark.parametrize("when", [0.1, 0.4])
async def test_a_login_stored_during_a_renewal_wins(rig, when):
    """At 0.1 s the refresh is under way, at 0.4 s the exchanges."""
    await expired(rig)
    renewal = asyncio.ensure_future(rig.broker.renew("alice"))
    await rig.clock.advance(when)
    login = await rig.begin()
    rig.store.states["alice"] = login
    await rig.clock.advance(5)
    assert rig.stored() == login
    await renewal
    assert rig.issuer.is_current(rig.stored().refresh_token)
    assert rig.are_good(await rig.renew())


async def test_a_login_begun_before_and_stored_after_a_renewal_wins(rig):
    await expired(rig)
    login = await rig.begin()
    await rig.renew()
    await rig.clock.advance(1)
    renewal = asyncio.ensure_future(rig.broker.renew("alice", force=True))
    await rig.clock.advance(0.1)
    rig.store.states["alice"] = login
    await rig.clock.advance(5)
    assert rig.stored() == login
    assert (await renewal).generation == login.generation
    assert rig.metric("rt_conflicts_total") == 1


async def test_what_a_login_overtook_is_not_revoked(rig):
    """Both may belong to one sign-in at the issuer, and revoking would end the new one."""
    await expired(rig)
    renewal = asyncio.ensure_future(rig.broker.renew("alice"))
    await rig.clock.advance(0.1)
    rig.store.states["alice"] = await rig.begin()
    await rig.clock.advance(5)
    await renewal
    assert rig.issuer.revoked == []


@pytest.mark.parametrize("when", [0.1, 0.4])
async def test_a_logout_during_a_renewal_wins_and_nothing_stays_alive(rig, when):
    await expired(rig)
    renewal = asyncio.ensure_future(rig.broker.renew("alice"))
    await rig.clock.advance(when)
    await rig.clock.run(rig.broker.forget("alice", reason=SIGNED_OUT))
    await rig.clock.advance(5)
    assert (await renewal).needs_login == SIGNED_OUT
    assert rig.stored().needs_login == SIGNED_OUT
    assert rig.stored().refresh_token is None
    assert not any(rig.issuer.is_current(secret) for secret in rig.issuer.secrets)


async def test_a_user_deleted_during_a_renewal_is_an_error_for_the_caller_and_no_other(rig):
    await expired(rig)
    renewal = asyncio.ensure_future(rig.broker.renew("alice"))
    await rig.clock.advance(0.4)
    del rig.store.states["alice"]
    await rig.clock.advance(5)
    with pytest.raises(LookupError):
        await renewal
    assert "alice" not in rig.store.states
    assert not any(rig.issuer.is_current(secret) for secret in rig.issuer.secrets)


# -- refusals --------------------------------------------------------------------------------


async def test_a_refused_refresh_token_that_is_no_longer_the_stored_one_is_not_the_end(rig):
    await expired(rig)
    old = rig.stored()
    login = await rig.begin()
    renewal = asyncio.ensure_future(rig.broker.renew("alice"))
    rig.issuer.fail("refresh", LoginRequiredError("dead", code="refresh-refused"))
    await rig.clock.advance(0.1)
    # The login is stored, and its tokens are as old as the hub's last look.
    rig.store.states["alice"] = login.next(login_token=old.login_token, exchanged={})
    await rig.clock.advance(5)
    state = await renewal
    assert state.needs_login is None
    assert rig.are_good(state)
    assert rig.issuer.calls["refresh"] == 2


async def test_a_refusal_after_a_login_whose_tokens_suffice_needs_no_second_try(rig):
    await expired(rig)
    login = await rig.begin()
    renewal = asyncio.ensure_future(rig.broker.renew("alice"))
    rig.issuer.fail("refresh", LoginRequiredError("dead", code="refresh-refused"))
    await rig.clock.advance(0.1)
    rig.store.states["alice"] = login
    await rig.clock.advance(5)
    assert await renewal == login == rig.stored()
    assert rig.issuer.calls["refresh"] == 1
    assert rig.issuer.revoked == []


async def test_a_refusal_after_a_logout_changes_nothing(rig):
    await expired(rig)
    renewal = asyncio.ensure_future(rig.broker.renew("alice"))
    rig.issuer.fail("refresh", LoginRequiredError("dead", code="refresh-refused"))
    await rig.clock.advance(0.1)
    await rig.clock.run(rig.broker.forget("alice", reason=SIGNED_OUT))
    await rig.clock.advance(5)
    assert (await renewal).needs_login == SIGNED_OUT
    assert rig.stored().failures == {}


async def test_a_second_refusal_is_the_end_and_the_last_tokens_stay(rig):
    before = await rig.login()
    await rig.clock.advance(3300)
    rig.issuer.end_sign_in(before.refresh_token)
    state = await rig.renew()
    assert state.needs_login.code == "refresh-refused"
    assert not state.needs_login.wipe
    assert state.refresh_token is None
    assert state.exchanged == before.exchanged
    assert rig.stored() == state


async def test_a_refusal_of_a_kind_we_do_not_know_is_asked_twice(rig):
    await expired(rig)
    unknown = LoginRequiredError("?", code="refresh-refused-unknown", confirm=True)
    rig.issuer.fail("refresh", unknown)
    assert rig.are_good(await rig.renew())
    await rig.clock.advance(3700)
    rig.issuer.fail("refresh", unknown, unknown)
    assert (await rig.renew()).needs_login.code == "refresh-refused-unknown"


async def test_a_suspended_account_loses_its_files_at_once(rig):
    await expired(rig)
    rig.issuer.fail("refresh", LoginRequiredError("suspended", code="user-suspended"))
    state = await rig.renew()
    assert state.needs_login.wipe
    assert state.exchanged == {}


async def test_who_must_log_in_is_not_asked_about_again(rig):
    before = await rig.login()
    await rig.clock.advance(3700)
    rig.issuer.end_sign_in(before.refresh_token)
    await rig.renew()
    calls = rig.issuer.calls.total()
    for wish in ({}, {"force": True}, {"min_valid_period": 100}):
        assert (await rig.renew(**wish)).needs_login is not None
    assert (await rig.renew_due()).needs_login is not None
    assert rig.issuer.calls.total() == calls


# -- lost replies ----------------------------------------------------------------------------


async def test_after_a_lost_reply_the_refresh_token_is_left_alone_until_it_must_be_used(rig):
    await rig.login()
    await rig.clock.advance(2750)
    rig.issuer.fail("refresh", LOST)
    state = await rig.renew_due()
    assert state.failures[""].code == LOST_REPLY
    assert rig.stored().failures[""].code == LOST_REPLY  # a restart must not forget it
    for _ in range(20):
        await rig.clock.advance(20)
        state = await rig.renew_due()
        assert rig.issuer.calls["refresh"] == 1
    # Three hundred and sixty seconds before the end there is no choice any more.
    await rig.clock.advance(150)
    state = await rig.renew_due()
    assert rig.issuer.calls["refresh"] == 2
    assert state.needs_login.code == "refresh-refused"  # the issuer had spent it


async def test_after_a_lost_reply_the_living_login_token_goes_on_being_exchanged(rig):
    before = await rig.login()
    await rig.clock.advance(2750)
    rig.issuer.fail("refresh", LOST)
    await rig.renew_due()
    rig.issuer._sign_ins[before.refresh_token].alive = True
    await rig.clock.advance(31)
    state = await rig.renew_due()
    assert rig.are_good(state)
    assert state.exchanged["eos"].obtained_at > before.exchanged["eos"].obtained_at
    assert rig.issuer.calls["refresh"] == 1


async def test_a_connection_that_failed_before_sending_is_tried_again_soon(rig):
    await expired(rig)
    rig.issuer.fail("refresh", unavailable("issuer-unreachable"))
    await rig.renew()
    await rig.clock.advance(31)
    assert rig.are_good(await rig.renew())


async def test_a_bug_in_the_client_counts_as_a_lost_reply(rig, caplog):
    await expired(rig)

    async def broken(token):
        raise RuntimeError(token)

    rig.issuer.refresh = broken
    state = await rig.renew()
    assert state.failures[""].code == LOST_REPLY
    assert not any(secret in caplog.text for secret in rig.issuer.secrets)


# -- a database that fails -------------------------------------------------------------------


async def test_a_rotated_refresh_token_that_cannot_be_stored_is_kept_and_stored_later(rig):
    await expired(rig)
    rig.store.broken = True
    state = await rig.renew()
    assert rig.are_good(state)
    assert rig.issuer.is_current(state.refresh_token)
    assert not rig.issuer.is_current(rig.stored().refresh_token)
    assert rig.metric("rt_persist_failures_total") >= 2
    assert await rig.clock.run(rig.broker.state("alice")) == state
    rig.store.broken = False
    await rig.clock.advance(6)
    assert rig.stored() == state


async def test_renewals_go_on_while_the_database_refuses(rig):
    await expired(rig)
    rig.store.broken = True
    for _ in range(3):
        state = await rig.renew()
        assert rig.are_good(state)
        await rig.clock.advance(3700)
    rig.store.broken = False
    await rig.clock.advance(6)
    assert rig.issuer.is_current(rig.stored().refresh_token)


async def test_closing_waits_for_the_database_up_to_half_a_minute(rig):
    await expired(rig)
    rig.store.broken = True
    state = await rig.renew()
    closing = asyncio.ensure_future(rig.broker.aclose())
    await rig.clock.advance(20)
    assert not closing.done()
    rig.store.broken = False
    await rig.clock.advance(6)
    assert closing.done()
    assert rig.stored() == state


async def test_closing_gives_up_after_half_a_minute_and_says_so(rig, caplog):
    await expired(rig)
    rig.store.broken = True
    await rig.renew()
    before = rig.clock.now()
    await rig.clock.run(rig.broker.aclose())
    assert rig.clock.now() - before == pytest.approx(30)
    assert "could not be stored" in caplog.text


async def test_closing_waits_for_a_renewal_in_flight(rig):
    await expired(rig)
    renewal = asyncio.ensure_future(rig.broker.renew("alice"))
    await rig.clock.advance(0.1)
    await rig.clock.run(rig.broker.aclose())
    assert rig.are_good(rig.stored())
    await renewal


async def test_a_login_stored_while_the_database_recovers_is_not_overwritten(rig):
    await expired(rig)
    rig.store.broken = True
    await rig.renew()
    login = await rig.begin()
    rig.store.states["alice"] = login
    rig.store.broken = False
    await rig.clock.advance(60)
    assert rig.stored() == login
    assert await rig.clock.run(rig.broker.state("alice")) == login


async def test_a_logout_is_remembered_while_the_database_refuses_it(rig):
    await expired(rig)
    rig.store.broken = True
    await rig.renew()
    await rig.clock.run(rig.broker.forget("alice", reason=SIGNED_OUT))
    assert (await rig.renew()).needs_login == SIGNED_OUT
    rig.store.broken = False
    await rig.clock.advance(6)
    assert rig.stored().needs_login == SIGNED_OUT


async def test_a_logout_during_a_renewal_wins_even_while_the_database_refuses_both(rig):
    await expired(rig)
    rig.store.broken = True
    await rig.renew()
    await rig.clock.advance(1)
    renewal = asyncio.ensure_future(rig.broker.renew("alice", force=True))
    await rig.clock.advance(0.1)
    await rig.clock.run(rig.broker.forget("alice", reason=SIGNED_OUT))
    await rig.clock.advance(5)
    assert (await renewal).needs_login == SIGNED_OUT
    rig.store.broken = False
    await rig.clock.advance(6)
    assert rig.stored().needs_login == SIGNED_OUT
    assert not any(rig.issuer.is_current(secret) for secret in rig.issuer.secrets)


async def test_an_older_state_that_comes_back_is_replaced_by_its_successor():
    class Forgetful(FlakyStore):
        """Rewrites what it had read, once, as JupyterHub does with two crypt keys."""

        undo = True

        async def save(self, user, state, *, expected=None, wipe=False):
            before = self.states[user]
            await super().save(user, state, expected=expected, wipe=wipe)
            if self.undo:
                self.undo = False
                self.states[user] = before

    rig = Rig(store=Forgetful())
    await expired(rig)
    state = await rig.renew()
    assert rig.stored() == state
    assert rig.issuer.is_current(rig.stored().refresh_token)


async def test_a_store_that_cannot_be_read_is_an_error_unless_the_truth_is_in_memory(rig):
    await expired(rig)
    rig.store.broken = True
    state = await rig.renew()

    async def unreadable(user):
        raise OSError("no database")

    rig.store.load = unreadable
    assert await rig.clock.run(rig.broker.state("alice")) == state
    with pytest.raises(OSError, match="no database"):
        await rig.renew("bob")


async def test_the_memory_store_compares_generations():
    rig = Rig()
    state = await rig.login()
    with pytest.raises(StateMovedError) as moved:
        await rig.store.save("alice", state.next(), expected=state.generation - 1)
    assert moved.value.stored == state

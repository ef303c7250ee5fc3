"""When a person's tokens are renewed, and with which calls. Pure: ``now`` is an argument.

L is a token's lifetime. All times are epoch seconds, all durations seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass

from escape_hub.core.auth_state import AuthState
from escape_hub.core.pacing import CircuitBreaker, TokenBucket, backoff
from escape_hub.core.renewal_policy import RenewalPolicy
from escape_hub.core.tokens import AccessToken

__all__ = [
    "LOST_REPLY",
    "CircuitBreaker",
    "Need",
    "RenewalPolicy",
    "TokenBucket",
    "Work",
    "backoff",
    "deadline",
    "due_at",
    "earliest_due_at",
    "fraction",
    "mandatory_at",
    "may_go_on",
    "may_refresh",
    "next_poll",
    "plan",
]

#: `Failure.code` of a refresh whose reply was lost: the refresh token may be spent.
LOST_REPLY = "refresh-reply-lost"
#: The key of ``barred`` and ``retry_at`` for the look at userinfo.
CHECK = "@userinfo"
#: Seconds between the polls of a session whose renewal is overdue. A call to the issuer may
#: hang for 30 s when it comes back, and the file must be fresh 35 s after.
OVERDUE_POLL = 3.0
#: And of one that lacks only what was refused: that is tried again every few minutes at most.
REFUSED_POLL = 60.0
#: A subject token with less than this left is not worth an exchange.
SUBJECT_MARGIN = 2.0


def fraction(user: str, issued_at: float) -> float:
    """A number in [0, 1) that is always the same for this user and time, to spread the renewals."""
    digest = hashlib.blake2b(f"{user}\0{issued_at!r}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


def mandatory_at(policy: RenewalPolicy, token: AccessToken) -> float:
    """From when on a renewal can no longer wait."""
    life = token.lifetime
    if life < policy.short_lifetime:
        return token.expires_at - policy.short_mandatory * life
    return token.expires_at - max(policy.mandatory_left, policy.mandatory_share * life)


def due_at(policy: RenewalPolicy, token: AccessToken, seed: float) -> float:
    """When the token is renewed by itself; ``seed`` in [0, 1) is `fraction`'s."""
    if token.lifetime < policy.short_lifetime:
        share = policy.short_due
    else:
        share = policy.due_earliest + seed * (policy.due_latest - policy.due_earliest)
    return min(token.obtained_at + share * token.lifetime, mandatory_at(policy, token))


def earliest_due_at(policy: RenewalPolicy, token: AccessToken) -> float:
    """From when on the token is renewed along with another that is due."""
    return due_at(policy, token, 0.0)


def _seed(user: str, state: AuthState) -> float:
    # One seed for all of a person's tokens: they are renewed together.
    return fraction(user, state.login_token.obtained_at if state.login_token else state.login_at)


def deadline(
    policy: RenewalPolicy,
    user: str,
    state: AuthState,
    names: Iterable[str],
    retry_at: Mapping[str, float] | None = None,
) -> float:
    """When this person's next renewal is due; 0 when an audience has no token.

    ``retry_at`` says when what failed may be tried again, by audience (``""``: the
    refresh).
    """
    retry = retry_at or {}
    seed = _seed(user, state)
    times = {CHECK: state.checked_at + policy.check_interval}
    for name in names:
        token = state.exchanged.get(name)
        times[name] = due_at(policy, token, seed) if token else 0.0
    found = [
        _with_retry(state.login_token, max(at, retry.get(n, 0.0)), retry) for n, at in times.items()
    ]
    if state.refresh_token is not None:
        found.append(max(_refresh_due(policy, state, seed), retry.get("", 0.0)))
    return min(found)


def _with_retry(subject: AccessToken | None, at: float, retry: Mapping[str, float]) -> float:
    """``at``, or later where that takes a refresh that may not be tried yet."""
    if subject is not None and subject.is_valid(at, SUBJECT_MARGIN):
        return at
    return max(at, retry.get("", 0.0))


def _refresh_due(policy: RenewalPolicy, state: AuthState, seed: float) -> float:
    """When the login token itself is due, whatever the audiences' tokens say."""
    if (subject := state.login_token) is None:
        return 0.0
    if _reply_was_lost(state):
        return mandatory_at(policy, subject)
    return max(due_at(policy, subject, seed), subject.obtained_at + policy.keepalive)


def _reply_was_lost(state: AuthState) -> bool:
    failure = state.failures.get("")
    return failure is not None and failure.code == LOST_REPLY


@dataclass(frozen=True, slots=True)
class Need:
    """What a caller of the renewal wants.

    ``audiences`` None means all. ``when_due``: renew what is due, not only what is
    mandatory. ``newer_than``: every token obtained before that time is stale.
    """

    min_valid_period: float = 0.0
    audiences: frozenset[str] | None = None
    when_due: bool = False
    newer_than: float | None = None


@dataclass(frozen=True, slots=True)
class Work:
    """The calls of one renewal. ``userinfo`` runs beside the exchanges."""

    refresh: bool = False
    exchange: tuple[str, ...] = ()
    userinfo: bool = False

    @property
    def calls(self) -> int:
        """How many requests that is."""
        return self.refresh + len(self.exchange) + self.userinfo


def _is_stale(
    policy: RenewalPolicy, token: AccessToken | None, need: Need, now: float, seed: float
) -> bool:
    if token is None:
        return True
    if need.newer_than is not None and token.obtained_at < need.newer_than:
        return True
    at = due_at(policy, token, seed) if need.when_due else mandatory_at(policy, token)
    # Who asks for more life than a renewal gives would renew at every call.
    period = min(need.min_valid_period, token.lifetime / 2)
    return now >= at or not token.is_valid(now, period)


def may_refresh(policy: RenewalPolicy, state: AuthState, names: Iterable[str], now: float) -> bool:
    """Whether the refresh token may be presented: after a lost reply only when it must."""
    if state.refresh_token is None:
        return False
    if not _reply_was_lost(state) or state.login_token is None:
        return True
    tokens = [state.login_token, *(state.exchanged.get(n) for n in names)]
    return any(t is not None and now >= mandatory_at(policy, t) for t in tokens)


def plan(
    policy: RenewalPolicy,
    user: str,
    state: AuthState,
    names: Iterable[str],
    need: Need,
    now: float,
    barred: Container[str] = (),
) -> Work:
    """The calls to make now; none when what is there is enough, or nothing can be done.

    ``names`` are all configured audiences; ``barred`` holds those whose last failure
    is too recent to try again (``""`` for the refresh). The living login token is
    exchanged where that is enough; the refresh token is spent when the login token
    is due itself.
    """
    names = tuple(names)
    if state.needs_login is not None:
        return Work()
    seed = _seed(user, state)
    wanted = [n for n in names if need.audiences is None or n in need.audiences]
    stale = [
        n
        for n in wanted
        if n not in barred and _is_stale(policy, state.exchanged.get(n), need, now, seed)
    ]
    subject = state.login_token
    check = CHECK not in barred and now - state.checked_at >= policy.check_interval
    keepalive = need.when_due and now >= _refresh_due(policy, state, seed)
    if not (stale or check or keepalive):
        return Work()
    old = subject is None or now >= earliest_due_at(policy, subject)
    if old and "" not in barred and may_refresh(policy, state, names, now):
        return Work(True, _along(policy, state, names, stale, barred, now), True)
    if subject is None or not subject.is_valid(now, SUBJECT_MARGIN):
        return Work()
    return Work(False, tuple(stale), check)


def _along(
    policy: RenewalPolicy,
    state: AuthState,
    names: Iterable[str],
    stale: Container[str],
    barred: Container[str],
    now: float,
) -> tuple[str, ...]:
    """The audiences exchanged after a refresh: the stale ones, and those that soon would be."""

    def soon(name: str) -> bool:
        token = state.exchanged.get(name)
        return token is None or now >= earliest_due_at(policy, token)

    return tuple(n for n in names if n in stale or (n not in barred and soon(n)))


def next_poll(
    policy: RenewalPolicy,
    user: str,
    state: AuthState,
    names: Iterable[str],
    now: float,
    *,
    sessions: int = 0,
) -> float:
    """Seconds until the session should ask again: soon after the renewal that is due next.

    At most L/30 within [60, 300], so that a wipe arrives within one poll; at least a
    second, and more where ``sessions`` of them would press the hub.
    """
    floor = max(1.0, sessions / policy.polls_per_second)
    if state.needs_login is not None:
        return max(floor, 15.0)
    seed = _seed(user, state)
    wishes = [_poll_for(policy, state, name, seed, now) for name in names]
    return max(floor, min(wishes, default=OVERDUE_POLL))


def _poll_for(policy: RenewalPolicy, state: AuthState, name: str, seed: float, now: float) -> float:
    token = state.exchanged.get(name)
    if token is not None and now < (due := due_at(policy, token, seed)):
        cap = min(300.0, max(60.0, token.lifetime / 30))
        return min(cap, due - now + min(5.0, max(0.5, 0.02 * token.lifetime)))
    failure = state.failures.get(name) or state.failures.get("")
    if failure is not None and failure.kind in ("operator", "user_action"):
        # As often as the broker itself tries again, within bounds.
        life = state.login_token.lifetime if state.login_token else 0.0
        return min(REFUSED_POLL, max(OVERDUE_POLL, life / 12))
    if token is None or not token.is_valid(now):
        return OVERDUE_POLL
    return min(OVERDUE_POLL, max(1.0, 0.05 * token.lifetime))


def may_go_on(policy: RenewalPolicy, state: AuthState, now: float) -> bool:
    """Whether the hub should keep treating the person as signed in.

    Yes while a token lives and for ``outage_grace`` after the last one expired, and for
    as long as the operator's mistake (a rotated client secret) stands in the way, for
    then no login would succeed either; no once the issuer, or this hub, said that a
    login is needed.
    """
    if state.needs_login is not None:
        return False
    failure = state.failures.get("")
    if failure is not None and failure.kind == "operator":
        return now < state.login_at + policy.max_session_age
    tokens = [*state.exchanged.values(), *([state.login_token] if state.login_token else [])]
    latest = max((t.expires_at for t in tokens), default=state.login_at)
    return now < latest + policy.outage_grace

"""The numbers of the renewal, checked once."""

from __future__ import annotations

from dataclasses import dataclass, fields

from escape_hub.errors import SettingsError


@dataclass(frozen=True, slots=True)
class RenewalPolicy:
    """The numbers of the renewal. Seconds, unless the name says otherwise."""

    due_earliest: float = 0.60  # share of L
    due_latest: float = 0.75  # share of L
    mandatory_left: float = 300.0
    mandatory_share: float = 0.10  # of L; the larger of the two counts
    short_lifetime: float = 600.0  # below: the two shares that follow
    short_due: float = 0.50
    short_mandatory: float = 0.25
    failure_cache: float = 5.0
    backoff_first: float = 2.0
    backoff_last: float = 30.0
    retry_after_cap: float = 300.0
    refused_retry: float = 300.0  # after a refusal that is the operator's to mend
    user_action_retry: float = 60.0
    breaker_failures: int = 5
    probe_interval: float = 15.0
    rate: float = 5.0  # calls a second
    burst: float = 20.0  # calls
    in_flight: int = 32  # calls
    patience: float = 10.0  # how long a request waits for a renewal
    login_patience: float = 8.0  # how long a login waits for the exchanges
    check_interval: float = 12 * 3600.0
    max_session_age: float = 7 * 86400.0
    keepalive: float = 1200.0  # issuers end an idle sign-in after 30 min, Keycloak does
    outage_grace: float = 4 * 3600.0
    shutdown_hold: float = 30.0
    polls_per_second: float = 20.0  # of all sessions together; a busy hub serves some 25

    def __post_init__(self) -> None:
        for one in fields(self):
            if getattr(self, one.name) <= 0:
                raise SettingsError(f"the renewal setting {one.name!r} must be greater than 0")
        if not self.due_earliest <= self.due_latest < 1 - self.mandatory_share:
            raise SettingsError("due_earliest <= due_latest < 1 - mandatory_share must hold")
        if not self.short_due < 1 - self.short_mandatory:
            raise SettingsError("short_due < 1 - short_mandatory must hold")

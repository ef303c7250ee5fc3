"""What may become a token file: the right audience, not expired, never older than what is there.

A token is judged by its payload alone, without its signature: the hub got it from
the issuer, and the services verify it. The checks catch mistakes, not forgeries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import Enum
from typing import Any

from escape_hub.core.audiences import Audience
from escape_hub.core.compact import peek_claims
from escape_hub.core.credentials import token_text
from escape_hub.errors import AudienceMismatchError, ExpiredTokenError, MalformedTokenError
from escape_hub.session.token_files import TokenDirectory

#: Seconds by which the clocks of issuer and hub may differ.
LEEWAY = 60.0


class Outcome(Enum):
    """What `publish` did with a good token."""

    WRITTEN = "written"
    UNCHANGED = "unchanged"
    KEPT_LATER = "kept a file that lives longer"

    @property
    def keeps_old(self) -> bool:
        """Whether the file holds another token than the one offered."""
        return self is Outcome.KEPT_LATER


def jwt_expiry(claims: Mapping[str, Any], label: str) -> float | None:
    """``exp`` in epoch seconds, None when absent (RFC 7519 section 4.1.4)."""
    value = claims.get("exp")
    if value is None:
        return None
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            expiry = float(value)
        except OverflowError:
            expiry = math.inf
        if math.isfinite(expiry):
            return expiry
    raise MalformedTokenError(f"the token for {label!r} has an expiry that is no time")


def check_token(audience: Audience, token: str, *, hub_now: float) -> float | None:
    """Raise a `TokenError` unless ``token`` is fit for ``audience``; its own expiry if it has one.

    ``hub_now`` is the hub's clock: this machine's may have jumped.
    """
    claims = peek_claims(token)
    if claims is None:
        return None
    found = claims.get("aud")
    audiences = [found] if isinstance(found, str) else found if isinstance(found, list) else []
    if audience.audience not in audiences:
        raise AudienceMismatchError(
            f"the token for {audience.label!r} is not for audience {audience.audience!r}; "
            "the old file is kept"
        )
    expiry = jwt_expiry(claims, audience.label)
    if expiry is not None and expiry <= hub_now - LEEWAY:
        raise ExpiredTokenError(
            f"the token for {audience.label!r} came expired; the old file is kept"
        )
    return expiry


def publish(
    directory: TokenDirectory,
    audience: Audience,
    token: str,
    expires_at: float,
    *,
    hub_now: float,
    known_expiry: float | None,
) -> Outcome:
    """Write the audience's token file unless a better one is there.

    ``expires_at`` is the hub's figure in epoch seconds, ``known_expiry`` the same of
    the file that is there, None when unknown. An unchanged token is not written
    again: eosxd takes every new mtime for a new identity and connection.
    Raises a `TokenError` or `CredentialFileError`; the old file then stays.
    """
    text = token_text(audience, token)
    own_expiry = check_token(audience, token, hub_now=hub_now)
    new = own_expiry if own_expiry is not None else expires_at
    current = directory.read(audience.file)
    if current is not None:
        if current.text == text:
            if current.private:
                return Outcome.UNCHANGED
        elif (old := _expiry_of_file(audience, current.text, known_expiry)) is not None:
            if old > new:
                if not current.private:
                    directory.write(audience.file, current.text)
                return Outcome.KEPT_LATER
    directory.write(audience.file, text)
    return Outcome.WRITTEN


def _expiry_of_file(audience: Audience, text: str, known_expiry: float | None) -> float | None:
    """When the token in the file expires; None when it is not one for this audience."""
    token = text
    if audience.format == "eos":
        token = text.removeprefix("oauth2:").partition(":")[0]
    try:
        if token_text(audience, token) != text:
            return None
        claims = peek_claims(token)
        if claims is None:
            return known_expiry
        check_token(audience, token, hub_now=-math.inf)
        expiry = jwt_expiry(claims, audience.label)
        return known_expiry if expiry is None else expiry
    except (AudienceMismatchError, MalformedTokenError):
        return None

"""From a code to a person: redeem it, check what is signed, ask userinfo, find the name."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from escape_hub.core.exchange import TokenReply
from escape_hub.core.oidc import personal_claims
from escape_hub.errors import InvalidTokenError, IssuerMisconfiguredError, NotAllowedError
from escape_hub.hub.issuer import Issuer
from escape_hub.hub.login import LoginReply


@dataclass(frozen=True, slots=True)
class Identity:
    """A person whom the issuer vouched for. ``sid`` is the issuer's session, if it says."""

    issuer: str
    subject: str
    reply: TokenReply
    claims: Mapping[str, Any] = field(repr=False)
    sid: str | None = None


async def identify(issuer: Issuer, login: LoginReply) -> Identity:
    """Redeem the code and check everything that comes back.

    userinfo wins over the id_token where both have a claim: it is what a renewal will
    ask again. OpenID Connect Core sections 3.1.3.7 and 5.3.2.
    """
    reply = await issuer.redeem_code(login.code, login.redirect_uri, login.flight.verifier)
    if reply.id_token is None:
        raise InvalidTokenError("the issuer sent no id_token", code="id-token-missing")
    signed = await issuer.verify_id_token(reply.id_token, nonce=login.flight.nonce)
    told = await issuer.userinfo(reply.access_token.value, subject=signed["sub"])
    claims = personal_claims(signed) | told
    sid = signed.get("sid")
    return Identity(
        signed["iss"], signed["sub"], reply, claims, sid if isinstance(sid, str) else None
    )


def hub_username(authenticator: Any, claims: Mapping[str, Any]) -> str:
    """The hub user name that the claims give, normalised as upstream does.

    `IssuerMisconfiguredError` when the claim is not there (an operator's matter),
    `NotAllowedError` when the name cannot be a user name here.
    """
    claim = authenticator.username_claim
    try:
        found = claim(dict(claims)) if callable(claim) else claims.get(claim)
    except Exception as error:
        raise IssuerMisconfiguredError(
            f"username_claim, a callable, failed with {type(error).__name__}",
            code="username-claim",
        ) from None
    if not isinstance(found, str) or not found:
        shown = "username_claim" if callable(claim) else repr(claim)
        raise IssuerMisconfiguredError(
            f"no user name: the claim {shown} is missing or no text; the issuer sent "
            f"{sorted(claims)}. Check username_claim and scope",
            code="username-missing",
        )
    name = str(authenticator.normalize_username(found))
    if not _is_harmless(name) or not authenticator.validate_username(name):
        raise NotAllowedError(
            f"The account name {name[:64]!r} cannot be used here. Ask {authenticator.contact}.",
            code="username-invalid",
        )
    return name


def _is_harmless(name: str) -> bool:
    """Names become parts of paths and addresses: no dots alone, nothing that does not show."""
    if len(name) > 255 or set(name) <= {"."} or set(name.replace("%2e", ".")) <= {"."}:
        return False
    return not any(c in "/\\" or unicodedata.category(c).startswith("C") for c in name)

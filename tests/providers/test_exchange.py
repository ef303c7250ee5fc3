"""Token exchange (RFC 8693) at services that others wrote, and at one that has none."""

from __future__ import annotations

from dataclasses import replace

import jwt
import pytest

from escape_hub.core.audiences import Audience
from escape_hub.core.exchange import GRANT_EXCHANGE
from escape_hub.errors import IssuerMisconfiguredError, IssuerUnavailableError
from tests.providers.sign_in import Note, SignIn, Stage

AUDIENCES = ("eos-eulake", "rucio")


@pytest.mark.parametrize("name", AUDIENCES)
async def test_exchange_for_an_audience(stage: Stage, name: str, record_property: Note) -> None:
    """Exchange: the access token becomes one for each audience, and for that alone."""
    capabilities = stage.provider.capabilities
    sign_in = await stage.sign_in()
    if capabilities.exchange == "no":
        await no_exchange(stage, sign_in, record_property)
        return
    # Keycloak's scope alone would do; with a wide one it is the audience that narrows.
    scopes = " ".join(capabilities.exchange_scopes.values()).split()
    wide = replace(stage.audience(name), scope=" ".join(dict.fromkeys(scopes)))
    token = await stage.issuer.exchange(sign_in.access_token, wide)
    claims = jwt.decode(token.value, options={"verify_signature": False})
    assert claims["aud"] in (name, [name])
    assert token.value != sign_in.access_token and token.lifetime > 60
    assert await stage.lives(token.value) == capabilities.userinfo_takes_exchanged
    note_own_grant(stage, record_property)


def note_own_grant(stage: Stage, record_property: Note) -> None:
    """Where the exchange is the test's own, a pass says nothing of the provider."""
    if stage.provider.capabilities.exchange == "grant of our own":
        record_property("note", "grant of our own")


async def no_exchange(stage: Stage, sign_in: SignIn, record_property: Note) -> None:
    """A provider without exchange: the operator hears of it, the sign-in lives on."""
    with pytest.raises(IssuerMisconfiguredError) as refusal:
        await stage.issuer.exchange(sign_in.access_token, stage.audience("rucio"))
    assert refusal.value.code == "exchange-unsupported"
    assert await stage.lives(sign_in.access_token)
    document = await stage.published()
    assert GRANT_EXCHANGE not in document.get("grant_types_supported", [])
    record_property("not offered", "refused, and the operator is told")


async def test_exchange_for_an_unknown_audience(stage: Stage, record_property: Note) -> None:
    """Exchange: an audience the provider does not know is the operator's, nobody is logged out."""
    sign_in = await stage.sign_in()
    if stage.provider.capabilities.exchange == "no":
        await no_exchange(stage, sign_in, record_property)
        return
    unknown = Audience("nobody", "nobody", "openid", "nobody.token")
    with pytest.raises(IssuerMisconfiguredError) as refusal:
        await stage.issuer.exchange(sign_in.access_token, unknown)
    assert refusal.value.code == "exchange-audience"
    note_own_grant(stage, record_property)
    assert (await stage.issuer.refresh(sign_in.refresh_token)).refresh_token


async def test_exchange_of_a_revoked_access_token(stage: Stage, record_property: Note) -> None:
    """Exchange: a subject token that is over asks for a refresh first, it logs nobody out."""
    sign_in = await stage.sign_in()
    if stage.provider.capabilities.exchange == "no":
        await no_exchange(stage, sign_in, record_property)
        return
    stage.provider.revoke_user_session("alice")
    with pytest.raises(IssuerUnavailableError) as refusal:
        await stage.issuer.exchange(
            sign_in.access_token, stage.audience("rucio"), subject_fresh=False
        )
    assert refusal.value.code == "exchange-subject-refused"
    note_own_grant(stage, record_property)

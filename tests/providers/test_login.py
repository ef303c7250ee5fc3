"""Discovery and login at services that others wrote, and what their operators change.

Every case of this folder runs against every provider. Where one differs, `Capabilities`
says how, and the case asserts the difference: nothing is skipped.
"""

from __future__ import annotations

import pytest

from escape_hub.core.keys import read_header
from escape_hub.errors import InvalidTokenError, IssuerMisconfiguredError
from tests.providers.sign_in import Note, Stage


def key_id(token: str) -> str | None:
    return read_header(token, kind="id-token", types={"jwt"}, algorithms=("RS256",)).kid


async def test_metadata_is_accepted(stage: Stage) -> None:
    """Discovery: the metadata is accepted, and the issuer is exactly the configured one."""
    found = await stage.issuer.metadata()
    capabilities = stage.provider.capabilities
    assert found.issuer == stage.provider.issuer
    assert found.issuer.endswith("/") == capabilities.issuer_ends_in_slash
    assert found.iss_in_callback == capabilities.callback_iss
    assert found.revocation_endpoint and found.userinfo_endpoint and found.end_session_endpoint


async def test_issuer_that_differs_by_a_slash_is_refused(stage: Stage) -> None:
    """Discovery: an issuer that differs by the trailing slash alone is refused, with the mend."""
    issuer = stage.provider.issuer
    other = issuer.rstrip("/") if issuer.endswith("/") else f"{issuer}/"
    wrong = stage.issuer_with(issuer=other)
    with pytest.raises(IssuerMisconfiguredError, match="trailing slash") as refusal:
        await wrong.metadata()
    assert refusal.value.code == "discovery-issuer-slash"
    await wrong.aclose()


async def test_login_through_the_providers_own_pages(stage: Stage) -> None:
    """Login: code flow with PKCE S256 through the provider's own pages; a good id_token."""
    sign_in = await stage.sign_in("alice")
    claims = await stage.claims(sign_in)
    assert claims["iss"] == stage.provider.issuer
    assert claims["nonce"] == sign_in.nonce
    assert ("iss" in sign_in.callback) == stage.provider.capabilities.callback_iss


async def test_id_token_of_another_login_is_refused(stage: Stage) -> None:
    """id_token: one with another login's nonce, or for another client, is refused."""
    sign_in = await stage.sign_in()
    with pytest.raises(InvalidTokenError) as refusal:
        await stage.issuer.verify_id_token(sign_in.id_token, nonce="of another login")
    assert refusal.value.code == "id-token-nonce"
    with pytest.raises(InvalidTokenError) as refusal:
        await stage.issuer.verify_id_token(
            sign_in.id_token, nonce=sign_in.nonce, audience="another"
        )
    assert refusal.value.code == "id-token-aud"


async def test_userinfo_is_about_the_same_person(stage: Stage, record_property: Note) -> None:
    """userinfo: the person of the id_token, with a name and groups; not the other person."""
    alice, bob = await stage.sign_in("alice"), await stage.sign_in("bob")
    subject = (await stage.claims(alice))["sub"]
    found = await stage.issuer.userinfo(alice.access_token, subject=subject)
    assert found["preferred_username"] == "alice"
    with pytest.raises(InvalidTokenError) as refusal:
        await stage.issuer.userinfo(bob.access_token, subject=subject)
    assert refusal.value.code == "userinfo-sub"
    if stage.provider.capabilities.groups:
        assert {group.removeprefix("/") for group in found["groups"]} == {"escape", "escape/cms"}
    else:
        assert "groups" not in found
        record_property("note", "has no groups")


async def test_access_token_lifetime_is_what_the_provider_says(stage: Stage) -> None:
    """Lifetime: a shorter life set at the provider is that of the next token."""
    try:
        stage.provider.set_access_token_lifetime(120)
        sign_in = await stage.sign_in()
        assert 100 < sign_in.reply.access_token.lifetime <= 120
    finally:
        stage.provider.set_access_token_lifetime(3600)


async def test_signing_keys_change(stage: Stage) -> None:
    """Key rotation: the next id_token has a new key, the same client accepts it at once."""
    sign_in = await stage.sign_in()
    claims = await stage.claims(sign_in)
    stage.provider.rotate_keys()
    reply = await stage.issuer.refresh(sign_in.refresh_token)
    assert reply.id_token is not None
    assert key_id(reply.id_token) != key_id(sign_in.id_token)
    await stage.issuer.verify_id_token(
        reply.id_token, nonce=None, same_as=(claims["iss"], claims["sub"])
    )
    await stage.claims(await stage.sign_in())


async def test_wrong_client_secret(stage: Stage) -> None:
    """Wrong client secret: the operator hears of it, and the sign-in is not over."""
    sign_in = await stage.sign_in()
    wrong = stage.issuer_with(client_secret="not the secret")
    with pytest.raises(IssuerMisconfiguredError) as refusal:
        await wrong.refresh(sign_in.refresh_token)
    assert refusal.value.oauth_error == stage.provider.capabilities.wrong_secret
    with pytest.raises(IssuerMisconfiguredError):
        await wrong.exchange(sign_in.access_token, stage.audience("rucio"))
    await wrong.aclose()
    assert (await stage.issuer.refresh(sign_in.refresh_token)).refresh_token

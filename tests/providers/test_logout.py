"""How a sign-in ends at services that others wrote: revoked, locked, logged out."""

from __future__ import annotations

import pytest

from escape_hub.errors import InvalidTokenError
from tests.providers.sign_in import Note, Stage


async def test_revocation_ends_the_sign_in(stage: Stage) -> None:
    """Revocation (RFC 7009): a revoked refresh token is dead, its access token too."""
    sign_in = await stage.sign_in()
    assert await stage.issuer.revoke(sign_in.refresh_token)
    await stage.assert_dead(sign_in.refresh_token)
    assert not await stage.lives(sign_in.access_token)


async def test_session_ended_by_the_administrator(stage: Stage) -> None:
    """Session ended at the provider: the next refresh says that a login is needed."""
    sign_in = await stage.sign_in()
    stage.provider.revoke_user_session("alice")
    await stage.assert_dead(sign_in.refresh_token)


async def test_disabled_account(stage: Stage, record_property: Note) -> None:
    """Disabled account: a login is needed; once enabled the same refresh token works again."""
    sign_in = await stage.sign_in()
    if not stage.provider.capabilities.disable_user:
        with pytest.raises(NotImplementedError):
            stage.provider.disable_user("alice")
        record_property("not offered", "accounts are kept elsewhere")
        return
    try:
        stage.provider.disable_user("alice")
        refusal = await stage.assert_dead(sign_in.refresh_token)
        assert refusal.code == stage.provider.capabilities.disabled_user_code
    finally:
        stage.provider.enable_user("alice")
    assert (await stage.issuer.refresh(sign_in.refresh_token)).refresh_token


async def test_rp_initiated_logout(stage: Stage, record_property: Note) -> None:
    """RP-initiated logout: the browser comes back with our state and must sign in again."""
    capabilities = stage.provider.capabilities
    target = stage.provider.addresses.post_logout_redirect_uri
    sign_in = await stage.sign_in()
    url = await stage.issuer.end_session_url(sign_in.id_token, target, "our state")
    assert url is not None
    first = sign_in.browser.client.get(url)
    asks = not first.is_redirect
    assert asks == (capabilities.rp_logout == "confirmation page")
    assert sign_in.browser.logout(url, target)["state"] == "our state"
    if capabilities.rp_logout_ends_session:
        await stage.assert_dead(sign_in.refresh_token)
    else:
        # Offline access outlives a logout there: revoking is up to us.
        assert (await stage.issuer.refresh(sign_in.refresh_token)).refresh_token
        record_property("note", "the refresh token outlives it")
    if asks:
        record_property("note", "asks the person to confirm")


async def test_offline_access_outlives_a_logout(stage: Stage) -> None:
    """Offline access: outlives a logout at the provider; our revocation ends it."""
    target = stage.provider.addresses.post_logout_redirect_uri
    sign_in = await stage.sign_in(scope="openid profile offline_access")
    url = await stage.issuer.end_session_url(sign_in.id_token, target, "state")
    assert url is not None
    sign_in.browser.logout(url, target)
    reply = await stage.issuer.refresh(sign_in.refresh_token)
    assert reply.refresh_token is not None
    await stage.issuer.revoke(reply.refresh_token)
    await stage.assert_dead(reply.refresh_token)


async def test_back_channel_logout(stage: Stage, record_property: Note) -> None:
    """Back-channel logout: the logout_token as the provider sends it is accepted."""
    target = stage.provider.addresses.post_logout_redirect_uri
    sign_in = await stage.sign_in()
    claims = await stage.claims(sign_in)
    url = await stage.issuer.end_session_url(sign_in.id_token, target, "state")
    assert url is not None
    sign_in.browser.logout(url, target)
    document = await stage.published()
    offered = document.get("backchannel_logout_supported", False)
    assert offered == stage.provider.capabilities.backchannel_logout
    if not offered:
        assert stage.receiver.empty()
        record_property("not offered", "none arrives")
        return
    token = stage.receiver.take()
    found = await stage.issuer.verify_logout_token(token)
    assert found["sub"] == claims["sub"] and found["sid"] == claims["sid"]
    with pytest.raises(InvalidTokenError):
        await stage.issuer.verify_id_token(token, nonce=None)

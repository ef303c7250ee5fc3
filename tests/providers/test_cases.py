"""What the hub needs of an identity service, against services that others wrote.

Every case runs against every provider. Where one differs, `Capabilities` says how, and
the case asserts the difference: nothing is skipped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import urlsplit

import httpx
import jwt
import pytest

from escape_hub.clock import SystemClock
from escape_hub.core.exchange import GRANT_EXCHANGE, TokenReply
from escape_hub.core.keys import read_header
from escape_hub.errors import (
    InvalidTokenError,
    IssuerError,
    IssuerMisconfiguredError,
    IssuerUnavailableError,
    LoginRequiredError,
)
from escape_hub.hub.issuer import Issuer
from escape_hub.settings import IssuerSettings
from tests.providers.sign_in import SignIn, Stage

AUDIENCES = ("eos-eulake", "rucio")
Note = Callable[[str, object], None]


def key_id(token: str) -> str | None:
    return read_header(token, kind="id-token", types={"jwt"}, algorithms=("RS256",)).kid


def issuer_with(stage: Stage, **changes: str) -> Issuer:
    base = stage.issuer.settings
    settings = IssuerSettings(
        **{
            "issuer": base.issuer,
            "client_id": base.client_id,
            "client_secret": base.client_secret,
            **changes,
        }
    )
    return Issuer(settings, clock=SystemClock())


async def dead(stage: Stage, refresh_token: str) -> LoginRequiredError:
    """The refresh token is refused, in the way the provider is known for."""
    with pytest.raises(LoginRequiredError) as refusal:
        await stage.issuer.refresh(refresh_token)
    assert refusal.value.oauth_error == stage.provider.capabilities.dead_refresh_token
    assert refresh_token not in str(refusal.value)
    return refusal.value


async def lives(stage: Stage, access_token: str) -> bool:
    """Whether userinfo takes the access token."""
    try:
        await stage.issuer.userinfo(access_token)
    except IssuerError as refusal:
        assert refusal.code == "userinfo-refused"
        return False
    return True


# --- discovery and login ---------------------------------------------------------------


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
    wrong = issuer_with(stage, issuer=other)
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


# --- refresh ---------------------------------------------------------------------------


async def test_refresh_rotates(stage: Stage, record_property: Note) -> None:
    """Refresh: gives new tokens of the same person, and the refresh token is a new one."""
    capabilities = stage.provider.capabilities
    sign_in = await stage.sign_in()
    claims = await stage.claims(sign_in)
    reply = await stage.issuer.refresh(sign_in.refresh_token)
    assert reply.refresh_token not in (None, sign_in.refresh_token)
    assert reply.access_token.value != sign_in.access_token
    assert reply.id_token is not None
    again = await stage.issuer.verify_id_token(
        reply.id_token, nonce=None, same_as=(claims["iss"], claims["sub"])
    )
    assert ("nonce" in again) == (capabilities.refreshed_id_token == "with nonce")
    assert await lives(stage, reply.access_token.value)
    assert await lives(stage, sign_in.access_token) == capabilities.access_token_outlives_refresh
    if not capabilities.access_token_outlives_refresh:
        record_property("note", "the old access token ends with the refresh")


async def test_refreshed_id_token_of_another_person_is_refused(stage: Stage) -> None:
    """Refresh: an id_token of somebody else is refused, good as it is."""
    alice, bob = await stage.sign_in("alice"), await stage.sign_in("bob")
    claims = await stage.claims(alice)
    reply = await stage.issuer.refresh(bob.refresh_token)
    assert reply.id_token is not None
    with pytest.raises(InvalidTokenError) as refusal:
        await stage.issuer.verify_id_token(
            reply.id_token, nonce=None, same_as=(claims["iss"], claims["sub"])
        )
    assert refusal.value.code == "id-token-identity"


async def test_spent_refresh_token_presented_again(stage: Stage, record_property: Note) -> None:
    """Refresh: a spent refresh token is refused; what that does to the successor is known."""
    sign_in = await stage.sign_in()
    winner = await stage.issuer.refresh(sign_in.refresh_token)
    await dead(stage, sign_in.refresh_token)
    await assert_fate(stage, winner, record_property)


async def assert_fate(stage: Stage, winner: TokenReply, record_property: Note) -> None:
    """After a replay: the successor is dead or alive, as documented."""
    assert winner.refresh_token is not None
    alive = await lives(stage, winner.access_token.value)
    if stage.provider.capabilities.replay == "kills the session":
        await dead(stage, winner.refresh_token)
        assert not alive
        record_property("note", "a replay ends the whole sign-in")
    else:
        await stage.issuer.refresh(winner.refresh_token)
        assert alive
        record_property("note", "the successor lives on")


async def test_two_refreshes_at_once(stage: Stage, record_property: Note) -> None:
    """Refresh race: of two at once no more than one wins, and the loser is told to log in."""
    sign_in = await stage.sign_in()
    both = await asyncio.gather(
        *(stage.issuer.refresh(sign_in.refresh_token) for _ in range(2)), return_exceptions=True
    )
    winners = [one for one in both if isinstance(one, TokenReply)]
    losers = [one for one in both if isinstance(one, LoginRequiredError)]
    assert len(winners) + len(losers) == 2
    assert len(losers) == 1
    await assert_fate(stage, winners[0], record_property)


async def test_reply_to_a_refresh_is_lost(stage: Stage, record_property: Note) -> None:
    """Lost reply: it counts as maybe processed; the token was spent, presenting it is the end."""
    capabilities = stage.provider.capabilities
    sign_in = await stage.sign_in()
    stage.line.losing = "replies"
    with pytest.raises(IssuerUnavailableError) as lost:
        await stage.issuer.refresh(sign_in.refresh_token)
    stage.line.losing = "nothing"
    assert lost.value.maybe_processed and stage.line.lost == 1
    # What the broker does meanwhile: it goes on with the access token in hand.
    assert await lives(stage, sign_in.access_token) == capabilities.access_token_outlives_refresh
    if capabilities.exchange != "no" and capabilities.access_token_outlives_refresh:
        await stage.issuer.exchange(sign_in.access_token, stage.audience("rucio"))
    await dead(stage, sign_in.refresh_token)
    assert not await lives(stage, sign_in.access_token)
    record_property("note", "the old refresh token is spent")


async def test_refresh_is_lost_on_its_way(stage: Stage) -> None:
    """Lost request: it counts as maybe processed as well, and the refresh token is still good."""
    sign_in = await stage.sign_in()
    stage.line.losing = "requests"
    with pytest.raises(IssuerUnavailableError) as lost:
        await stage.issuer.refresh(sign_in.refresh_token)
    stage.line.losing = "nothing"
    assert lost.value.maybe_processed and stage.line.lost == 1
    assert (await stage.issuer.refresh(sign_in.refresh_token)).refresh_token


# --- exchange --------------------------------------------------------------------------


@pytest.mark.parametrize("name", AUDIENCES)
async def test_exchange_for_an_audience(stage: Stage, name: str, record_property: Note) -> None:
    """Exchange: the access token becomes one for the audience alone, where there is exchange."""
    capabilities = stage.provider.capabilities
    sign_in = await stage.sign_in()
    if capabilities.exchange == "no":
        await no_exchange(stage, sign_in, record_property)
        return
    token = await stage.issuer.exchange(sign_in.access_token, stage.audience(name))
    claims = jwt.decode(token.value, options={"verify_signature": False})
    assert claims["aud"] in (name, [name])
    assert token.value != sign_in.access_token and token.lifetime > 60
    assert await lives(stage, token.value) == capabilities.userinfo_takes_exchanged
    if capabilities.exchange == "grant of our own":
        record_property("note", "grant of our own")


async def no_exchange(stage: Stage, sign_in: SignIn, record_property: Note) -> None:
    """A provider without exchange: the operator hears of it, the sign-in lives on."""
    with pytest.raises(IssuerMisconfiguredError) as refusal:
        await stage.issuer.exchange(sign_in.access_token, stage.audience("rucio"))
    assert refusal.value.code == "exchange-unsupported"
    assert await lives(stage, sign_in.access_token)
    document = (await fetch_metadata(stage)).json()
    assert GRANT_EXCHANGE not in document.get("grant_types_supported", [])
    record_property("note", "no exchange: refused, the operator is told")


async def fetch_metadata(stage: Stage) -> httpx.Response:
    url = stage.provider.issuer.rstrip("/") + "/.well-known/openid-configuration"
    async with httpx.AsyncClient(trust_env=False) as client:
        return await client.get(url)


async def test_exchange_for_an_unknown_audience(stage: Stage, record_property: Note) -> None:
    """Exchange: an audience the provider does not know is the operator's, nobody is logged out."""
    sign_in = await stage.sign_in()
    if stage.provider.capabilities.exchange == "no":
        await no_exchange(stage, sign_in, record_property)
        return
    unknown = stage.audience("rucio").__class__("nobody", "nobody", "openid", "nobody.token")
    with pytest.raises(IssuerMisconfiguredError) as refusal:
        await stage.issuer.exchange(sign_in.access_token, unknown)
    assert refusal.value.code == "exchange-audience"
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


# --- the end of a sign-in --------------------------------------------------------------


async def test_revocation_ends_the_sign_in(stage: Stage) -> None:
    """Revocation (RFC 7009): a revoked refresh token is dead, its access token too."""
    sign_in = await stage.sign_in()
    assert await stage.issuer.revoke(sign_in.refresh_token)
    await dead(stage, sign_in.refresh_token)
    assert not await lives(stage, sign_in.access_token)


async def test_session_ended_by_the_administrator(stage: Stage) -> None:
    """Session ended at the provider: the next refresh says that a login is needed."""
    sign_in = await stage.sign_in()
    stage.provider.revoke_user_session("alice")
    await dead(stage, sign_in.refresh_token)


async def test_disabled_account(stage: Stage, record_property: Note) -> None:
    """Disabled account: a login is needed; once enabled the same refresh token works again."""
    sign_in = await stage.sign_in()
    if not stage.provider.capabilities.disable_user:
        with pytest.raises(NotImplementedError):
            stage.provider.disable_user("alice")
        record_property("note", "cannot be done at run time there")
        return
    try:
        stage.provider.disable_user("alice")
        refusal = await dead(stage, sign_in.refresh_token)
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
    assert url is not None and urlsplit(url).query
    first = sign_in.browser.client.get(url)
    asks = not first.is_redirect
    assert asks == (capabilities.rp_logout == "confirmation page")
    assert sign_in.browser.logout(url, target)["state"] == "our state"
    if capabilities.rp_logout_ends_session:
        await dead(stage, sign_in.refresh_token)
    else:
        # Offline access outlives a logout there: revoking is up to us.
        assert (await stage.issuer.refresh(sign_in.refresh_token)).refresh_token
        record_property("note", "the refresh token outlives it")
    if asks:
        record_property("note", "asks the person to confirm")


async def test_back_channel_logout(stage: Stage, record_property: Note) -> None:
    """Back-channel logout: the logout_token as the provider sends it is accepted."""
    target = stage.provider.addresses.post_logout_redirect_uri
    sign_in = await stage.sign_in()
    claims = await stage.claims(sign_in)
    url = await stage.issuer.end_session_url(sign_in.id_token, target, "state")
    assert url is not None
    sign_in.browser.logout(url, target)
    document = (await fetch_metadata(stage)).json()
    offered = document.get("backchannel_logout_supported", False)
    assert offered == stage.provider.capabilities.backchannel_logout
    if not offered:
        assert stage.receiver.empty()
        record_property("note", "not offered")
        return
    token = stage.receiver.take()
    found = await stage.issuer.verify_logout_token(token)
    assert found["sub"] == claims["sub"] and found["sid"] == claims["sid"]
    with pytest.raises(InvalidTokenError):
        await stage.issuer.verify_id_token(token, nonce=None)


# --- what operators change -------------------------------------------------------------


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
    wrong = issuer_with(stage, client_secret="not the secret")
    with pytest.raises(IssuerMisconfiguredError) as refusal:
        await wrong.refresh(sign_in.refresh_token)
    assert refusal.value.oauth_error == stage.provider.capabilities.wrong_secret
    with pytest.raises(IssuerMisconfiguredError):
        await wrong.exchange(sign_in.access_token, stage.audience("rucio"))
    await wrong.aclose()
    assert (await stage.issuer.refresh(sign_in.refresh_token)).refresh_token

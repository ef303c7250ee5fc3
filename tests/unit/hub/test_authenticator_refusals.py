"""Who is not signed in, and reads why: an issuer that fails, a bad token, a missing group."""

from __future__ import annotations

import pytest

from tests.unit.hub.browser import Browser, refused
from tests.unit.hub.in_process import HubInTest

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_issuer_that_is_down_is_said_at_the_button(
    fresh_hub: HubInTest, fresh_alice: Browser
) -> None:
    await fresh_hub.iam.faults(discovery={"mode": "503"})
    answer = await fresh_alice.to_issuer()
    assert answer.status_code == 503
    assert answer.headers["Retry-After"]
    await refused(fresh_alice, answer, 503, "ESCAPE IAM does not answer", "running go on")


async def test_an_issuer_that_hangs_does_not_hang_the_button(
    fresh_hub: HubInTest, fresh_alice: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("escape_hub.hub.login.START_TIMEOUT", 0.2)
    await fresh_hub.iam.faults(discovery={"mode": "hang"})
    await refused(fresh_alice, await fresh_alice.to_issuer(), 503, "ESCAPE IAM does not answer")


@pytest.mark.parametrize("endpoint", ["token", "userinfo", "jwk"])
async def test_an_issuer_that_goes_down_on_the_way_is_a_page(
    fresh_hub: HubInTest, fresh_alice: Browser, endpoint: str
) -> None:
    back = await fresh_alice.at_issuer(await fresh_alice.to_issuer())
    await fresh_hub.iam.faults(**{endpoint: {"mode": "503"}})
    await refused(
        fresh_alice, await fresh_alice.client.get(back), 503, "ESCAPE IAM does not answer"
    )


@pytest.mark.parametrize(
    ("mutation", "words"),
    [
        ("iat_future", "clocks disagree"),
        ("expired", "clocks disagree"),
        ("nbf_future", "clocks disagree"),
        ("wrong_nonce", "cannot be trusted"),
        ("missing_nonce", "cannot be trusted"),
        ("bad_signature", "cannot be trusted"),
        ("wrong_aud", "cannot be trusted"),
        ("missing_sub", "cannot be trusted"),
    ],
)
async def test_a_bad_id_token_signs_nobody_in(
    hub: HubInTest, alice: Browser, mutation: str, words: str
) -> None:
    await hub.iam.faults(hostile={"id_token": mutation})
    await refused(alice, await alice.login(), 403, words)


async def test_userinfo_of_somebody_else_signs_nobody_in(hub: HubInTest, alice: Browser) -> None:
    await hub.iam.faults(hostile={"userinfo_sub": "other"})
    await refused(alice, await alice.login(), 403, "cannot be trusted")


async def test_a_refused_client_is_the_operators_matter_and_says_so(
    hub: HubInTest, alice: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    await hub.iam.faults(invalid_client=True)
    text = await refused(alice, await alice.login(), 503, "out of order", "Reference")
    assert "client_secret" not in text
    assert "check client_id and client_secret" in caplog.text


async def test_who_is_in_no_allowed_group_reads_which_is_missing_and_whom_to_ask(
    hub: HubInTest, alice: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    hub.authenticator.contact = "the ESCAPE helpdesk"
    await hub.iam.faults(users={"alice": {"groups": ["elsewhere"]}})
    text = await refused(alice, await alice.login(), 403, "not allowed in here", "helpdesk")
    assert "group &#39;escape&#39;" in text
    reference = text.split("Reference: <code>")[1].split("</code>")[0]
    assert f"reference {reference}: " in caplog.text
    assert "event=login user=alice audience=- outcome=refused reference=not-allowed" in caplog.text
    assert await hub.state("alice") is None
    assert (await hub.iam.counters())["grants"].get("token-exchange", {}) == {}


async def test_a_blocked_person_is_told_so(hub: HubInTest, alice: Browser) -> None:
    hub.authenticator.blocked_users = {"alice"}
    await refused(alice, await alice.login(), 403, "This account is blocked")


async def test_without_any_rule_nobody_gets_in(hub: HubInTest, alice: Browser) -> None:
    hub.authenticator.allowed_groups = set()
    await refused(alice, await alice.login(), 403, "not among those")


async def test_the_same_name_with_another_subject_is_refused_until_the_user_is_deleted(
    hub: HubInTest, alice: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    await alice.login()
    await hub.iam.faults(users={"alice": {"sub": "somebody-new"}})
    other = Browser(hub)
    await refused(
        other, await other.login(), 403, "belongs to somebody else", "delete the hub user"
    )
    audit = "event=login user=alice audience=- outcome=refused reference="
    assert f"{audit}identity-conflict" in caplog.text
    await hub.authenticator.delete_user(hub.user("alice"))
    assert (await other.login()).headers["Location"].endswith("/hub/spawn")
    await other.client.aclose()

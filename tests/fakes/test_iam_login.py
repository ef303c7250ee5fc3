"""The development IAM's pages and redirects, as a browser meets them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.fakes.iam_peer import CALLBACK, Peer, callback, good, refusal


async def test_a_person_signs_in_and_goes_back_with_code_and_state() -> None:
    async with Peer() as iam:
        back = callback(await iam.sign_in())
        assert back.keys() == {"code", "state"} and back["state"] == "the-state"


async def test_a_wrong_password_shows_the_form_again_and_lets_nobody_in() -> None:
    async with Peer() as iam:
        page = await iam.sign_in("alice", "wrong")
        assert page.status_code == 401 and "do not go together" in page.text
        assert 'value="alice"' in page.text and "wrong" not in page.text
        assert (await iam.authorize()).status_code == 200


async def test_what_was_typed_is_escaped_in_the_page() -> None:
    async with Peer() as iam:
        page = await iam.sign_in('"><script>', "x")
        assert "<script>" not in page.text


async def test_every_page_says_loudly_that_it_is_for_development_only() -> None:
    async with Peer() as iam:
        for page in (await iam.http.get(""), await iam.authorize(), await iam.http.get("nothing")):
            assert "Development only" in page.text
            assert "default-src 'none'" in page.headers["Content-Security-Policy"]


async def test_a_browser_that_is_signed_in_gets_a_code_without_a_page() -> None:
    async with Peer() as iam:
        first = callback(await iam.sign_in())
        second = callback(await iam.authorize(state="another-tab"))
        assert second["state"] == "another-tab" and first["code"] != second["code"]


@pytest.mark.parametrize("changes", [{"prompt": "login"}, {"max_age": "60"}])
async def test_a_fresh_login_can_be_demanded_and_happens_once(changes: dict[str, Any]) -> None:
    async with Peer() as iam:
        await iam.sign_in()
        iam.shift = 61
        assert "Password" in (await iam.authorize(**changes)).text
        assert callback(await iam.sign_in(**changes))["code"]


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"scope": "openid admin"}, "invalid_scope"),
        ({"prompt": "none"}, "login_required"),
    ],
)
async def test_a_bad_request_goes_back_with_an_error_and_the_state(
    changes: dict[str, str | None], error: str
) -> None:
    async with Peer() as iam:
        back = callback(await iam.authorize(**changes))
        assert back["error"] == error and back["state"] == "the-state" and "code" not in back


@pytest.mark.parametrize(
    "changes",
    [
        {"redirect_uri": CALLBACK + "/"},
        {"redirect_uri": CALLBACK + "?x=1"},
        {"redirect_uri": "https://attacker.invalid/"},
        {"redirect_uri": None},
        {"client_id": "nobody"},
    ],
)
async def test_an_address_that_is_not_registered_gets_a_page_and_no_redirect(
    changes: dict[str, str | None],
) -> None:
    async with Peer() as iam:
        page = await iam.authorize(**changes)
        assert page.status_code == 400 and "Location" not in page.headers


async def test_a_consent_is_asked_once_and_remembered() -> None:
    async with Peer(consent=True) as iam:
        page = await iam.sign_in()
        assert "Allow access?" in page.text
        assert callback(await iam.submit(page, decision="allow"))["code"]
        assert callback(await iam.authorize())["code"]
        more = await iam.authorize(scope="openid storage.read:/")
        assert "Allow access?" in more.text


async def test_a_refused_consent_goes_back_as_access_denied() -> None:
    async with Peer(consent=True) as iam:
        back = callback(await iam.submit(await iam.sign_in(), decision="refuse"))
        assert back["error"] == "access_denied" and back["state"] == "the-state"
        assert "Allow access?" in (await iam.authorize()).text


async def test_a_consent_that_another_site_forges_counts_for_nothing() -> None:
    async with Peer(consent=True) as iam:
        await iam.sign_in()
        forged = await iam.http.post("consent", params=iam.query(), data={"decision": "allow"})
        assert "authorize" in forged.headers["Location"]
        assert "Allow access?" in (await iam.authorize()).text


async def test_turning_back_at_the_login_page_is_told_to_the_client() -> None:
    async with Peer() as iam:
        back = callback(await iam.http.get("cancel", params=iam.query()))
        assert back["error"] == "access_denied"


async def test_a_suspended_user_is_told_so_at_the_login_page() -> None:
    async with Peer() as iam:
        await iam.sign_in()
        await iam.faults(suspended=["alice"])
        assert "Password" in (await iam.authorize()).text
        page = await iam.sign_in()
        assert page.status_code == 403 and "suspended" in page.text


async def test_a_user_who_signs_the_policy_goes_on_and_the_refusals_end() -> None:
    async with Peer() as iam:
        tokens = await iam.login()
        await iam.faults(aup_unsigned=["alice"])
        assert refusal(await iam.refresh(tokens["refresh_token"])) == (400, "invalid_grant")
        page = await iam.authorize()
        assert "needs to sign AUP" in page.text
        done = await iam.submit(page)
        assert callback(await iam.http.get(done.headers["Location"]))["code"]
        good(await iam.refresh(tokens["refresh_token"]))


async def test_callbacks_carry_the_issuer_where_rfc_9207_is_on() -> None:
    async with Peer(callback_iss=True) as iam:
        assert callback(await iam.sign_in())["iss"] == iam.url
        assert callback(await iam.authorize(scope="unknown"))["iss"] == iam.url
        metadata = good(await iam.http.get(".well-known/openid-configuration"))
        assert metadata["authorization_response_iss_parameter_supported"] is True
        await iam.faults(hostile={"callback_iss": "other"})
        assert callback(await iam.authorize())["iss"] != iam.url
        await iam.faults(hostile={"callback_iss": "absent"})
        assert "iss" not in callback(await iam.authorize())


async def test_the_login_cookie_is_kept_from_scripts_and_other_sites() -> None:
    async with Peer() as iam:
        done = await iam.submit(await iam.authorize(), username="alice", password="alice")
        cookie = done.headers["Set-Cookie"]
        assert "HttpOnly" in cookie and "SameSite=Lax" in cookie

"""Signing in: what a person sees, what the issuer sees, and what is left behind."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from tornado import web

from tests.unit.hub.browser import Browser, query, refused
from tests.unit.hub.in_process import HubInTest

pytestmark = pytest.mark.asyncio(loop_scope="module")


def flight_cookies(browser: Browser) -> list[Any]:
    return [c for c in browser.client.cookies.jar if c.name.startswith("escape-login-")]


async def test_the_request_to_the_issuer_has_pkce_nonce_and_state(
    hub: HubInTest, alice: Browser
) -> None:
    start = await alice.to_issuer()
    asked = query(start.headers["Location"])
    assert asked["code_challenge_method"] == "S256"
    assert len(asked["state"]) >= 43
    assert len(asked["nonce"]) >= 43
    assert asked["scope"] == "openid profile email offline_access"
    assert asked["redirect_uri"] == f"{hub.url}hub/oauth_callback"


async def test_alice_comes_back_signed_in_with_tokens_for_each_audience(
    hub: HubInTest, alice: Browser
) -> None:
    back = await alice.login()
    assert back.status_code == 303
    assert urlsplit(back.headers["Location"]).path == "/hub/spawn"
    state = await hub.state("alice")
    assert state.subject
    assert state.refresh_token
    assert set(state.exchanged) == {"eos", "rucio"}
    assert {g.name for g in hub.user("alice").groups} == {"escape", "escape/cms"}
    assert not flight_cookies(alice)


async def test_the_person_lands_where_they_wanted_to_go(alice: Browser) -> None:
    back = await alice.login(next_url="/hub/user/alice/lab?reset=1")
    assert back.headers["Location"] == "/hub/user/alice/lab?reset=1"


async def test_two_tabs_both_get_in(hub: HubInTest, alice: Browser) -> None:
    first = await alice.to_issuer("/hub/home")
    second = await alice.to_issuer("/hub/token")
    assert len(flight_cookies(alice)) == 2
    back_second = await alice.at_issuer(second)
    back_first = await alice.at_issuer(first)
    assert (await alice.client.get(back_first)).headers["Location"] == "/hub/home"
    assert (await alice.client.get(back_second)).headers["Location"] == "/hub/token"


async def test_the_cookie_of_a_login_is_for_the_way_back_alone(alice: Browser) -> None:
    start = await alice.to_issuer()
    header = start.headers["Set-Cookie"]
    assert "HttpOnly" in header
    assert "Path=/hub/oauth_callback" in header
    assert "SameSite=Lax" in header
    assert "Max-Age=600" in header
    assert query(start.headers["Location"])["state"] not in header
    secure = await alice.get("hub/oauth_login", headers={"X-Forwarded-Proto": "https"})
    assert "Secure" in secure.headers["Set-Cookie"]


async def test_an_answer_counts_once_even_if_the_cookie_comes_back(
    hub: HubInTest, alice: Browser
) -> None:
    start = await alice.to_issuer()
    kept = [(c.name, c.value) for c in flight_cookies(alice)]
    back = await alice.at_issuer(start)
    assert (await alice.client.get(back)).headers["Location"].endswith("/hub/spawn")
    thief = Browser(hub)
    for name, value in kept:
        thief.client.cookies.set(name, value, domain="127.0.0.1", path="/hub/oauth_callback")
    await refused(thief, await thief.client.get(back), 400, "not begun in this browser")
    # The issuer, which refuses a used code as well, was not even asked.
    assert (await hub.iam.counters())["grants"]["authorization_code"] == {"ok": 1}
    await thief.client.aclose()


async def test_an_answer_to_another_browsers_login_signs_nobody_in(
    hub: HubInTest, alice: Browser
) -> None:
    back = await alice.at_issuer(await alice.to_issuer())
    victim = Browser(hub)
    await refused(victim, await victim.client.get(back), 400, "not begun in this browser")
    await victim.to_issuer()  # a login of their own under way does not help the attacker
    await refused(victim, await victim.client.get(back), 400, "not begun in this browser")
    await victim.client.aclose()


async def test_an_answer_after_ten_minutes_is_too_late(
    fresh_hub: HubInTest, fresh_alice: Browser
) -> None:
    back = await fresh_alice.at_issuer(await fresh_alice.to_issuer())
    fresh_hub.clock.shift = 601
    await refused(fresh_alice, await fresh_alice.client.get(back), 400, "more than 10 minutes")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"state": "other"}, "not begun in this browser"),
        ({"state": ""}, "not begun in this browser"),
        ({"code": ""}, "sent no code"),
        ({"iss": "https://attacker.invalid/"}, "cannot be trusted"),
    ],
)
async def test_a_tampered_answer_is_refused(
    alice: Browser, change: dict[str, str], words: str
) -> None:
    back = await alice.at_issuer(await alice.to_issuer())
    params = query(back) | change
    await refused(
        alice,
        await alice.get("hub/oauth_callback", params=params),
        403 if "iss" in change else 400,
        words,
    )


@pytest.mark.parametrize("extra", ["&code=again", "&state=again", "&error=x&error=y", "&iss=%ff"])
async def test_a_malformed_answer_is_refused_without_its_words(alice: Browser, extra: str) -> None:
    back = await alice.at_issuer(await alice.to_issuer())
    text = await refused(alice, await alice.client.get(back + extra), 400, "malformed")
    assert query(back)["code"] not in text


async def test_a_callback_without_anything_is_a_page(alice: Browser) -> None:
    await refused(alice, await alice.get("hub/oauth_callback"), 400, "Sign in with ESCAPE IAM")


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        ("access_denied", 403, "You refused consent"),
        ("temporarily_unavailable", 503, "does not answer"),
        ("invalid_scope", 503, "out of order"),
        ("login_required", 400, "login_required"),
        ("<script>", 400, "unreadable"),
    ],
)
async def test_an_error_of_the_issuer_is_a_page_with_a_way_on(
    alice: Browser, error: str, status: int, words: str
) -> None:
    state = query((await alice.to_issuer("/hub/token")).headers["Location"])["state"]
    params = {"error": error, "error_description": "click evil.example", "state": state}
    answer = await alice.get("hub/oauth_callback", params=params)
    text = await refused(alice, answer, status, words, "/hub/oauth_login?next=%2Fhub%2Ftoken")
    assert "evil.example" not in text
    assert "<script>" not in text.split("</head>")[1].split("<main")[1].split("</main>")[0]


async def test_a_refused_consent_at_the_issuers_own_page_ends_on_our_page(
    hub: HubInTest, alice: Browser
) -> None:
    await hub.iam.faults(consent=True)
    start = await alice.to_issuer()
    iam = hub.iam.url
    form = await alice.follow(await alice.client.get(start.headers["Location"]), within=iam)
    consent = await alice.follow(await alice.submit(form), within=iam)
    denied = await alice.follow(await alice.submit(consent, decision="refuse"), within=iam)
    await refused(alice, denied, 403, "You refused consent")


async def test_an_audience_that_is_refused_does_not_stop_the_login(
    hub: HubInTest, alice: Browser
) -> None:
    await hub.iam.faults(refuse_audience=["eos-eulake"])
    assert (await alice.login()).headers["Location"].endswith("/hub/spawn")
    state = await hub.state("alice")
    assert set(state.exchanged) == {"rucio"}
    assert state.failures["eos"].kind == "operator"


async def test_no_secret_of_a_login_reaches_the_log(
    hub: HubInTest, alice: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    start = await alice.to_issuer()
    back = await alice.at_issuer(start)
    await alice.client.get(back)
    await alice.client.get(back)  # refused this time
    await alice.get("hub/oauth_callback", params={**query(back), "code": ["a-code", "b-code"]})
    state = await hub.state("alice")
    secrets = [query(start.headers["Location"])[n] for n in ("state", "nonce")]
    secrets += [query(back)["code"], "b-code", state.refresh_token, state.login_token.value]
    lines = [r.getMessage() for r in caplog.records if not r.name.startswith(("httpx", "httpcore"))]
    hub_lines = [line for line in lines if "[iam]" not in line]
    for secret in secrets:
        assert not [line for line in hub_lines if secret in line]


@pytest.mark.parametrize(
    ("error", "status", "words"),
    [
        (RuntimeError("boom"), 500, "Something went wrong"),
        (web.HTTPError(403, "read this"), 400, "read this"),
        (web.HTTPError(403, "ask %s", "the helpdesk"), 400, "ask the helpdesk"),
        (web.HTTPError(403, "your quota is 100% full"), 400, "is 100% full"),
        (web.HTTPError(403, "ask %s %s", "twice"), 400, "ask"),
        (web.HTTPError(403, reason="Closed today"), 400, "Closed today"),
    ],
)
async def test_a_hook_that_fails_is_a_page_and_the_code_is_not_logged(
    hub: HubInTest,
    alice: Browser,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    status: int,
    words: str,
) -> None:
    def hook(authenticator: Any, handler: Any, model: Any) -> Any:
        raise error

    hub.authenticator.post_auth_hook = hook
    back = await alice.at_issuer(await alice.to_issuer())
    await refused(alice, await alice.client.get(back), status, words)
    assert query(back)["code"] not in caplog.text


async def test_a_refusal_that_is_over_is_a_page_too(alice: Browser) -> None:
    page = await alice.get("hub/oauth_refused/never-there")
    assert page.status_code == 404
    assert "This page is over" in page.text


async def test_a_password_in_an_api_request_signs_nobody_in(alice: Browser) -> None:
    body = {"auth": {"username": "alice", "password": "alice", "login": "x"}}
    answer = await alice.api("POST", "users/alice/tokens", json=body)
    assert answer.status_code == 403


@pytest.mark.parametrize(
    "evil",
    [
        "//attacker.invalid/",
        "https://attacker.invalid/",
        "/\\attacker.invalid/",
        "\\\\attacker.invalid/",
        "/\t/attacker.invalid/",
        "///attacker.invalid/",
        "javascript:alert(1)",
        "http:attacker.invalid",
        "/x" * 600,
    ],
)
async def test_nobody_is_sent_elsewhere_after_a_login(alice: Browser, evil: str) -> None:
    back = await alice.login(next_url=evil)
    target = back.headers["Location"]
    assert urlsplit(target).netloc == ""
    assert target.startswith("/")
    assert target[1] not in "/\\"

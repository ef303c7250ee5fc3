"""Whoever makes up the address that leads back to the client signs nobody in."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import parse_qs, parse_qsl, urlencode, urljoin, urlsplit

import httpx
import pytest

from tests.harness import Person
from tests.harness.person import forms
from tests.hub.hostile import cases
from tests.hub.hostile.cases import Case
from tests.hub.hostile.play import HUB, NAIVE, Play, name_of


def way_back(person: Person) -> str:
    """Sign in at the issuer, and stop at the address that leads back to the client."""
    person.client.follow_redirects = False
    try:
        page = person.client.get(f"{person.hub}hub/oauth_login")
        while not str(target := _target(page)).startswith(f"{person.hub}hub/oauth_callback"):
            if page.has_redirect_location:
                page = person.client.get(target)
            else:
                assert "password" in forms(page)[0]["fields"]
                page = person.submit(page, username=person.name, password=person.password)
        return target
    finally:
        person.client.follow_redirects = True


def _target(page: httpx.Response) -> str:
    return urljoin(str(page.url), page.headers.get("Location", ""))


def changed(address: str, **values: str | None) -> str:
    """The address with parameters replaced; None takes one out."""
    parts = urlsplit(address)
    query = {**dict(parse_qsl(parts.query)), **values}
    return parts._replace(
        query=urlencode({k: v for k, v in query.items() if v is not None})
    ).geturl()


#: Gets the browser of somebody else (who has signed in at the issuer) and an own one; opens
#: in the own one what the case is about.
Attack = Callable[[Person, Person], httpx.Response]


def csrf(other: Person, own: Person) -> httpx.Response:
    return own.client.get(way_back(other))


def injected(other: Person, own: Person) -> httpx.Response:
    code = parse_qs(urlsplit(way_back(other)).query)["code"][0]
    return own.client.get(changed(way_back(own), code=code))


def twice(other: Person, own: Person) -> httpx.Response:
    address = way_back(own)
    return own.client.get(f"{address}&{urlencode({'code': 'another'})}")


def no_code(other: Person, own: Person) -> httpx.Response:
    return own.client.get(changed(way_back(own), code=None))


def long_code(other: Person, own: Person) -> httpx.Response:
    return own.client.get(changed(way_back(own), code="x" * 9000))


def no_text(other: Person, own: Person) -> httpx.Response:
    return own.client.get(f"{changed(way_back(own), code=None)}&code=%ff%fe")


def bare(other: Person, own: Person) -> httpx.Response:
    way_back(own)
    return own.client.get(f"{own.hub}hub/oauth_callback")


def refused(other: Person, own: Person) -> httpx.Response:
    return own.client.get(changed(way_back(own), code=None, error="access_denied"))


def script(other: Person, own: Person) -> httpx.Response:
    words = {"error": "<script>alert(1)</script>", "error_description": "call +1 555 0100"}
    page = own.client.get(changed(way_back(own), code=None, **words))
    assert "alert(1)" not in page.text and "555" not in page.text
    return page


def replayed(other: Person, own: Person) -> httpx.Response:
    """The same address again in a browser that still has the cookie of the sign-in."""
    address = way_back(own)
    before = httpx.Cookies(own.client.cookies)
    own.client.get(address)
    own.client.cookies = before
    return own.client.get(address)


_SPENT = "the issuer takes a code once, and ends what came of it"
ATTACKS: list[tuple[Attack, Case]] = [
    (csrf, Case("callback-csrf", "a sign-in ends in the browser that began it",
                code="sign-in-unknown", seen=cases.AUTHORIZE)),
    (injected, Case("callback-code-injection", "a stolen code is worth nothing (PKCE)",
                    code="code-refused", seen=cases.CODE)),
    (replayed, Case("callback-replay", "a sign-in ends once", code="sign-in-unknown",
                    seen=cases.EXCHANGES, naive=_SPENT)),
    (twice, Case("callback-code-twice", "a parameter comes once (RFC 6749 3.1)",
                 code="sign-in-form", seen=cases.AUTHORIZE, naive="takes the last: refused")),
    (no_code, Case("callback-no-code", "a code is there", code="sign-in-no-code",
                   seen=cases.AUTHORIZE, naive="there is none to take")),
    (long_code, Case("callback-long-code", "a code has an end", code="sign-in-form",
                     seen=cases.AUTHORIZE, naive="the issuer refuses it")),
    (no_text, Case("callback-no-text", "a parameter is text", code="sign-in-form",
                   seen=cases.AUTHORIZE, naive="the issuer refuses it")),
    (bare, Case("callback-bare", "nothing at all signs nobody in", code="sign-in-unknown",
                seen=cases.AUTHORIZE, naive="there is no code to take")),
    (refused, Case("callback-error", "a refusal of the issuer is a page", code="consent-refused",
                   seen=cases.AUTHORIZE, naive="there is no code to take")),
    (script, Case("callback-error-script", "nobody writes on our page by a link",
                  code="sign-in-refused", seen=cases.AUTHORIZE, naive="there is no code to take")),
]  # fmt: skip


@pytest.mark.parametrize(("attack", "case"), ATTACKS, ids=[case.name for _, case in ATTACKS])
def test_a_made_up_way_back(play: Play, attack: Attack, case: Case) -> None:
    play.faults(case)
    with play.somebody() as other, play.somebody() as own:
        start = len(play.hub.log_text)
        page = attack(other, own)
        play.judge(case, play.read(own, page, start, play.iam.counters()))
    with play.somebody(play.naive.url) as other, play.somebody(play.naive.url) as own:
        attack(other, own)
        play.judge_naive(case, "signs in" if name_of(own) else "")


def test_the_request_has_state_nonce_and_challenge_of_its_own(play: Play) -> None:
    """PKCE S256, nonce and state in each request, new in each, and no secret among them."""
    case = Case("request", "PKCE S256, a nonce and a state in each request, new in each")
    requests = []
    with play.somebody() as person:
        person.client.follow_redirects = False
        for _ in range(2):
            target = _target(person.client.get(f"{person.hub}hub/oauth_login"))
            requests.append(dict(parse_qsl(urlsplit(target).query)))
    fresh = ("state", "nonce", "code_challenge")
    good = all(len(r[name]) >= 43 for r in requests for name in fresh)
    good = good and all(requests[0][name] != requests[1][name] for name in fresh)
    good = good and requests[0]["code_challenge_method"] == "S256"
    good = good and requests[0]["response_type"] == "code"
    good = good and not {"client_secret", "code_verifier"} & set(requests[0])
    play.put(case, HUB, good, "")
    assert good, requests
    query = [dict(parse_qsl(urlsplit(play.naive.authorization_url()).query)) for _ in range(2)]
    play.put(case, NAIVE, query[0] == query[1], "fails: the same for everybody")
    assert query[0] == query[1]


def test_two_tabs_of_one_browser_both_come_in(play: Play) -> None:
    case = Case("two-tabs", "two sign-ins of one browser at once both succeed")
    play.faults(case)
    with play.somebody() as person:
        tabs = [way_back(person), way_back(person)]
        pages = [person.client.get(tab) for tab in tabs]
        good = [page.status_code for page in pages] == [200, 200]
        good = good and play.iam.counters()["grants"]["authorization_code"] == {"ok": 2}
        play.put(case, HUB, good and bool(name_of(person)), "both signed in")
        assert good and name_of(person) == person.name
    with play.somebody(play.naive.url) as person:
        for tab in [way_back(person), way_back(person)]:
            person.client.get(tab)
        play.judge_naive(case, name_of(person) and "both signed in")


@pytest.mark.parametrize(
    "target",
    [
        "https://attacker.invalid/",
        "//attacker.invalid/",
        "/\\attacker.invalid",
        "/\t/attacker.invalid",
    ],
)
def test_a_sign_in_leads_nowhere_else(play: Play, target: str) -> None:
    """The address to go on to is a path of this hub, or is not followed."""
    play.iam.faults()
    with play.somebody() as person:
        page = person.login(next_url=target)
        assert str(page.url).startswith(play.hub.url) and name_of(person)


def test_client_secret_basic(play: Play) -> None:
    """The client's secret goes in the header by default, to token endpoint and revocation."""
    case = Case("client-secret-basic", "the client's secret goes in the header, never in a form")
    play.faults(case)
    with play.somebody() as person:
        play.sign_in(person)
        person.client.get(f"{play.hub.url}hub/logout")
    ways = play.iam.counters()["client_auth"]
    play.put(case, HUB, set(ways) == {"basic"}, "")
    assert set(ways) == {"basic"}
    assert "revoke" in play.iam.counters()["requests"]
    hurt = play.at_naive(case)
    assert hurt and set(play.iam.counters()["client_auth"]) == {"post"}
    play.put(case, NAIVE, True, "fails: in the form")

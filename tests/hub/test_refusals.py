"""Who is not let in reads why and what to do; nobody is sent elsewhere; nothing is a 500."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from tests.harness import Hub, Iam, Person

CONTACT = "the helpdesk, help@example.org"
_REFERENCE = re.compile(r"Reference: <code>([\w-]+)</code>")


@pytest.fixture(scope="module")
def hub_options() -> dict[str, Any]:
    return {"extra": f"c.EscapeAuthenticator.contact = {CONTACT!r}"}


@pytest.fixture(autouse=True)
def nothing_breaks(hub: Hub) -> Iterator[None]:
    """No test here may leave an HTTP 5xx or a traceback in the hub's log."""
    before = len(hub.log_text)
    yield
    log = hub.log_text[before:]
    assert re.findall(r"\] 5\d\d (?:GET|POST) .*", log) == []
    assert "Traceback" not in log


def assert_refused(page: httpx.Response, hub: Hub, status: int, *words: str) -> None:
    """A page of the hub's own with the words, whose reference stands in the log."""
    assert page.status_code == status, (page.url, page.text)
    assert str(page.url).startswith(hub.url)
    assert "code=" not in str(page.url)
    text = unescape(page.text)
    for one in words:
        assert one in text, one
    reference = _REFERENCE.search(text)
    assert reference, "no reference to quote"
    refused = [line for line in hub.log_text.splitlines() if reference[1] in line]
    assert any("Sign-in refused" in line for line in refused)


def is_in(person: Person) -> bool:
    answer = person.client.get(f"{person.hub}hub/home", follow_redirects=False)
    return answer.status_code == 200


def test_who_lacks_the_group_reads_which_one_and_whom_to_ask(
    hub: Hub, iam: Iam, bob: Person
) -> None:
    iam.faults(users={"bob": {"groups": ["escape/cms"]}})
    page = bob.login()
    assert_refused(page, hub, 403, "is missing one of the groups", "'escape'", CONTACT, "'bob'")
    assert not is_in(bob)
    iam.faults()
    assert bob.login().status_code == 200
    assert is_in(bob)


def test_the_same_name_with_another_subject_is_refused_with_the_administrators_remedy(
    hub: Hub, iam: Iam, alice: Person
) -> None:
    alice.login()
    iam.faults(users={"alice": {"sub": "somebody-else-with-that-name"}})
    other = Person(hub.url, "alice")
    page = other.login()
    remedy = "An administrator can delete the hub user 'alice'"
    assert_refused(page, hub, 403, "belongs to another account", remedy)
    assert not is_in(other)
    assert is_in(alice), "the owner of the name pays for somebody else's attempt"
    other.close()


ELSEWHERE = [
    "https://evil.example.org/",
    "//evil.example.org/",
    "///evil.example.org/",
    "/\\evil.example.org/",
    "\\\\evil.example.org/",
    "/\t/evil.example.org/",
    "https:evil.example.org/",
    "javascript:alert(1)",
    "http://alice@evil.example.org/hub/home",
]


@pytest.mark.parametrize("target", ELSEWHERE)
def test_a_login_leads_nowhere_but_to_the_hub(
    hub: Hub, iam: Iam, alice: Person, target: str
) -> None:
    page = alice.login(target)
    assert page.status_code in {200, 404}
    assert is_in(alice)
    ours = {urlsplit(hub.url).netloc, urlsplit(iam.issuer).netloc}
    assert {hop.url.netloc.decode() for hop in [*page.history, page]} <= ours
    assert urlsplit(str(page.url)).netloc == urlsplit(hub.url).netloc
    # Whoever is signed in already takes another way through the hub.
    for path in ("hub/login", "hub/oauth_login"):
        again = alice.client.get(f"{hub.url}{path}", params={"next": target})
        assert {hop.url.netloc.decode() for hop in [*again.history, again]} <= ours


def test_two_tabs_of_one_browser_both_get_where_they_wanted(hub: Hub, alice: Person) -> None:
    first, second = alice.start_login("/hub/token"), alice.start_login("/hub/home")
    who = {"username": alice.name, "password": alice.password}
    assert str(alice.submit(second, **who).url) == f"{hub.url}hub/home"
    assert str(alice.submit(first, **who).url) == f"{hub.url}hub/token"
    assert is_in(alice)


def callback_of(page: httpx.Response) -> str:
    """The address, code and all, at which a login came back."""
    found = [str(hop.url) for hop in page.history if hop.url.path.endswith("/oauth_callback")]
    assert len(found) == 1
    return found[0]


def test_an_answer_that_comes_twice_signs_nobody_in_and_harms_nobody(
    hub: Hub, iam: Iam, alice: Person
) -> None:
    callback = callback_of(alice.login())
    assert_refused(alice.client.get(callback), hub, 400, "was used before")
    thief = Person(hub.url)
    assert_refused(thief.client.get(callback), hub, 400, "not begun in this browser")
    assert not is_in(thief)
    thief.close()
    # An IAM that saw the code again would have ended the sign-in (RFC 6749 section 10.5).
    assert is_in(alice)
    assert alice.api("POST", "escape/renew").json()["state"] == "fresh"
    assert iam.counters()["grants"]["authorization_code"].keys() == {"ok"}


def test_a_refused_consent_is_a_page_with_a_way_on(hub: Hub, iam: Iam, alice: Person) -> None:
    iam.faults(consent=True)
    who = {"username": alice.name, "password": alice.password}
    consent = alice.submit(alice.start_login(), **who)
    assert urlsplit(str(consent.url)).netloc == urlsplit(iam.issuer).netloc
    page = alice.submit(consent, decision="refuse")
    assert_refused(page, hub, 403, "You refused consent", "hub/oauth_login")
    assert not is_in(alice)
    assert str(alice.login("/hub/home").url) == f"{hub.url}hub/home"

"""One hostile sign-in at the hub and at the naive client, and what came of it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx

from tests.fakes.naive_client import NaiveClient
from tests.harness import Person
from tests.harness.stage import Stage
from tests.hub.hostile import cases
from tests.hub.hostile.cases import Case
from tests.providers.results import Results

HUB, NAIVE = "hub", "naive"
_REFERENCE = re.compile(r"Sign-in refused, reference ([a-z0-9-]+)-([0-9a-f]{6})")


@dataclass(frozen=True)
class Verdict:
    """``who`` is signed in, nobody where empty; ``code`` of the refusal in the hub's log."""

    who: str
    page: httpx.Response = field(repr=False)
    reached: str
    code: str = ""
    caught: bool = False


def reached(counters: dict[str, Any]) -> str:
    """How far a sign-in came, by what the issuer counted."""
    requests, grants = counters["requests"], counters["grants"]
    if "token-exchange" in grants:
        return cases.EXCHANGES
    if "userinfo" in requests:
        return cases.USERINFO
    if "authorization_code" in grants:
        return cases.CODE
    return cases.AUTHORIZE if "authorize" in requests else cases.NOTHING


def name_of(person: Person) -> str:
    """Whom the client takes this browser for."""
    answer = person.api("GET", "user")
    return str(answer.json()["name"]) if answer.status_code == 200 else ""


class Play:
    """A hub and a naive client of the same issuer. Everybody signs in once, as somebody new."""

    def __init__(self, stage: Stage, naive: NaiveClient, results: Results) -> None:
        self.hub, self.iam, self.naive, self.results = stage.hub, stage.iam, naive, results
        self._names = itertools.count()
        naive.issuer = stage.iam.issuer

    def must_live(self) -> None:
        """Fail with the last lines of a process that ended, and not with what that led to."""
        for process in (self.hub.process, self.iam.process):
            assert process is not None and process.alive(), process and process.tail()

    def new_name(self) -> str:
        return f"person-{next(self._names):03}"

    @contextmanager
    def somebody(self, url: str = "", name: str = "") -> Iterator[Person]:
        """A new person at the hub, or at another client's ``url``."""
        person = Person(url or self.hub.url, name or self.new_name())
        try:
            yield person
        finally:
            person.close()

    def faults(self, case: Case) -> None:
        self.iam.faults(**case.faults)
        self.iam.reset_counters()

    def log_since(self, start: int) -> str:
        return self.hub.log_text[start:]

    def at_hub(self, case: Case) -> Verdict:
        """Sign in at the hub while the issuer behaves as the case says."""
        self.faults(case)
        start = len(self.hub.log_text)
        with self.somebody() as person:
            page = person.login()
            counters = self.iam.counters()
            found = self.read(person, page, start, counters)
            assert found.who in ("", person.name), "somebody else is signed in"
        return found

    def read(
        self, person: Person, page: httpx.Response, start: int, counters: dict[str, Any]
    ) -> Verdict:
        """The verdict of a sign-in that ended at ``page``; its refusal is in log and page."""
        refused = _REFERENCE.findall(self.log_since(start))
        assert "failed unexpectedly" not in self.log_since(start), self.log_since(start)
        who, code = name_of(person), ""
        if not who:
            assert len(refused) == 1, (str(page.url), refused)
            code, number = refused[0]
            assert page.status_code in (400, 403, 503), page.status_code
            assert f"{code}-{number}" in page.text, "the page does not show the reference"
            assert "code=" not in str(page.url) and "state=" not in str(page.url)
        return Verdict(who, page, reached(counters), code, "caught" in counters["requests"])

    def at_naive(self, case: Case) -> str:
        """How the naive client was hurt; nothing when it was not."""
        self.faults(case)
        self.naive.sent_to.clear()
        with self.somebody(self.naive.url) as person:
            try:
                person.login()
            except httpx.InvalidURL:
                return "sends the browser to a script"
            if name_of(person):
                return "signs the person in"
        if "caught" in self.iam.counters()["requests"]:
            return "follows the redirect"
        if [url for url in self.naive.sent_to if not url.startswith(self.iam.issuer)]:
            return "sends code and secret to a stranger"
        return ""

    # -- the table ---------------------------------------------------------------------

    def judge(self, case: Case, found: Verdict) -> None:
        """Write the hub's cell, then assert."""
        good = bool(found.who) == (not case.code) and found.code == case.code
        self.put(case, HUB, good, f"refused: {found.code}" if found.code else "signed in")
        assert found.code == case.code, f"expected {case.code or 'a sign-in'}, got {found}"
        assert bool(found.who) == (not case.code), found
        assert found.reached == case.reached, f"the issuer saw {found.reached}"
        assert not found.caught, "followed a redirect"

    def judge_naive(self, case: Case, hurt: str) -> None:
        """Write the naive client's cell, then assert."""
        if not case.code:
            self.put(case, NAIVE, bool(hurt), hurt)
            assert hurt, "the naive client cannot even do this"
            return
        fell = not case.naive
        note = f"falls for it: {hurt}" if hurt else f"survives: {case.naive}"
        self.put(case, NAIVE, fell == bool(hurt), note)
        assert fell == bool(hurt), note

    def put(self, case: Case, column: str, good: bool, note: str) -> None:
        title = f"{case.name}: {case.rule}"
        if column == NAIVE and good:
            self.results.put(case.name, column, title=title, result=note)
            return
        result = "pass" if good else "FAIL"
        self.results.put(case.name, column, title=title, result=result, note=note)

    def sign_in(self, person: Person) -> str:
        """Sign in where nothing is wrong; the access token that came of it."""
        before = len(self.iam.issued()["access_tokens"])
        person.login()
        assert name_of(person) == person.name
        return str(self.iam.issued()["access_tokens"][before])

    def both(self, case: Case) -> None:
        """The whole case."""
        try:
            self.judge(case, self.at_hub(case))
        finally:
            hurt = self.at_naive(case)
        self.judge_naive(case, hurt)

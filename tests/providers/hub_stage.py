"""A real hub at a provider that others wrote, as an operator would configure it there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
from playwright.sync_api import Browser

from tests.harness.hub import AUDIENCES, Hub
from tests.harness.processes import wait_for
from tests.harness.session_view import SessionView
from tests.hub.at_work import AtWork, token_files
from tests.providers.peers import Line, LogoutReceiver
from tests.providers.provider import Provider
from tests.providers.window import ProviderWindow

#: Pages look at the access at every request that comes a second after the last one.
EXTRA = """
c.EscapeAuthenticator.auth_refresh_age = 1
c.EscapeAuthenticator.scope = {scope!r}
c.EscapeAuthenticator.extra_authorize_params = {query!r}
c.EscapeAuthenticator.logout_method = {logout!r}
c.JupyterHub.authenticate_prometheus = False
"""
#: Seconds that an access token lives: for ever as far as a test goes, or due for a renewal soon.
LONG, SHORT = 3600, 8


def scopes(provider: Provider) -> list[str]:
    """What the hub asks for at a sign-in."""
    offline = ["offline_access"] if provider.capabilities.offline_scope else []
    return ["openid", "profile", "email", *offline]


def hub_for(provider: Provider, directory: Path) -> Hub:
    """A hub at the address that the provider was told."""
    capabilities = provider.capabilities
    audiences = {
        name: {**one, "scope": capabilities.exchange_scopes[one["audience"]]}
        for name, one in AUDIENCES.items()
    }
    extra = EXTRA.format(
        scope=scopes(provider),
        query=dict(capabilities.login_query),
        logout="post" if capabilities.logout_by_post else "get",
    )
    for setting, names in capabilities.allow.items():
        extra += f"c.EscapeAuthenticator.{setting} = {set(names)!r}\n"
    port = urlsplit(provider.addresses.redirect_uri).port
    assert port is not None
    return Hub(directory, extra=extra, audiences=audiences, port=port)


class HubStage:
    """The provider, the line before it, a hub that runs and a browser that is open."""

    def __init__(
        self, provider: Provider, line: Line, receiver: LogoutReceiver, hub: Hub, chromium: Browser
    ) -> None:
        self.provider, self.line, self.receiver = provider, line, receiver
        self.hub, self.chromium = hub, chromium
        self._windows: list[ProviderWindow] = []
        self._at_work: list[AtWork] = []

    def close(self) -> None:
        """What the test opened. The sessions go on."""
        for one in (*self._at_work, *self._windows):
            one.close()
        self._windows, self._at_work = [], []

    def window(self) -> ProviderWindow:
        """One without any cookie."""
        context = self.chromium.new_context(viewport={"width": 1280, "height": 800})
        # Fonts and the like from elsewhere: a closed network would only delay the page.
        context.route(lambda url: urlsplit(url).hostname != "127.0.0.1", lambda r: r.abort())
        made = ProviderWindow(context, self.hub.url, self.provider.pages)
        self._windows.append(made)
        return made

    def sign_in(self, user: str = "alice") -> ProviderWindow:
        """In a new browser, by password."""
        window = self.window()
        window.sign_in(user)
        assert window.passwords == 1
        assert "code=" not in window.page.url
        return window

    def at_work(self, window: ProviderWindow, user: str = "alice") -> AtWork:
        """The person of the window in a session that runs, started there if there is none.

        The session has what the window's sign-in brought.
        """
        person = window.person(user)
        running = person.server_ready()
        person.close()
        if running:
            window.visit_session(user)
        else:
            window.start_session(user)
        found = AtWork(self, window.person(user), "")  # type: ignore[arg-type]
        self._at_work.append(found)
        kernels = found.person.lab_api("GET", "api/kernels").json()
        found.kernel = kernels[0]["id"] if kernels else found.person.start_kernel()
        if not kernels:
            found.person.run(found.kernel, "witness = 'still here'")
        self.wait_until_good(found)
        if self.provider.capabilities.exchange != "no":
            self.wait_for_files(found, "files", lambda view: len(token_files(view)) == 2)
        return found

    def wait_for_files(
        self, alice: AtWork, what: str, check: Callable[[SessionView], bool]
    ) -> SessionView:
        """The first look that satisfies ``check``, with the session asking the hub at once."""

        def found() -> SessionView | None:
            alice.poke()  # none too soon after another counts
            view = alice.look()
            return view if check(view) else None

        return wait_for(what, found, 30, every=0.3)  # type: ignore[return-value]

    def again(self, alice: AtWork, window: ProviderWindow) -> AtWork:
        """The same session with the cookies of another window."""
        found = AtWork(self, window.person(alice.person.name), alice.kernel)  # type: ignore[arg-type]
        self._at_work.append(found)
        return found

    @contextmanager
    def short_tokens(self, seconds: int = SHORT) -> Iterator[None]:
        """Sign-ins meanwhile have tokens that are due in half of ``seconds``; later ones not."""
        self.provider.set_access_token_lifetime(seconds)
        try:
            yield
        finally:
            self.provider.set_access_token_lifetime(LONG)

    def wait_for_refresh(self, timeout: float = 30) -> None:
        """Until the hub has presented a refresh token."""
        wait_for("a refresh", lambda: self.line.heard[Line.REFRESH], timeout, every=0.05)

    def wait_until_good(self, alice: AtWork) -> None:
        """Until the hub says that all is as it can be at this provider."""
        wait_for("good access", lambda: self.is_good(alice.status()), 30, every=0.3)

    def wait_for_the_end(self, alice: AtWork) -> None:
        """Until the hub wants a sign-in: it says so, or does not take the cookie any more."""

        def ended() -> bool:
            answer = alice.person.api("GET", "escape/status")
            return answer.status_code == 403 or answer.json()["state"] == "sign_in"

        wait_for("the end of a sign-in", ended, 40, every=0.3)

    def is_good(self, status: dict[str, Any]) -> bool:
        """Fresh; where there is no exchange that it is refused, and nobody is asked to sign in."""
        if self.provider.capabilities.exchange == "no":
            return (status["state"], status["reference"]) == ("refused", "exchange-unsupported")
        return bool(status["state"] == "fresh")

    def published(self) -> dict[str, Any]:
        """The provider's metadata."""
        url = f"{self.provider.issuer.rstrip('/')}/.well-known/openid-configuration"
        found: dict[str, Any] = httpx.get(url, trust_env=False).json()
        return found

    def accepts(self, token: str, audience: str) -> dict[str, Any]:
        """The claims of a token of a file, verified as the services of the lake do it.

        Rucio checks the signature by the provider's published keys, EOS asks userinfo;
        introspection where there is such.
        """
        document = self.published()
        with httpx.Client(trust_env=False) as client:
            keys = jwt.PyJWKSet.from_dict(client.get(document["jwks_uri"]).json())
            claims: dict[str, Any] = jwt.decode(
                token,
                keys[jwt.get_unverified_header(token)["kid"]],
                algorithms=["RS256"],
                audience=audience,
                issuer=self.provider.issuer,
            )
            bearer = {"Authorization": f"Bearer {token}"}
            taken = client.get(document["userinfo_endpoint"], headers=bearer).status_code == 200
            assert taken == self.provider.capabilities.userinfo_takes_exchanged
            if (service := self.provider.service(audience)) is not None:
                asked = {"token": token}
                url = document["introspection_endpoint"]
                verdict = client.post(url, data=asked, auth=service).json()
                assert verdict["active"] and audience in verdict["aud"]
        return claims


def tokens_of(view: SessionView) -> dict[str, str]:
    """The token in each file, by audience."""
    return {"eos-eulake": view.eos_token, "rucio": view.rucio_token}


def key_ids(view: SessionView) -> set[str]:
    return {jwt.get_unverified_header(token)["kid"] for token in tokens_of(view).values()}

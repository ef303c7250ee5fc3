"""The pages a person sees: sign in, acceptable use policy, consent; and the redirect back.

No step keeps anything on the server: each form carries the authorization
request in its own URL, so two tabs, the back button and a restart all work.
"""

from __future__ import annotations

import hmac
from typing import Any
from urllib.parse import urlencode

from escape_hub.demo.iam.authorization import Request, add_query
from escape_hub.demo.iam.base import Handler
from escape_hub.demo.iam.dialects import AUP_TEXT
from escape_hub.demo.iam.service import Code
from escape_hub.demo.iam.state import Session, digest

COOKIE = "escape-dev-iam-session"
_SCOPE_TEXT = {
    "openid": "know who you are",
    "profile": "read your name and your groups",
    "email": "read your e-mail address",
    "offline_access": "keep access while you are away",
}


class LoginHandler(Handler):
    """Common to the pages of a login."""

    endpoint = "authorize"

    def read_request(self) -> Request | None:
        """The request of the query; a page, and None, when there is nowhere safe to redirect to."""
        arguments = self.request.query_arguments
        params = {k: v[0].decode() for k, v in arguments.items()}
        client = self.iam.config.clients.get(params.get("client_id", ""))
        if any(len(v) > 1 for v in arguments.values()) or client is None:
            self.problem(
                "Unknown application",
                "The application that sent you here is not registered (client_id).",
                "Its operator must use a client_id of the development IAM's configuration.",
            )
            return None
        redirect_uri = params.get("redirect_uri", "")
        if redirect_uri not in client.redirect_uris:
            self.problem(
                "Unregistered address",
                "The application wants you sent back to an address that is not registered for it "
                "(redirect_uri, compared exactly).",
                "Its operator must add the address to redirect_uris of this client.",
            )
            return None
        return Request(params["client_id"], client, redirect_uri, params)

    def session(self) -> Session | None:
        """The session of the browser's cookie."""
        return self.iam.session(self.get_cookie(COOKIE))

    def form_key(self) -> str:
        """Proves that a form was made for this browser (against forged posts)."""
        return digest(f"form:{self.get_cookie(COOKIE, '')}")[:32]

    def form_is_ours(self) -> bool:
        """Whether the posted form carries the key."""
        return hmac.compare_digest(self.get_body_argument("key", ""), self.form_key())

    def answer(self, request: Request, params: dict[str, str]) -> None:
        """Redirect back to the client, with ``state``, and ``iss`` where RFC 9207 is on."""
        present = self.iam.faults.hostile
        if self.iam.config.callback_iss:
            params = {**params, "iss": self.iam.config.issuer_url}
        match present.get("callback_iss"):
            case "other":
                params["iss"] = "https://attacker.invalid/"
            case "absent":
                params.pop("iss", None)
        if state := request.params.get("state"):
            params["state"] = state
        match present.get("callback_state"):
            case "other":
                params["state"] = "not-the-state"
            case "absent":
                params.pop("state", None)
        self.redirect(add_query(request.redirect_uri, params), status=303)

    def refuse(self, request: Request, error: str, text: str = "") -> None:
        """Redirect back with an error (RFC 6749 section 4.1.2.1)."""
        self.answer(request, {"error": error} | ({"error_description": text} if text else {}))

    def grant(self, request: Request, session: Session) -> None:
        """Redirect back with a code."""
        code = self.iam.new_code(
            Code(
                user=session.user,
                client=request.client_id,
                redirect_uri=request.redirect_uri,
                scope=request.scope,
                nonce=request.params.get("nonce", ""),
                challenge=request.params["code_challenge"],
                sid=session.sid,
                auth_time=session.auth_time,
                expires_at=self.iam.now() + self.iam.config.code_lifetime,
            )
        )
        self.answer(request, {"code": code})

    def step(self, request: Request, name: str, *, without_prompt: bool = False) -> str:
        """The URL of a step of this login."""
        params = dict(request.params)
        if without_prompt:
            params.pop("prompt", None)
            params.pop("max_age", None)
        return f"{self.iam.config.endpoint(name)}?{urlencode(params)}"

    def login_page(self, request: Request, *, status: int = 200, **values: Any) -> None:
        """The sign-in form."""
        login = values.pop("login", request.params.get("login_hint", ""))
        self.page(
            "login.html",
            status=status,
            action=self.step(request, "login"),
            cancel=self.step(request, "cancel"),
            client=request.client_id,
            login=login,
            error=values.pop("error", ""),
            demo_users=[n for n, u in self.iam.config.users.items() if u.password == n][:4],
        )

    def consented(self, request: Request, session: Session) -> bool:
        """Whether the user need not be asked (again)."""
        if "consent" in request.prompt:
            return False
        return not self.iam.faults.consent or any(
            [user, client] == [session.user, request.client_id] and set(request.scope) <= set(scope)
            for user, client, *scope in self.iam.state.consents
        )


class Authorize(LoginHandler):
    """``GET /authorize``: the first page that applies, or the redirect with a code."""

    async def get(self) -> None:
        """Decide what comes next."""
        request = self.read_request()
        if request is None:
            return
        if fault := request.fault():
            self.refuse(request, *fault)
            return
        session = self.session()
        silent = "none" in request.prompt
        if session is None or "login" in request.prompt or self._too_old(request, session):
            if silent:
                self.refuse(request, "login_required")
            else:
                self.login_page(request)
        elif session.user in self.iam.faults.aup_unsigned:
            if silent:
                self.refuse(request, "interaction_required")
            else:
                self.page(
                    "aup.html",
                    text=AUP_TEXT.format(user=session.user),
                    action=self.step(request, "aup"),
                    key=self.form_key(),
                    login=session.user,
                )
        elif not self.consented(request, session):
            if silent:
                self.refuse(request, "consent_required")
            else:
                self.page(
                    "consent.html",
                    action=self.step(request, "consent"),
                    client=request.client_id,
                    key=self.form_key(),
                    login=session.user,
                    scopes=[(s, _SCOPE_TEXT.get(s, "")) for s in request.scope],
                )
        else:
            self.grant(request, session)

    def _too_old(self, request: Request, session: Session) -> bool:
        max_age = request.params.get("max_age", "")
        return max_age.isdecimal() and self.iam.now() - session.auth_time > int(max_age)


class Login(LoginHandler):
    """``POST /login``: user name and password."""

    async def post(self) -> None:
        """Sign the browser in and go on with the request."""
        request = self.read_request()
        if request is None:
            return
        login = self.get_body_argument("username", "")
        user = self.iam.user(login)
        password = self.get_body_argument("password", "", strip=False)
        if user is None or not hmac.compare_digest(user.password.encode(), password.encode()):
            text = "That user name and password do not go together. Try again."
            self.login_page(request, status=401, login=login, error=text)
            return
        if login in self.iam.faults.suspended:
            text = "This account is suspended. Ask the administrators of the IAM to restore it."
            self.login_page(request, status=403, login=login, error=text)
            return
        self.set_cookie(COOKIE, self.iam.open_session(login), httponly=True, samesite="Lax")
        self.redirect(self.step(request, "authorize", without_prompt=True), status=303)


class Consent(LoginHandler):
    """``POST /consent``: ``decision`` is ``allow`` or ``refuse``."""

    async def post(self) -> None:
        """Remember the consent and answer, or tell the client that it was refused."""
        request = self.read_request()
        if request is None:
            return
        session = self.session()
        if session is None or request.fault() or not self.form_is_ours():
            self.redirect(self.step(request, "authorize"), status=303)
        elif self.get_body_argument("decision", "") != "allow":
            self.refuse(request, "access_denied", "The user refused the consent")
        else:
            self.iam.state.consents.append([session.user, request.client_id, *request.scope])
            self.iam.state.save()
            self.grant(request, session)


class Aup(LoginHandler):
    """``POST /aup``: the user signs the acceptable use policy, and that fault is healed."""

    async def post(self) -> None:
        """Sign and go on."""
        request = self.read_request()
        if request is None:
            return
        session = self.session()
        if session is not None and self.form_is_ours():
            self.iam.sign_aup(session.user)
        self.redirect(self.step(request, "authorize", without_prompt=True), status=303)


class Cancel(LoginHandler):
    """``GET /cancel``: the user turns back at the sign-in page."""

    async def get(self) -> None:
        """Tell the client."""
        if request := self.read_request():
            self.refuse(request, "access_denied", "The user turned back")


class Home(Handler):
    """``GET /``: says what this is."""

    async def get(self) -> None:
        """The page."""
        self.page("home.html")

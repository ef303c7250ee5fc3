"""RP-initiated logout, and the back-channel calls that follow it.

OpenID Connect RP-Initiated Logout 1.0 and Back-Channel Logout 1.0. INDIGO IAM
has neither; Keycloak has both. Refresh tokens are offline tokens here, which
survive a logout (Back-Channel Logout 1.0 section 2.7): the client revokes them.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlencode

import tornado.web
from tornado.httpclient import AsyncHTTPClient, HTTPRequest

from escape_hub.demo.iam import hostile
from escape_hub.demo.iam.authorization import add_query
from escape_hub.demo.iam.handlers_login import COOKIE, LoginHandler
from escape_hub.demo.iam.service import Iam

EVENT = "http://schemas.openid.net/event/backchannel-logout"


def logout_token(
    iam: Iam, client_id: str, *, sub: str, sid: str, mutations: str | Iterable[str] | None = None
) -> str:
    """A signed logout token (Back-Channel Logout 1.0 section 2.4), or a hostile one."""
    now = int(iam.now())
    claims: dict[str, Any] = {
        "iss": iam.config.issuer_url,
        "aud": client_id,
        "iat": now,
        "exp": now + 120,
        "jti": uuid.uuid4().hex,
        "sub": sub,
        "events": {EVENT: {}},
    }
    if sid:
        claims["sid"] = sid
    draft = hostile.mutate(iam.signer.draft(claims, typ="logout+jwt"), mutations)
    secret = iam.config.clients[client_id].secret
    return iam.issued.add("logout_tokens", iam.signer.sign(draft, client_secret=secret))


async def send_logout(iam: Iam, client_id: str, token: str) -> dict[str, Any]:
    """POST a logout token to the client; its status, or why there was none. 5 s patience."""
    uri = iam.config.clients[client_id].backchannel_logout_uri
    request = HTTPRequest(
        uri,
        method="POST",
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        body=urlencode({"logout_token": token}),
        request_timeout=5,
        follow_redirects=False,
    )
    try:
        response = await AsyncHTTPClient().fetch(request, raise_error=False)
    except OSError as error:
        return {"client": client_id, "status": 0, "error": type(error).__name__}
    answer: dict[str, Any] = {"client": client_id, "status": response.code}
    if response.code == 599:
        answer |= {"status": 0, "error": type(response.error).__name__}
    elif response.body:
        answer["body"] = response.body[:2000].decode(errors="replace")
    return answer


async def tell_clients(
    iam: Iam,
    login: str,
    sid: str,
    *,
    mutations: str | Iterable[str] | None = None,
    times: int = 1,
) -> list[dict[str, Any]]:
    """Send every client that has a back-channel address the same logout token, ``times`` times."""
    user = iam.user(login)
    told: list[dict[str, Any]] = []
    for client_id, client in iam.config.clients.items():
        if user is not None and client.backchannel_logout_uri:
            token = logout_token(iam, client_id, sub=user.sub, sid=sid, mutations=mutations)
            told += [await send_logout(iam, client_id, token) for _ in range(times)]
    return told


class EndSession(LoginHandler):
    """``GET`` and ``POST /end_session``, where the configuration has it."""

    endpoint = "end_session"

    async def prepare(self) -> None:
        """Not found where switched off."""
        await super().prepare()
        if not self.iam.config.end_session:
            raise tornado.web.HTTPError(404)

    async def get(self) -> None:
        """Sign out at once with a good hint, else ask; go back only to a registered address."""
        hint = self.get_argument("id_token_hint", "")
        claims = self.iam.signer.read(hint) if hint else None
        client_id = self.get_argument("client_id", "") or str((claims or {}).get("aud", ""))
        client = self.iam.config.clients.get(client_id)
        target = self.get_argument("post_logout_redirect_uri", "")
        if hint and (claims is None or "sid" not in claims or claims.get("aud") != client_id):
            self.problem(
                "Cannot sign you out",
                "The application's proof of your login (id_token_hint) is not good.",
                "Close the browser, or sign out from the application again.",
            )
            return
        if target and (client is None or target not in client.post_logout_redirect_uris):
            self.problem(
                "Unregistered address",
                "The application wants you sent back to an address that is not registered for it "
                "(post_logout_redirect_uri, compared exactly).",
                "Its operator must add the address to post_logout_redirect_uris of this client.",
            )
            return
        if claims is None and not self._confirmed():
            self.page("logout.html", done=False, key=self.form_key())
            return
        await self._sign_out(claims)
        state = self.get_argument("state", "")
        if lie := self.iam.faults.hostile.get("end_session_state"):
            state = "not-the-state" if lie == "other" else ""
        if target:
            self.redirect(add_query(target, {"state": state} if state else {}), status=303)
        else:
            self.page("logout.html", done=True, key="")

    post = get

    def _confirmed(self) -> bool:
        return self.session() is None or (self.request.method == "POST" and self.form_is_ours())

    async def _sign_out(self, claims: dict[str, Any] | None) -> None:
        cookie = self.get_cookie(COOKIE)
        session = self.iam.session(cookie)
        found = self.iam.end_sessions_of_sid(claims["sid"]) if claims else None
        if cookie:
            self.iam.close_session(cookie)
            self.clear_cookie(COOKIE)
        login, sid = (session.user, session.sid) if session else (found or "", "")
        if claims and not sid:
            sid = claims["sid"]
        if login and self.iam.config.backchannel_logout:
            await tell_clients(self.iam, login, sid)

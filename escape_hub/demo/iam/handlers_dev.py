"""The control API below ``/dev/``: for tests and demonstrations.

Every request must carry ``X-Dev-Control: 1``: a page in a browser cannot send
that header to another origin, so no website can reach these switches.
"""

from __future__ import annotations

import json
import uuid
from typing import Any

import tornado.web

from escape_hub.demo.iam import faults, hostile
from escape_hub.demo.iam.base import Handler
from escape_hub.demo.iam.handlers_logout import tell_clients


class Control(Handler):
    """Base of the control API."""

    async def prepare(self) -> None:
        """Refuse whoever does not carry the header."""
        await super().prepare()
        if self.request.headers.get("X-Dev-Control") != "1":
            raise tornado.web.HTTPError(403)

    def body(self) -> dict[str, Any]:
        """The JSON object of the request; an empty body is an empty object."""
        try:
            value = json.loads(self.request.body or b"{}")
        except ValueError:
            value = None
        if not isinstance(value, dict):
            self.complain("the body must be a JSON object")
        return value  # type: ignore[no-any-return]

    def complain(self, text: str) -> None:
        """Stop with 400 and a text."""
        self.send_json({"error": text}, 400)
        raise tornado.web.Finish

    def user_of_body(self) -> tuple[str, dict[str, Any]]:
        """The ``user`` that the body names, and the body."""
        body = self.body()
        login = str(body.get("user", ""))
        if self.iam.user(login) is None:
            self.complain(f"user: there is no {login!r}")
        return login, body


class FaultsControl(Control):
    """``GET`` shows; ``PUT`` sets the given keys and all others to their start; ``PATCH`` adds.

    ``DELETE`` sets all to the start: no fault, and the settings of the configuration.
    """

    async def get(self) -> None:
        """The present faults and live settings."""
        self.send_json(self.iam.faults.to_json())

    async def put(self) -> None:
        """The given keys and nothing else; nothing changes when one of them is wrong."""
        self._set(faults.initial(self.iam.config))

    async def patch(self) -> None:
        """The given keys on top of the present ones."""
        self._set(self.iam.faults)

    def _set(self, base: faults.Faults) -> None:
        try:
            self.iam.faults = faults.merge(base, self.body())
        except (TypeError, ValueError) as error:
            self.complain(str(error))
        self.send_json(self.iam.faults.to_json())

    async def delete(self) -> None:
        """As at the start."""
        self.iam.faults = faults.initial(self.iam.config)
        await self.get()


class RotateKeys(Control):
    """``POST`` {keep_old: true}: a new signing key."""

    async def post(self) -> None:
        """Rotate; without the old key all its tokens are void at once."""
        self.iam.rotate_keys(keep_old=bool(self.body().get("keep_old", True)))
        self.send_json({"kid": self.iam.signer.active.kid})


class RevokeUser(Control):
    """``POST`` {user}: all tokens and browser sessions of the user end."""

    async def post(self) -> None:
        """Revoke."""
        login, _ = self.user_of_body()
        self.send_json({"ended": self.iam.revoke_user(login)})


class CountersControl(Control):
    """``GET dev/counters``."""

    async def get(self) -> None:
        """The counters."""
        self.send_json(self.iam.counters.to_json())


class ResetCounters(Control):
    """``POST dev/counters/reset``."""

    async def post(self) -> None:
        """Start again from nothing."""
        self.iam.counters.reset()
        self.send_json({})


class IssuedControl(Control):
    """``GET dev/issued``: every secret issued or seen since the start of this process."""

    async def get(self) -> None:
        """The secrets by kind."""
        self.send_json(self.iam.issued.to_json())


class Mint(Control):
    """``POST`` {user, client?, scope?}: a token reply without a browser, to prepare benchmarks."""

    async def post(self) -> None:
        """The members of a token reply, as if the user had logged in now."""
        login, body = self.user_of_body()
        client_id = str(body.get("client") or next(iter(self.iam.config.clients)))
        if client_id not in self.iam.config.clients:
            self.complain("client: unknown")
        scope = str(body.get("scope", "openid profile email offline_access")).split()
        now = self.iam.now()
        grant = self.iam.new_grant(
            user=login, client=client_id, scope=scope, sid=uuid.uuid4().hex, at=int(now)
        )
        token, lifetime = self.iam.access_token(grant, scope)
        reply: dict[str, Any] = {
            "access_token": token,
            "token_type": "Bearer",
            "expires_in": lifetime,
            "scope": " ".join(scope),
            "id_token": self.iam.id_token(grant, nonce=str(body.get("nonce", ""))),
        }
        if "offline_access" in scope:
            reply["refresh_token"] = self.iam.new_refresh_token(grant)
        self.iam.state.save()
        self.send_json(reply)


class BackchannelLogout(Control):
    """``POST`` {user, sid?, hostile?, times?}: send logout tokens, hostile ones where wished.

    ``sid``: true (default) sends that of the user's newest session, false none,
    a string that very one. ``hostile``: name or names of `hostile.TOKEN_MUTATIONS`.
    """

    async def post(self) -> None:
        """Send, and say how each client answered."""
        login, body = self.user_of_body()
        names = body.get("hostile") or []
        names = [names] if isinstance(names, str) else names
        if unknown := [n for n in names if n not in hostile.TOKEN_MUTATIONS]:
            self.complain(f"hostile: unknown {unknown}")
        sid = body.get("sid", True)
        if sid is True:
            sid = self.iam.newest_sid(login)
        times = body.get("times", 1)
        if not isinstance(times, int) or not 1 <= times <= 100:
            self.complain("times: must be a whole number from 1 to 100")
        told = await tell_clients(self.iam, login, sid or "", mutations=names, times=times)
        self.send_json({"told": told})


CONTROL = [
    ("faults", FaultsControl),
    ("rotate_keys", RotateKeys),
    ("revoke_user", RevokeUser),
    ("counters", CountersControl),
    ("counters/reset", ResetCounters),
    ("issued", IssuedControl),
    ("mint", Mint),
    ("backchannel_logout", BackchannelLogout),
]

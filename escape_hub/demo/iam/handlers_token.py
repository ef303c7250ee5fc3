"""Token endpoint, introspection (RFC 7662) and revocation (RFC 7009)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from escape_hub.demo.iam import hostile
from escape_hub.demo.iam.base import Handler
from escape_hub.demo.iam.dialects import OAuthError
from escape_hub.demo.iam.grants import GRANTS, Reply, authenticate, grant_user


class Token(Handler):
    """``POST /token`` (RFC 6749 section 3.2), with the faults of the control API."""

    endpoint = "token"

    async def post(self) -> None:
        """Count, delay, fail as told, and process the grant."""
        try:
            form = self.form()
        except OAuthError as error:
            self.iam.counters.outcome("unreadable", "", error.error)
            self.send_error_json(error)
            return
        kind = form.get("grant_type", "")
        name = GRANTS[kind][0] if kind in GRANTS else "unknown"
        user = grant_user(self.iam, form)
        with self.iam.counters.running(name, user):
            outcome = await self._answer(name, form)
        self.iam.counters.outcome(name, user, outcome)

    async def _answer(self, name: str, form: Mapping[str, str]) -> str:
        """Answer one request; the outcome for the counters."""
        if self.iam.faults.delay:
            await asyncio.sleep(self.iam.faults.delay)
        fault = self.iam.strike("token", name)
        if fault is not None and fault.mode != "lost_reply":
            await self.suffer(fault)
            return f"fault:{fault.mode}"
        try:
            reply = self._grant(form)
        except OAuthError as error:
            outcome = error.error
            if fault is None:
                self.send_error_json(error)
        else:
            outcome = "ok" if fault is None else "lost_reply"
            if fault is None:
                self.set_header("Pragma", "no-cache")
                self.send_json(
                    hostile.mutate_reply(reply, self.iam.faults.hostile.get("token_reply"))
                )
        if fault is not None:
            self.drop()
        return outcome

    def _grant(self, form: Mapping[str, str]) -> Reply:
        client_id, secret = self.credentials(form)
        client = authenticate(self.iam, client_id, secret)
        kind = form.get("grant_type", "")
        if not kind:
            raise OAuthError(400, "invalid_request", "Missing parameter: grant_type")
        if kind not in GRANTS:
            raise OAuthError(400, "unsupported_grant_type", f"Unsupported grant type: {kind}")
        name, grant = GRANTS[kind]
        if name not in client.grants:
            # INDIGO IAM 1.12 says invalid_client here, where RFC 6749 has unauthorized_client.
            raise OAuthError(401, "invalid_client", f"Unauthorized grant type: {kind}")
        return grant(self.iam, client_id, form)


class _ClientEndpoint(Handler):
    """An endpoint for authenticated clients that takes a ``token``."""

    def token_of_client(self) -> tuple[str, str]:
        """The token in question and the client's id."""
        form = self.form()
        client_id, secret = self.credentials(form)
        authenticate(self.iam, client_id, secret)
        if not form.get("token"):
            raise OAuthError(400, "invalid_request", "Missing parameter: token")
        return form["token"], client_id


class Introspect(_ClientEndpoint):
    """``POST /introspect``."""

    endpoint = "introspect"

    async def post(self) -> None:
        """Say whether the token lives, and what it is good for."""
        try:
            token, _ = self.token_of_client()
        except OAuthError as error:
            self.send_error_json(error)
            return
        if found := self.iam.living(token):
            claims, _, user = found
            extra = {"active": True, "username": user.login, "token_type": "Bearer"}
            self.send_json(claims | self.iam.person_claims(user, claims["scope"].split()) | extra)
            return
        refresh = self.iam.state.grant_of_refresh(token)
        if refresh and not refresh[1] and refresh[0].refresh_expires_at > self.iam.now():
            grant = refresh[0]
            self.send_json(
                {
                    "active": True,
                    "client_id": grant.client,
                    "scope": " ".join(grant.scope),
                    "exp": int(grant.refresh_expires_at),
                    "username": grant.user,
                }
            )
            return
        self.send_json({"active": False})


class Revoke(_ClientEndpoint):
    """``POST /revoke``: a refresh token takes its whole grant along, an access token only itself.

    Keycloak 26 and MITREid do so, and RFC 7009 section 2.1 asks for it.
    """

    endpoint = "revoke"

    async def post(self) -> None:
        """Revoke; an unknown token is no error (section 2.2)."""
        try:
            token, client_id = self.token_of_client()
        except OAuthError as error:
            self.send_error_json(error)
            return
        refresh = self.iam.state.grant_of_refresh(token)
        if refresh is not None and refresh[0].client == client_id:
            self.iam.end_grant(refresh[0].id)
        elif (found := self.iam.living(token)) and found[0]["client_id"] == client_id:
            self.iam.state.revoked[found[0]["jti"]] = found[0]["exp"]
            self.iam.state.save()
        self.set_status(200)
        self.finish()

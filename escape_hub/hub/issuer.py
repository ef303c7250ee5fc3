"""The one client of the identity service. See `escape_hub.settings.IssuerSettings`.

Nothing but `escape_hub.errors` comes out of it, and no secret goes into an error or a
log. It starts while the issuer is down: the metadata is fetched when first needed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from escape_hub.core import exchange, oidc
from escape_hub.core.audiences import Audience
from escape_hub.core.exchange import TokenReply
from escape_hub.core.keys import Key, parse_key_set, read_header, signed_claims
from escape_hub.core.oidc import Metadata
from escape_hub.core.refusals import Grant, classify_refusal
from escape_hub.core.tokens import AccessToken
from escape_hub.core.urls import discovery_url, with_query
from escape_hub.errors import (
    InvalidTokenError,
    IssuerError,
    IssuerMisconfiguredError,
    IssuerUnavailableError,
    SettingsError,
)
from escape_hub.hub.cached import Cached
from escape_hub.hub.issuer_http import IssuerHttp, Reply
from escape_hub.hub.jwks import Budget, KeySource
from escape_hub.settings import IssuerSettings

if TYPE_CHECKING:
    from escape_hub.clock import Clock

#: Seconds after which the metadata is fetched again, behind the old one.
METADATA_TTL = 3600.0
#: Seconds for which a failed discovery answers for the issuer.
DISCOVERY_PATIENCE = 5.0

_FOREVER = float("inf")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What was asked, for whoever has to explain a refusal. ``secrets`` were sent with it."""

    grant: Grant
    secrets: tuple[str, ...] = field(repr=False)
    audience: str = ""
    subject_fresh: bool = True


class Issuer:
    """Everything the hub asks of the identity service; one for the hub's whole life."""

    def __init__(self, settings: IssuerSettings, *, clock: Clock) -> None:
        self.settings = settings
        self._clock = clock
        self._http = IssuerHttp(settings, clock)
        self._metadata = Cached(
            "discovery",
            self._discover,
            clock,
            soft=METADATA_TTL,
            hard=_FOREVER,
            patience=DISCOVERY_PATIENCE,
        )
        self._keys = KeySource(self._fetch_keys, clock)

    async def aclose(self) -> None:
        """End what is under way and close every connection."""
        await self._metadata.aclose()
        await self._keys.aclose()
        await self._http.aclose()

    async def metadata(self) -> Metadata:
        """The issuer's metadata, from the cache when it is there."""
        return await self._metadata.get()

    # --- the browser's way -------------------------------------------------------------

    async def authorization_url(
        self,
        redirect_uri: str,
        scope: str | Iterable[str],
        state: str,
        nonce: str,
        code_challenge: str,
        extra: Mapping[str, str] | None = None,
    ) -> str:
        """Where to send the browser (OpenID Connect Core 1.0 section 3.1.2.1, RFC 7636).

        ``code_challenge`` is `escape_hub.core.oidc.code_challenge` of the verifier.
        ``extra`` parameters may not replace ours.
        """
        query = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": redirect_uri,
            "scope": scope if isinstance(scope, str) else " ".join(scope),
            "state": state,
            "nonce": nonce,
            "code_challenge": code_challenge,
            "code_challenge_method": "S256",
        }
        if taken := sorted(set(query) & set(extra or {})):
            raise SettingsError(
                f"the authorization parameter {taken[0]!r} is set by the hub itself: take it out"
            )
        endpoint = (await self.metadata()).authorization_endpoint
        return with_query(endpoint, {**query, **(extra or {})})

    async def end_session_url(
        self,
        id_token_hint: str | None,
        post_logout_redirect_uri: str | None = None,
        state: str | None = None,
    ) -> str | None:
        """Where to send the browser to log out at the issuer too; None where it has no such.

        OpenID Connect RP-Initiated Logout 1.0 section 2.
        """
        if (url := (await self.metadata()).end_session_endpoint) is None:
            return None
        query = {
            "id_token_hint": id_token_hint,
            "client_id": self.settings.client_id,
            "post_logout_redirect_uri": post_logout_redirect_uri,
            "state": state,
        }
        return with_query(url, {name: value for name, value in query.items() if value})

    # --- the token endpoint ------------------------------------------------------------

    async def redeem_code(self, code: str, redirect_uri: str, code_verifier: str) -> TokenReply:
        """Trade an authorization code for tokens (RFC 6749 section 4.1.3)."""
        form = exchange.code_request(code, redirect_uri, code_verifier)
        reply, now = await self._token_call(
            form, _Asked("authorization_code", (code, code_verifier))
        )
        return exchange.parse_token_reply(reply.body, now=now)

    async def refresh(self, refresh_token: str) -> TokenReply:
        """Spend a refresh token (RFC 6749 section 6). **Only the broker may call this.**

        `IssuerUnavailableError` with ``maybe_processed``: the token may be spent.
        `LoginRequiredError` with ``confirm``: ask once more before believing it.
        """
        reply, now = await self._token_call(
            exchange.refresh_request(refresh_token), _Asked("refresh_token", (refresh_token,))
        )
        return exchange.parse_token_reply(reply.body, now=now)

    async def exchange(
        self, subject_token: str, audience: Audience, *, subject_fresh: bool = True
    ) -> AccessToken:
        """An access token for one audience (RFC 8693).

        ``subject_fresh``: the subject token was got just before, so that its refusal is
        about the audience. Never raises `LoginRequiredError`: only a refresh can tell.
        """
        reply, now = await self._token_call(
            exchange.exchange_request(subject_token, audience),
            _Asked("token-exchange", (subject_token,), audience.name, subject_fresh),
        )
        return exchange.parse_exchange_reply(
            reply.body,
            now=now,
            audience=audience,
            issuer=(await self.metadata()).token_issuer,
            skew=self.settings.clock_skew,
        )

    async def revoke(self, token: str, hint: str = "refresh_token") -> bool:
        """Revoke a token (RFC 7009); False where the issuer has no such endpoint."""
        if (url := (await self.metadata()).revocation_endpoint) is None:
            return False
        form = {"token": token, "token_type_hint": hint}
        await self._client_call(url, form, _Asked("revocation", (token,)))
        return True

    # --- what the issuer says of a person ----------------------------------------------

    async def userinfo(self, access_token: str, *, subject: str | None = None) -> dict[str, Any]:
        """The claims of userinfo; ``sub`` must be ``subject`` where that is given."""
        if (url := (await self.metadata()).userinfo_endpoint) is None:
            raise IssuerMisconfiguredError(
                "the identity service has no userinfo endpoint", code="userinfo-missing"
            )
        reply = await self._http.get(url, bearer=access_token)
        if reply.status != 200:
            raise self._refusal(reply, _Asked("userinfo", (access_token,)))
        if not isinstance(claims := reply.json(), dict):
            raise IssuerUnavailableError(
                "the identity service's userinfo is no JSON object", code="userinfo-garbage"
            )
        return oidc.check_userinfo(claims, subject)

    async def verify_id_token(
        self,
        token: str,
        *,
        nonce: str | None,
        audience: str | None = None,
        same_as: tuple[str, str] | None = None,
    ) -> dict[str, Any]:
        """The claims of a good id_token; see `escape_hub.core.oidc.check_id_token`.

        ``nonce`` None and ``same_as`` (issuer, subject) are for one that came with a refresh.
        """
        claims = await self._signed(token, "id-token", {"jwt"}, "token_endpoint")
        oidc.check_id_token(
            claims,
            issuer=(await self.metadata()).token_issuer,
            client_id=audience or self.settings.client_id,
            nonce=nonce,
            now=self._clock.now(),
            skew=self.settings.clock_skew,
            same_as=same_as,
        )
        return claims

    async def verify_logout_token(self, token: str) -> dict[str, Any]:
        """The claims of a good logout_token; its ``jti`` is still to be checked for a replay.

        A stranger may have posted it: it costs at most one fetch of keys a minute.
        """
        claims = await self._signed(token, "logout-token", {"logout+jwt", "jwt"}, "back_channel")
        oidc.check_logout_token(
            claims,
            issuer=(await self.metadata()).token_issuer,
            client_id=self.settings.client_id,
            now=self._clock.now(),
            skew=self.settings.clock_skew,
        )
        return claims

    async def _signed(
        self, token: str, kind: str, types: set[str], budget: Budget
    ) -> dict[str, Any]:
        header = read_header(
            token, kind=kind, types=types, algorithms=self.settings.signing_algorithms
        )
        key = await self._keys.key(header, budget)
        try:
            return signed_claims(token, header, key, kind=kind)
        except InvalidTokenError as error:
            # Without a key id, or with one used again, a new key is only seen by trying.
            if error.code != f"{kind}-signature":
                raise
            renewed = await self._keys.refetched(header, budget)
            if renewed is None or renewed == key:
                raise
        return signed_claims(token, header, renewed, kind=kind)

    # --- calls -------------------------------------------------------------------------

    async def _token_call(self, form: Mapping[str, str], asked: _Asked) -> tuple[Reply, float]:
        """A good reply, and when it was asked for: a token cannot be older than that."""
        url = (await self.metadata()).token_endpoint
        now = self._clock.now()
        return await self._client_call(url, form, asked), now

    async def _client_call(self, url: str, form: Mapping[str, str], asked: _Asked) -> Reply:
        client_id, secret = self.settings.client_id, self.settings.client_secret
        headers: dict[str, str] = {}
        if self.settings.client_auth == "client_secret_basic":
            headers["Authorization"] = exchange.basic_credentials(client_id, secret)
        else:
            form = {**form, "client_id": client_id, "client_secret": secret}
        reply = await self._http.post(url, form, headers)
        if reply.status != 200:
            raise self._refusal(reply, asked)
        return reply

    def _refusal(self, reply: Reply, asked: _Asked) -> IssuerError:
        return classify_refusal(
            reply.status,
            reply.body,
            grant=asked.grant,
            audience=asked.audience,
            subject_fresh=asked.subject_fresh,
            retry_after=reply.retry_after,
            secrets=(*asked.secrets, self.settings.client_secret),
        )

    async def _discover(self) -> Metadata:
        reply = await self._http.get(discovery_url(self.settings.issuer))
        if reply.status != 200:
            raise self._not_there(reply, "metadata")
        return oidc.parse_metadata(
            reply.json(),
            issuer=self.settings.issuer,
            expected_issuer=self.settings.expected_issuer,
        )

    async def _fetch_keys(self) -> tuple[Key, ...]:
        reply = await self._http.get((await self.metadata()).jwks_uri)
        if reply.status != 200:
            raise self._not_there(reply, "keys")
        return parse_key_set(reply.json())

    def _not_there(self, reply: Reply, what: str) -> IssuerUnavailableError:
        return IssuerUnavailableError(
            f"the identity service does not give its {what} (HTTP {reply.status})",
            code="discovery-failed" if what == "metadata" else "jwks-failed",
            retry_after=reply.retry_after,
        )

"""The three grants of the token endpoint. Nothing here awaits, so each grant is atomic.

Each function takes the service, the authenticated client and the form, and
gives the members of the answer, or raises `OAuthError`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Callable, Mapping
from typing import Any

from escape_hub.demo.iam.config import ClientConfig
from escape_hub.demo.iam.dialects import OAuthError, aup_unsigned
from escape_hub.demo.iam.service import Iam
from escape_hub.demo.iam.state import Grant, digest

EXCHANGE = "urn:ietf:params:oauth:grant-type:token-exchange"
_TOKEN_TYPE = "urn:ietf:params:oauth:token-type:"  # noqa: S105
_ACCEPTED_TYPES = (f"{_TOKEN_TYPE}access_token", f"{_TOKEN_TYPE}jwt")

Form = Mapping[str, str]
Reply = dict[str, Any]


def _required(form: Form, name: str) -> str:
    value = form.get(name, "")
    if not value:
        raise OAuthError(400, "invalid_request", f"Missing parameter: {name}")
    return value


def s256(verifier: str) -> str:
    """The challenge of a verifier (RFC 7636 section 4.2)."""
    hashed = hashlib.sha256(verifier.encode()).digest()
    return base64.urlsafe_b64encode(hashed).rstrip(b"=").decode()


def check_standing(iam: Iam, login: str) -> None:
    """Refuse a user who is suspended, gone, or has not signed the acceptable use policy."""
    if login in iam.faults.suspended or iam.user(login) is None:
        raise iam.dialect.suspended.fill(user=login)
    if login in iam.faults.aup_unsigned:
        raise aup_unsigned(login)


def _reply(iam: Iam, grant: Grant, scope: list[str], audience: str = "") -> Reply:
    token, lifetime = iam.access_token(grant, scope, audience=audience)
    return {
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": lifetime,
        "scope": " ".join(scope),
    }


def redeem_code(iam: Iam, client_id: str, form: Form) -> Reply:
    """Authorization code for tokens (RFC 6749 section 4.1.3, RFC 7636 section 4.5)."""
    value = _required(form, "code")
    verifier = _required(form, "code_verifier")
    iam.issued.add("code_verifiers", verifier)
    code = iam.codes.get(digest(value))
    if code is not None and code.grant_id:
        # A replayed code was stolen by one of the two who hold it (RFC 6749 section 10.5).
        iam.end_grant(code.grant_id)
        code = None
    if code is None or code.tried or code.expires_at <= iam.now() or code.client != client_id:
        raise OAuthError(400, "invalid_grant", "Invalid authorization code")
    # Spent by the attempt, even a bad one: INDIGO IAM consumes it before it looks further.
    code.tried = True
    if form.get("redirect_uri") != code.redirect_uri:
        raise OAuthError(400, "invalid_grant", "Redirect URI mismatch.")
    if not hmac.compare_digest(s256(verifier), code.challenge):
        raise OAuthError(400, "invalid_grant", "Code challenge and verifier do not match")
    check_standing(iam, code.user)
    grant = iam.new_grant(
        user=code.user, client=client_id, scope=code.scope, sid=code.sid, at=code.auth_time
    )
    code.grant_id = grant.id
    reply = _reply(iam, grant, code.scope)
    if "offline_access" in code.scope:
        reply["refresh_token"] = iam.new_refresh_token(grant)
    if "openid" in code.scope:
        reply["id_token"] = iam.id_token(grant, nonce=code.nonce)
    iam.state.prune(iam.now())
    iam.state.save()
    return reply


def refresh(iam: Iam, client_id: str, form: Form) -> Reply:
    """Refresh token for a new access token (RFC 6749 section 6); ``audience`` as INDIGO IAM has it.

    A refused user or policy leaves the refresh token as it was.
    """
    token = _required(form, "refresh_token")
    found = iam.state.grant_of_refresh(token)
    if found is None or found[0].client != client_id:
        raise iam.dialect.dead_refresh.fill(token=token)
    grant, spent = found
    if spent:
        if iam.faults.refresh_reuse == "kill_family":
            iam.end_grant(grant.id)
        raise iam.dialect.reused_refresh.fill(token=token)
    if grant.refresh_expires_at <= iam.now():
        raise iam.dialect.dead_refresh.fill(token=token)
    check_standing(iam, grant.user)
    audience = _checked_audience(iam, form.get("audience", ""))
    scope = form.get("scope", "").split() or grant.scope
    if beyond := sorted(set(scope) - set(grant.scope)):
        raise OAuthError(400, "invalid_scope", f"Up-scoping is not allowed: {' '.join(beyond)}")
    reply = _reply(iam, grant, scope, audience)
    # RFC 6749 section 6 lets a service return the same one; INDIGO IAM does.
    reply["refresh_token"] = token
    if iam.faults.refresh_rotation:
        reply["refresh_token"] = iam.new_refresh_token(grant)
        iam.state.save()
    if "openid" in scope and (id_token := iam.id_token(grant, nonce="", refreshed=True)):
        reply["id_token"] = id_token
    return reply


def _checked_audience(iam: Iam, audience: str) -> str:
    known = iam.config.audiences
    refused = audience in iam.faults.refuse_audience
    if audience and (refused or (known is not None and audience not in known)):
        if error := iam.faults.refuse_audience_error:
            raise OAuthError(403 if error == "access_denied" else 400, error, "Audience refused")
        raise iam.dialect.refused_audience.fill()
    return audience


def exchange(iam: Iam, client_id: str, form: Form) -> Reply:
    """Token exchange (RFC 8693) by INDIGO IAM's rules: explicit scope, no offline access."""
    if "actor_token" in form or "want_composite" in form:
        raise OAuthError(400, "invalid_request", "Delegation not supported")
    subject = _required(form, "subject_token")
    if _required(form, "subject_token_type") not in _ACCEPTED_TYPES:
        raise OAuthError(400, "invalid_request", "Unsupported subject_token_type")
    wanted = form.get("requested_token_type")
    if wanted is not None and wanted not in _ACCEPTED_TYPES:
        raise OAuthError(400, "invalid_request", "Unsupported requested_token_type")
    scope = _required(form, "scope").split()
    found = iam.living(subject)
    if found is None:
        raise _dead_subject(iam, subject)
    claims, grant, user = found
    check_standing(iam, user.login)
    if "offline_access" in scope:
        text = "Token exchange not allowed: same client and offline_access requested"
        raise OAuthError(403, "access_denied", text)
    if unknown := sorted(set(scope) - set(iam.config.clients[client_id].scopes)):
        raise OAuthError(400, "invalid_scope", f"Scope not allowed: {' '.join(unknown)}")
    audience = _checked_audience(iam, form.get("audience", ""))
    act: dict[str, Any] = {"sub": client_id}
    if "act" in claims:
        act["act"] = claims["act"]
    token, lifetime = iam.access_token(grant, scope, client=client_id, audience=audience, act=act)
    return {
        "access_token": token,
        "token_type": "Bearer",
        "issued_token_type": iam.dialect.issued_token_type,
        "expires_in": lifetime,
        "scope": " ".join(scope),
    }


def _dead_subject(iam: Iam, subject: str) -> OAuthError:
    """A suspended user's token is dead as well, but INDIGO IAM's refusal says why."""
    grant = _grant_of_access_token(iam, subject)
    if grant is not None and grant.user in iam.faults.suspended:
        return iam.dialect.suspended_subject.fill(user=grant.user)
    return iam.dialect.dead_subject.fill(token=subject)


def _grant_of_access_token(iam: Iam, token: str) -> Grant | None:
    claims = iam.signer.read(token) or {}
    return iam.state.grants.get(str(claims.get("jti", "")).partition(".")[0])


#: ``grant_type`` -> the short name used in faults and counters, and the function.
GRANTS: dict[str, tuple[str, Callable[[Iam, str, Form], Reply]]] = {
    "authorization_code": ("authorization_code", redeem_code),
    "refresh_token": ("refresh_token", refresh),
    EXCHANGE: ("token-exchange", exchange),
}


def grant_user(iam: Iam, form: Form) -> str:
    """Whose request this is, as far as its secret tells; empty when unknown."""
    if token := form.get("refresh_token"):
        found = iam.state.grant_of_refresh(token)
        return found[0].user if found else ""
    if subject := form.get("subject_token"):
        grant = _grant_of_access_token(iam, subject)
        return grant.user if grant else ""
    code = iam.codes.get(digest(form.get("code", "")))
    return code.user if code else ""


def authenticate(iam: Iam, client_id: str, secret: str) -> ClientConfig:
    """The client of these credentials; refusals in the dialect's words."""
    client = iam.config.clients.get(client_id)
    if iam.faults.invalid_client:
        raise OAuthError(401, "invalid_client", "Invalid client credentials")
    if client is None:
        raise iam.dialect.unknown_client.fill(client=client_id)
    if not hmac.compare_digest(client.secret.encode(), secret.encode()):
        raise iam.dialect.bad_secret.fill(client=client_id)
    return client

"""Everything that parses what others send, each as a function of bytes, with good examples.

A target raises only errors of ours, and asserts what must hold of what it lets through.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode, urlsplit

from tornado.httputil import HTTPHeaders, HTTPInputError, HTTPServerRequest, RequestStartLine

from escape_hub.core import exchange, oidc, refusals
from escape_hub.core.audiences import Audience
from escape_hub.core.auth_state import AuthState
from escape_hub.core.authorization import AccessRules, Person, claim_values, require_allowed
from escape_hub.core.keys import parse_key_set, read_header, select_key, signed_claims
from escape_hub.core.replay import ReplayCache
from escape_hub.core.scrub import scrub
from escape_hub.hub.identity import hub_username
from escape_hub.hub.issuer_http import MAX_REPLY, Reply, _retry_after
from escape_hub.hub.login import EscapeCallbackHandler, _refused_by_issuer
from escape_hub.hub.login_flight import local_path
from escape_hub.session.hub_reply import read_reply
from tests.fakes.signing import CLIENT, ISSUER, NOW, assembled, claims, ec_key, jwk, rsa_key, signed

ALGORITHMS = ("RS256", "ES256")
RUCIO = Audience("rucio", "rucio", "openid profile", "rucio.token")
SECRET = "s3cr3t-of-the-client-0123456789"
KEYS = {"keys": [jwk(rsa_key(), "k1"), jwk(ec_key(), "e1")]}
TRUSTED = parse_key_set(KEYS)


@dataclass(frozen=True)
class Target:
    """``share``: how many examples it gets, as against the others."""

    name: str
    run: Callable[[bytes], object]
    seeds: list[bytes]
    share: float = 1.0


def dumped(*documents: Any) -> list[bytes]:
    return [json.dumps(document).encode() for document in documents]


# -- discovery and keys ----------------------------------------------------------------

METADATA = {
    "issuer": ISSUER,
    "authorization_endpoint": f"{ISSUER}authorize",
    "token_endpoint": f"{ISSUER}token",
    "jwks_uri": f"{ISSUER}jwk",
    "userinfo_endpoint": f"{ISSUER}userinfo",
    "revocation_endpoint": f"{ISSUER}revoke",
    "end_session_endpoint": f"{ISSUER}end",
    "authorization_response_iss_parameter_supported": True,
}


def read(raw: bytes) -> Any:
    """A body as the hub reads it: what is too long is none."""
    return Reply(200, raw).json() if len(raw) <= MAX_REPLY else None


def metadata(raw: bytes) -> None:
    found = oidc.parse_metadata(read(raw), issuer=ISSUER, expected_issuer=None)
    assert found.issuer == ISSUER
    for url in (found.token_endpoint, found.jwks_uri, found.authorization_endpoint):
        assert urlsplit(url).scheme == "https" or urlsplit(url).hostname in ("127.0.0.1", "::1")
    oidc.check_callback_iss(found, raw.decode("latin-1")[:100])


def key_set(raw: bytes) -> None:
    token = signed(kid="k1")
    header = read_header(token, kind="id-token", types={"jwt"}, algorithms=ALGORITHMS)
    if (key := select_key(parse_key_set(read(raw)), header)) is not None:
        signed_claims(token, header, key, kind="id-token")


# -- tokens ----------------------------------------------------------------------------

GOOD_TOKENS = [
    signed(),
    signed(kid="e1", key=ec_key(), alg="ES256"),
    assembled({"alg": "none", "kid": "k1"}, claims()),
    assembled({"alg": "RS256", "kid": "k1", "jwk": KEYS["keys"][0]}, claims(), b"x" * 256),
]
_SIGNED_PARTS = {token.rpartition(".")[0] for token in GOOD_TOKENS[:2]}


def _verified(token: str, kind: str, types: set[str]) -> dict[str, Any]:
    header = read_header(token, kind=kind, types=types, algorithms=ALGORITHMS)
    key = select_key(TRUSTED, header)
    return signed_claims(token, header, key, kind=kind) if key else {}


def token(raw: bytes) -> None:
    text = raw.decode("utf-8", "replace")
    if _verified(text, "id-token", {"jwt"}):
        assert text.rpartition(".")[0] in _SIGNED_PARTS, "a changed token passed for a good one"


def header(raw: bytes) -> None:
    """A header that the issuer did not write, over claims and a signature that are good."""
    _, content, signature = GOOD_TOKENS[1].split(".")
    made = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    token(f"{made}.{content}.{signature}".encode())


def id_token(raw: bytes) -> None:
    document = read(raw)
    if isinstance(document, dict):
        for nonce, same_as in (("n-1", None), (None, (ISSUER, "alice-sub"))):
            oidc.check_id_token(
                document, issuer=ISSUER, client_id=CLIENT, nonce=nonce, now=NOW, skew=60.0,
                same_as=same_as,
            )  # fmt: skip
        assert document["iss"] == ISSUER and document["nonce"] == "n-1"


LOGOUT = {
    **claims(nonce=None),
    "jti": "j-1",
    "sid": "s-1",
    "exp": NOW + 120,
    "events": {oidc.LOGOUT_EVENT: {}},
}
_REPLAYS = ReplayCache(limit=100)


def logout_token(raw: bytes) -> None:
    document = read(raw)
    if isinstance(document, dict):
        oidc.check_logout_token(document, issuer=ISSUER, client_id=CLIENT, now=NOW, skew=60.0)
        _REPLAYS.is_new(document["jti"], now=NOW, valid_until=NOW + 600)
        assert len(_REPLAYS) <= 100


# -- the token endpoint ----------------------------------------------------------------

REPLY = {
    "access_token": signed(key=ec_key(), alg="ES256"),
    "token_type": "Bearer",
    "expires_in": 3600,
    "refresh_token": "r" * 40,
    "id_token": GOOD_TOKENS[1],
    "scope": "openid profile offline_access",
}


def _assert_token(token: Any) -> None:
    assert 0 < token.lifetime <= exchange.LONGEST_LIFETIME
    assert token.value.isascii() and "\n" not in token.value and token.value


def token_reply(raw: bytes) -> None:
    if len(raw) <= MAX_REPLY:
        found = exchange.parse_token_reply(raw, now=NOW)
        _assert_token(found.access_token)
        assert all(isinstance(scope, str) and scope for scope in found.scope)


def exchanged(**changed: Any) -> dict[str, Any]:
    content = {**claims(aud="rucio", nonce=None), **changed}
    return {
        "access_token": assembled({"alg": "RS256"}, content, b"x" * 64),
        "issued_token_type": exchange.TYPE_ACCESS_TOKEN,
        "token_type": "Bearer",
        "expires_in": 3600,
    }


def exchange_reply(raw: bytes) -> None:
    if len(raw) <= MAX_REPLY:
        found = exchange.parse_exchange_reply(
            raw, now=NOW, audience=RUCIO, issuer=ISSUER, skew=60.0
        )
        assert found.value.isascii() and found.expires_at >= NOW


def exchanged_claims(raw: bytes) -> None:
    """The content of an exchanged JWT, in an envelope that is good."""
    made = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    exchange_reply(json.dumps({**exchanged(), "access_token": f"eyJ9.{made}.xx"}).encode())
    head = base64.urlsafe_b64encode(b'{"alg":"RS256"}').rstrip(b"=").decode()
    exchange_reply(json.dumps({**exchanged(), "access_token": f"{head}.{made}.xx"}).encode())


ERRORS: list[Any] = [
    {"error": "invalid_grant", "error_description": "Token is not active"},
    {"error": "invalid_grant", "error_description": "User alice needs to sign AUP"},
    {"error": "invalid_token", "error_description": f"Invalid refresh token: {REPLY['id_token']}"},
    {"error": "unauthorized", "error_description": f"bad {SECRET}"},
    {"error": "invalid_request", "error_description": "Invalid token"},
]
_GRANTS = ("authorization_code", "refresh_token", "token-exchange", "userinfo", "revocation")


def error_body(raw: bytes) -> None:
    if len(raw) > MAX_REPLY:
        return
    found = refusals.classify_refusal(
        400 + len(raw) % 4,
        raw,
        grant=_GRANTS[sum(raw[-40:]) % len(_GRANTS)],
        audience="rucio",
        subject_fresh=bool(len(raw) % 2),
        secrets=(SECRET, REPLY["id_token"]),
    )
    said = f"{found.message} {found.oauth_error}"
    assert SECRET not in said and REPLY["id_token"] not in said
    assert said.isprintable() and len(said) < 2000


def words(raw: bytes) -> None:
    found = scrub(raw.decode("utf-8", "replace"), (SECRET,))
    assert SECRET not in found and found.isprintable() and len(found) <= 300


def retry_after(raw: bytes) -> None:
    wait = _retry_after(raw.decode("latin-1"), NOW)
    assert wait is None or wait >= 0


# -- claims ----------------------------------------------------------------------------

CLAIMS = {
    "sub": "alice-sub",
    "preferred_username": "alice",
    "groups": ["escape", "/escape/cms"],
    "wlcg.groups": ["/escape"],
    "roles": "user",
    "resource_access": {"hub": {"roles": ["admin", "user"]}},
    "email": "alice@example.org",
}
_PATHS = ("groups", "wlcg.groups", "roles", "resource_access.hub.roles", "email", "")
_RULES = AccessRules(allowed_groups=frozenset({"escape"}), admin_roles=frozenset({"admin"}))
_NAMING: Any = SimpleNamespace(
    username_claim="preferred_username",
    contact="somebody",
    normalize_username=str.lower,
    validate_username=bool,
)


def person(raw: bytes) -> None:
    """Userinfo, the name, groups and roles, and whether they let anybody in."""
    found = oidc.check_userinfo(read(raw), "alice-sub")
    groups = [claim_values(found, path) for path in _PATHS]
    for name in frozenset().union(*groups):
        name.encode()  # what no database can hold is no group
        assert "\x00" not in name and 0 < len(name) <= 255
    name = hub_username(_NAMING, found)
    name.encode()
    assert "/" not in name and name.isprintable()
    require_allowed(_RULES, Person(name, groups=groups[0], roles=groups[3]))


STATE = AuthState(
    "https://iam.example.org/", "alice-sub", generation=3, refresh_token="r"
).to_dict()


def stored_state(raw: bytes) -> None:
    """What another authenticator, or a later version, left in the hub's database."""
    state = AuthState.from_dict(read(raw))
    assert isinstance(state.generation, int)
    state.to_dict()


# -- the browser -----------------------------------------------------------------------

QUERY = {"code": "c-1", "state": "s" * 43, "iss": ISSUER, "error": "access_denied"}
_METADATA = oidc.parse_metadata(METADATA, issuer=ISSUER, expected_issuer=None)


def callback(raw: bytes) -> None:
    """Everything behind the question mark of the callback address."""
    try:
        line = RequestStartLine("GET", f"/hub/x?{raw.decode('latin-1')}", "HTTP/1.1")
        request = HTTPServerRequest(start_line=line, headers=HTTPHeaders({"Host": "hub"}))
    except HTTPInputError:
        return  # tornado answers 400 by itself
    handler: Any = SimpleNamespace(request=request)
    ask = EscapeCallbackHandler._parameter
    state, iss, error = (ask(handler, name) for name in ("state", "iss", "error"))
    ask(handler, "code")
    oidc.same_secret(state, "s" * 43)
    oidc.check_callback_iss(_METADATA, iss)
    if error is not None:
        raise _refused_by_issuer(error)


def next_address(raw: bytes) -> None:
    found = local_path(raw.decode("utf-8", "replace"))
    if found:
        parts = urlsplit(found)
        assert not parts.scheme and not parts.netloc
        assert found[0] == "/" and found[:2] not in ("//", "/\\")


# -- the session -----------------------------------------------------------------------

TOKENS = {
    "version": 1,
    "generation": 7,
    "state": "fresh",
    "message": "renews by itself",
    "reference": "",
    "next_poll": 30.0,
    "audiences": {
        "rucio": {
            "audience": "rucio", "label": "Rucio", "state": "fresh", "message": "", "reference": "",
            "renewed_at": NOW, "access_token": "t" * 40,
            "expires_in": 3600, "expires_at": NOW + 3600,
        }
    },
}  # fmt: skip
REFUSAL = {
    "reason": "needs_login",
    "message": "sign in",
    "reference": "x",
    "wipe": True,
    "next_poll": 15,
}


def hub_reply(raw: bytes) -> None:
    refused = b'"version"' not in raw
    found = read_reply((401, 403, 409, 429, 503)[len(raw) % 5] if refused else 200, raw, NOW)
    for audience in found.audiences.values():
        assert audience.token is None or audience.token.lifetime >= 0


TARGETS = [
    Target("metadata", metadata, dumped(METADATA)),
    Target("jwks", key_set, dumped(KEYS)),
    Target("token", token, [t.encode() for t in GOOD_TOKENS]),
    Target("token header", header, dumped({"alg": "ES256", "kid": "e1", "typ": "JWT"})),
    Target("id_token", id_token, dumped(claims(), claims(aud=[CLIENT, "x"], azp=CLIENT, nbf=NOW))),
    Target("logout_token", logout_token, dumped(LOGOUT)),
    Target("token reply", token_reply, dumped(REPLY)),
    Target("exchange reply", exchange_reply, dumped(exchanged(), exchanged(exp=None))),
    Target(
        "exchanged claims", exchanged_claims, dumped(claims(aud="rucio"), claims(aud=["rucio"]))
    ),
    Target("error body", error_body, dumped(*ERRORS)),
    Target("words", words, [SECRET.encode() + b" said", REPLY["id_token"].encode()]),
    Target("Retry-After", retry_after, [b"120", b"Wed, 21 Oct 2026 07:28:00 GMT"]),
    Target("person", person, dumped(CLAIMS)),
    Target("stored state", stored_state, dumped(STATE)),
    Target("callback", callback, [urlencode(QUERY).encode(), urlencode({"code": "c"}).encode()]),
    Target("next address", next_address, [b"/hub/home?x=1", b"/user/alice/lab"]),
    Target("hub reply", hub_reply, dumped(TOKENS, REFUSAL)),
]

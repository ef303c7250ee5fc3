"""Hostile answers as data: what the issuer does, the hub must do, and a naive client does.

The names are those of the OpenID Foundation's relying-party tests (without their prefix
``oidcc-client-test-``) where there is one, else our own. `Case.code` is the reason in the
hub's log, empty where the person must be signed in: a client that refuses good answers
passes no certification either. `Case.naive` says why the naive client of
tests/fakes/naive_client.py survives; empty where it falls for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

#: What the issuer saw of a sign-in, in its order; a refused one must go no further.
NOTHING, AUTHORIZE, CODE, USERINFO, EXCHANGES = "nothing", "authorize", "code", "userinfo", "all"
STEPS = (NOTHING, AUTHORIZE, CODE, USERINFO, EXCHANGES)


@dataclass(frozen=True)
class Case:
    """``faults`` as for ``PUT dev/faults``; ``seen`` is the last of `STEPS` that was reached."""

    name: str
    rule: str
    faults: dict[str, Any] = field(default_factory=dict)
    code: str = ""
    seen: str = ""
    naive: str = ""

    @property
    def reached(self) -> str:
        return self.seen or (CODE if self.code else EXCHANGES)


def id_token(name: str, rule: str, how: str | list[str], code: str = "", seen: str = "") -> Case:
    return Case(name, rule, {"hostile": {"id_token": how}}, code, seen)


def reply(rule: str, how: str, code: str = "", naive: str = "") -> Case:
    name = f"token-reply-{how.replace('_', '-')}"
    return Case(name, rule, {"hostile": {"token_reply": how}}, code, naive=naive)


GOOD = [
    Case("good", "an issuer that does everything right signs the person in"),
    Case(
        "userinfo-bearer-header", "the access token goes in the header: no issuer looks elsewhere"
    ),
]

ID_TOKENS = [
    id_token("invalid-iss", "iss is the issuer's, exactly", "wrong_iss", "id-token-iss"),
    id_token(
        "iss-trailing-slash",
        "iss that differs by the trailing slash alone is another one; the log names the mend",
        "iss_without_slash",
        "id-token-iss-slash",
    ),
    id_token("missing-iss", "iss is there", "missing_iss", "id-token-iss"),
    id_token("missing-sub", "sub is there", "missing_sub", "id-token-sub"),
    id_token("invalid-aud", "aud is this client", "wrong_aud", "id-token-aud"),
    id_token("missing-aud", "aud is there", "missing_aud", "id-token-aud"),
    id_token("several-aud", "several audiences are good when azp is this client", "several_aud"),
    id_token("missing-azp", "several audiences need azp", "missing_azp", "id-token-azp"),
    id_token("invalid-azp", "azp is this client", "wrong_azp", "id-token-azp"),
    id_token("missing-iat", "iat is there", "missing_iat", "id-token-iat"),
    id_token("future-iat", "iat is not of the future", "iat_future", "id-token-iat"),
    id_token("missing-exp", "exp is there", "missing_exp", "id-token-exp"),
    id_token("expired", "exp is not over", "expired", "id-token-exp"),
    id_token("future-nbf", "nbf is not of the future", "nbf_future", "id-token-nbf"),
    id_token("nonce-invalid", "nonce is this sign-in's", "wrong_nonce", "id-token-nonce"),
    id_token("missing-nonce", "nonce is there", "missing_nonce", "id-token-nonce"),
    id_token("idtoken-sig-rs256", "a good RS256 signature is taken", "typ_jwt"),
    id_token("idtoken-sig-es256", "a good ES256 signature is taken", "es256"),
    id_token(
        "idtoken-sig-none", "alg none is refused, advertised or not", "alg_none", "id-token-alg"
    ),
    id_token("invalid-sig-rs256", "RS256 is verified", "bad_signature", "id-token-signature"),
    id_token("invalid-sig-es256", "ES256 is verified", "bad_signature_es256", "id-token-signature"),
    id_token("invalid-sig-hs256", "HS256 is refused, advertised or not", "hs256", "id-token-alg"),
    id_token(
        "alg-confusion", "the public key is no HS256 secret", "hs256_public_key", "id-token-alg"
    ),
    id_token("foreign-key", "only the issuer's key signs", "foreign_key", "id-token-signature"),
    id_token("weak-key", "RSA below 2048 bits is refused", "weak_key", "jwks-weak-key"),
    id_token("kid-absent-single-jwks", "no kid is good where there is one key", "kid_absent"),
    id_token("kid-unknown", "kid is a published one", "kid_unknown", "jwks-unknown-kid"),
    id_token("header-jku", "jku is ignored", "jku", "jwks-unknown-kid"),
    id_token("header-jwk", "jwk is ignored", "embedded_jwk", "jwks-unknown-kid"),
    id_token("crit", "an unknown critical extension is refused", "crit", "id-token-crit"),
    id_token("typ-at-jwt", "an access token is no id_token", "typ_at_jwt", "id-token-typ"),
    id_token("typ-logout-jwt", "a logout_token is no id_token", "typ_logout_jwt", "id-token-typ"),
    id_token("oversize", "16 KiB are enough for a token", "oversize", "token-reply"),
    id_token(
        "other-person",
        "an id_token of somebody else than the access token's person is refused",
        "wrong_sub",
        "userinfo-sub",
        USERINFO,
    ),
]

USERINFO_CASES = [
    Case("userinfo-invalid-sub", "sub of userinfo is the id_token's",
         {"hostile": {"userinfo_sub": "other"}}, "userinfo-sub", USERINFO),
    Case("userinfo-missing-sub", "sub of userinfo is there",
         {"hostile": {"userinfo_sub": "absent"}}, "userinfo-sub", USERINFO),
    Case("userinfo-garbage", "userinfo is a JSON object",
         {"userinfo": {"mode": "garbage"}}, "userinfo-garbage", USERINFO),
    Case("userinfo-down", "without userinfo nobody is signed in",
         {"userinfo": {"mode": "503"}}, "issuer-down", USERINFO),
    Case("userinfo-redirect", "the access token follows no redirect of userinfo",
         {"userinfo": {"mode": "307"}}, "issuer-redirect", USERINFO),
]  # fmt: skip

_CRASH = "crashes on it: an HTTP 500"
_NO_TOKEN = "no token came"

TOKEN_REPLIES = [
    reply("access_token is there", "no_access_token", "token-reply"),
    reply("access_token is text", "access_token_number", "token-reply"),
    reply("a line break in a token is refused", "access_token_newline", "token-reply"),
    reply("an empty token is refused", "access_token_empty", "token-reply"),
    reply("no expires_in means a short life", "no_expires_in"),
    reply("expires_in as text is taken", "expires_in_string"),
    reply("a life of zero is refused", "expires_in_zero", "token-reply"),
    reply("a negative life is refused", "expires_in_negative", "token-reply"),
    reply("token_type is there", "no_token_type", "token-type"),
    reply("token_type is Bearer", "token_type_mac", "token-type"),
    reply("an id_token is there", "no_id_token", "id-token-missing"),
    reply("no refresh token: signed in until the tokens end", "no_refresh_token"),
    reply("the reply is an object", "not_an_object", "token-reply", _CRASH),
]


def token_fault(name: str, rule: str, code: str, naive: str = _NO_TOKEN, **fault: Any) -> Case:
    fault = {"grant": "authorization_code", **fault}
    return Case(name, rule, {"token": fault}, code, naive=naive)


TOKEN_FAULTS = [
    token_fault("token-redirect", "code and secret follow no redirect", "issuer-redirect", "",
                mode="307"),
    token_fault("token-down", "a failing issuer is a page to try again", "issuer-down", mode="503"),
    token_fault("token-busy", "an issuer that wants patience likewise", "issuer-busy",
                mode="429", retry_after=3),
    token_fault("token-garbage", "garbage with status 200 likewise", "token-reply", mode="garbage"),
    token_fault("lost-response", "a lost reply likewise", "issuer-lost", mode="lost_reply"),
    token_fault("lost-request", "a dropped connection likewise", "issuer-lost", mode="drop"),
    Case("wrong-client-secret", "a refused client is the operator's matter",
         {"invalid_client": True}, "client-refused", naive=_NO_TOKEN),
]  # fmt: skip

_STATE = "state is there, and of a sign-in that this browser began"
CALLBACKS = [
    Case("callback-iss-other", "iss of the callback is the issuer's (RFC 9207)",
         {"hostile": {"callback_iss": "other"}}, "callback-iss", AUTHORIZE),
    Case("callback-state-other", _STATE,
         {"hostile": {"callback_state": "other"}}, "sign-in-unknown", AUTHORIZE),
    Case("callback-state-absent", _STATE,
         {"hostile": {"callback_state": "absent"}}, "sign-in-unknown", AUTHORIZE),
]  # fmt: skip


def metadata(name: str, rule: str, code: str = "", seen: str = "", naive: str = "", **members: Any
             ) -> Case:  # fmt: skip
    return Case(name, rule, {"hostile": {"metadata": members}}, code, seen, naive)


DISCOVERY = [
    Case("discovery-issuer-mismatch", "the metadata's issuer is the configured one",
         {"hostile": {"discovery_issuer": "https://attacker.invalid/"}},
         "discovery-issuer", NOTHING),
    metadata("discovery-no-issuer", "the metadata names an issuer", "discovery-garbage", NOTHING,
             issuer=None),
    metadata("discovery-no-jwks-uri", "the metadata has jwks_uri", "discovery-endpoint", NOTHING,
             jwks_uri=None),
    metadata("discovery-jwks-plain-http", "keys come over https, or from this machine",
             "discovery-endpoint", NOTHING, jwks_uri="http://attacker.invalid/jwk"),
    metadata("discovery-token-plain-http", "secrets go over https, or to this machine",
             "discovery-endpoint", NOTHING, token_endpoint="http://attacker.invalid/token"),
    metadata("discovery-authorize-script", "a browser is sent to https, or to this machine",
             "discovery-endpoint", NOTHING, authorization_endpoint="javascript:alert(1)"),
    metadata("discovery-token-text", "an endpoint is an address", "discovery-endpoint", NOTHING,
             token_endpoint=["https://attacker.invalid/token"], naive=_CRASH),
    metadata("discovery-no-userinfo", "without userinfo endpoint nobody is signed in",
             "userinfo-missing", userinfo_endpoint=None),
    Case("discovery-garbage", "metadata is a JSON object", {"discovery": {"mode": "garbage"}},
         "discovery-garbage", NOTHING, _CRASH),
    Case("discovery-redirect", "discovery follows no redirect", {"discovery": {"mode": "307"}},
         "discovery-failed", NOTHING),
    Case("discovery-down", "without metadata nobody is signed in", {"discovery": {"mode": "503"}},
         "discovery-failed", NOTHING, _CRASH),
    metadata("metadata-algorithms", "algorithms come from the configuration, not from metadata",
             id_token_signing_alg_values_supported=["none"]),
    metadata("metadata-pkce-plain", "PKCE is S256 whatever the metadata says",
             code_challenge_methods_supported=["plain"]),
    Case("callback-iss-promised", "iss is promised and there, and the issuer's (RFC 9207)",
         {"hostile": {"metadata": {"authorization_response_iss_parameter_supported": True}}}),
    Case("callback-iss-absent", "iss is promised, so it must be there (RFC 9207)",
         {"hostile": {"metadata": {"authorization_response_iss_parameter_supported": True},
                      "callback_iss": "absent"}}, "callback-iss-missing", AUTHORIZE),
    Case("callback-iss-mix-up", "iss of another issuer is a mix-up (RFC 9207)",
         {"hostile": {"metadata": {"authorization_response_iss_parameter_supported": True},
                      "callback_iss": "other"}}, "callback-iss", AUTHORIZE),
]  # fmt: skip


def refreshed(name: str, rule: str, how: str, code: str = "") -> Case:
    return Case(name, rule, {"hostile": {"refresh_id_token": how}}, code)


REFRESHES = [
    refreshed("refresh-token", "a good refresh renews every token", "typ_jwt"),
    refreshed("refresh-token-no-id-token", "a refresh need not bring an id_token", "absent"),
    refreshed("refresh-token-invalid-issuer", "iss stays", "wrong_iss", "id-token-iss"),
    refreshed("refresh-token-invalid-sub", "sub stays", "wrong_sub", "id-token-identity"),
    refreshed("refresh-token-invalid-aud", "aud stays", "wrong_aud", "id-token-aud"),
    refreshed("refresh-token-expired", "exp is not over", "expired", "id-token-exp"),
    refreshed("refresh-token-sig-none", "alg none is refused", "alg_none", "id-token-alg"),
    refreshed("refresh-token-invalid-sig", "it is verified", "bad_signature", "id-token-signature"),
]

EXCHANGED = [
    Case(f"exchange-{how.replace('_', '-')}", rule, {"hostile": {"exchanged_token": how}}, code)
    for how, rule, code in [
        ("wrong_aud", "an exchanged token is for the audience that was asked for", "exchange-aud"),
        ("missing_aud", "an exchanged JWT says whom it is for", "exchange-aud"),
        ("wrong_iss", "an exchanged token is the issuer's", "exchange-iss"),
        ("expired", "an exchanged token is not born expired", "exchange-exp"),
        ("missing_exp", "an exchanged JWT has an end", "exchange-exp"),
    ]
]


def logout(name: str, rule: str, how: str, code: str) -> Case:
    return Case(f"backchannel-{name}", rule, {"mutations": [how] if how else []}, code)


LOGOUT_TOKENS = [
    logout("rp-logout", "a good one ends the sign-in", "", ""),
    logout("rp-logout-alg-none", "alg none is refused", "alg_none", "logout-token-alg"),
    logout("rp-logout-wrong-alg", "only configured algorithms", "hs256", "logout-token-alg"),
    logout("rp-logout-no-event", "it tells of a logout", "no_event", "logout-token-events"),
    logout(
        "rp-logout-wrong-event",
        "of a logout and nothing else",
        "wrong_event",
        "logout-token-events",
    ),
    logout(
        "rp-logout-with-nonce", "an id_token is no logout_token", "with_nonce", "logout-token-nonce"
    ),
    logout("rp-logout-wrong-aud", "aud is this client", "wrong_aud", "logout-token-aud"),
    logout("rp-logout-wrong-iss", "iss is the issuer's", "wrong_iss", "logout-token-iss"),
    logout("rp-logout-expired", "exp is not over", "expired", "logout-token-exp"),
    logout("rp-logout-missing-iat", "iat is there", "missing_iat", "logout-token-iat"),
    logout("rp-logout-missing-jti", "jti is there", "missing_jti", "logout-token-jti"),
    logout(
        "rp-logout-no-sub-no-sid", "it names somebody", "missing_sub_and_sid", "logout-token-sub"
    ),
    logout(
        "rp-logout-foreign-key",
        "only the issuer's key signs",
        "foreign_key",
        "logout-token-signature",
    ),
]

AT_SIGN_IN = [*GOOD, *ID_TOKENS, *USERINFO_CASES, *TOKEN_REPLIES, *TOKEN_FAULTS, *CALLBACKS]

"""What a broken or malicious issuer would send: pure functions over a token not yet signed.

Names follow the OpenID Foundation's tests of relying parties where there is
one (``oidcc-client-test-*``). The control API's ``hostile`` object has these keys:

- ``id_token``, ``refresh_id_token``, ``exchanged_token``: a name, or a list of names, of
  `TOKEN_MUTATIONS`; for ``refresh_id_token`` also ``absent``.
- ``token_reply``: a name of `REPLY_MUTATIONS`.
- ``userinfo_sub``, ``callback_iss``, ``callback_state``, ``end_session_state``: ``other``
  or ``absent``.
- ``discovery_issuer``: the issuer that discovery claims; ``metadata``: members laid over
  discovery's answer, null removes one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

OTHER = "https://attacker.invalid/"


@dataclass(frozen=True, slots=True)
class Draft:
    """A JWT before it is signed. ``signer`` names how, see `tokens.Signer.sign`.

    ``flip`` spoils a signature that was made properly.
    """

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signer: str = "issuer"
    flip: bool = False


Mutation = Callable[[Draft], Draft]


def _claim(name: str, value: Any) -> Mutation:
    return lambda draft: replace(draft, claims={**draft.claims, name: value})


def _without(name: str) -> Mutation:
    return lambda draft: replace(draft, claims={k: v for k, v in draft.claims.items() if k != name})


def _shift(seconds: int, *names: str) -> Mutation:
    """Move claims to ``seconds`` from the time of issue."""

    def mutate(draft: Draft) -> Draft:
        iat = draft.claims["iat"]
        return replace(draft, claims={**draft.claims, **{n: iat + seconds for n in names}})

    return mutate


def _header(name: str, value: Any) -> Mutation:
    return lambda draft: replace(draft, header={**draft.header, name: value})


def _signed(signer: str, alg: str, kid: str | None = None) -> Mutation:
    def mutate(draft: Draft) -> Draft:
        header = {**draft.header, "alg": alg}
        if kid is not None:
            header["kid"] = kid
        return replace(draft, header=header, signer=signer)

    return mutate


def _all(*mutations: Mutation) -> Mutation:
    def mutate(draft: Draft) -> Draft:
        for one in mutations:
            draft = one(draft)
        return draft

    return mutate


def _without_kid(draft: Draft) -> Draft:
    return replace(draft, header={k: v for k, v in draft.header.items() if k != "kid"})


def _several_audiences(draft: Draft) -> Draft:
    """Still acceptable when ``azp`` names the client (OpenID Connect Core 3.1.3.7, rule 4)."""
    client = draft.claims["aud"]
    return replace(draft, claims={**draft.claims, "aud": [client, "other-client"], "azp": client})


def _spoil(draft: Draft) -> Draft:
    return replace(draft, flip=True)


def _no_slash(draft: Draft) -> Draft:
    return _claim("iss", str(draft.claims["iss"]).rstrip("/"))(draft)


def _backchannel(value: Any) -> Mutation:
    return _claim("events", value)


TOKEN_MUTATIONS: dict[str, Mutation] = {
    "wrong_iss": _claim("iss", OTHER),
    "iss_without_slash": _no_slash,
    "missing_iss": _without("iss"),
    "missing_sub": _without("sub"),
    "wrong_sub": _claim("sub", "someone-else"),
    "wrong_aud": _claim("aud", "other-client"),
    "missing_aud": _without("aud"),
    "several_aud": _several_audiences,
    "missing_azp": _all(_several_audiences, _without("azp")),
    "wrong_azp": _all(_several_audiences, _claim("azp", "other-client")),
    "missing_iat": _without("iat"),
    "iat_future": _shift(3600, "iat"),
    "missing_exp": _without("exp"),
    "expired": _shift(-3600, "exp"),
    "nbf_future": _shift(3600, "nbf"),
    "wrong_nonce": _claim("nonce", "not-the-nonce"),
    "missing_nonce": _without("nonce"),
    "kid_absent": _without_kid,
    "kid_unknown": _header("kid", "no-such-key"),
    "alg_none": _signed("none", "none"),
    "hs256": _signed("client_secret", "HS256"),
    "hs256_public_key": _signed("public_key", "HS256"),
    "foreign_key": _signed("foreign", "RS256"),
    "es256": _signed("ec", "ES256", "ec"),
    "bad_signature_es256": _all(_signed("ec", "ES256", "ec"), _spoil),
    "weak_key": _signed("weak", "RS256", "weak"),
    "bad_signature": _spoil,
    "crit": _all(_header("crit", ["b64"]), _header("b64", True)),
    "typ_at_jwt": _header("typ", "at+jwt"),
    "typ_logout_jwt": _header("typ", "logout+jwt"),
    "typ_jwt": _header("typ", "JWT"),
    "jku": _all(_header("jku", OTHER + "jwk"), _signed("foreign", "RS256", "foreign")),
    "embedded_jwk": _all(_header("jwk", "foreign"), _signed("foreign", "RS256", "foreign")),
    "oversize": _claim("padding", "x" * 20_000),
    # Back-channel logout (OpenID Connect Back-Channel Logout 1.0, section 2.6).
    "no_event": _without("events"),
    "wrong_event": _backchannel({"http://schemas.openid.net/event/other": {}}),
    "with_nonce": _claim("nonce", "a-nonce"),
    "missing_jti": _without("jti"),
    "missing_sub_and_sid": _all(_without("sub"), _without("sid")),
}

#: Keys that the JWKS must hold beside the good ones while such a mutation is on.
EXTRA_KEYS = {"weak_key": "weak", "es256": "ec", "bad_signature_es256": "ec"}

Reply = dict[str, Any]


def _reply_without(name: str) -> Callable[[Reply], Reply]:
    return lambda reply: {k: v for k, v in reply.items() if k != name}


def _reply(name: str, value: Any) -> Callable[[Reply], Reply]:
    return lambda reply: {**reply, name: value}


REPLY_MUTATIONS: dict[str, Callable[[Reply], Any]] = {
    "no_access_token": _reply_without("access_token"),
    "access_token_number": _reply("access_token", 7),
    "access_token_newline": lambda reply: {**reply, "access_token": f"{reply['access_token']}\nx"},
    "access_token_empty": _reply("access_token", ""),
    "no_expires_in": _reply_without("expires_in"),
    "expires_in_string": lambda reply: {**reply, "expires_in": str(reply["expires_in"])},
    "expires_in_zero": _reply("expires_in", 0),
    "expires_in_negative": _reply("expires_in", -5),
    "no_token_type": _reply_without("token_type"),
    "token_type_mac": _reply("token_type", "mac"),
    "no_id_token": _reply_without("id_token"),
    "no_refresh_token": _reply_without("refresh_token"),
    "not_an_object": lambda reply: [reply],
}


def mutate(draft: Draft, names: str | Iterable[str] | None) -> Draft:
    """``draft`` after the named mutations, in order; unchanged for none."""
    for name in _names(names):
        draft = TOKEN_MUTATIONS[name](draft)
    return draft


def mutate_reply(reply: Reply, name: str | None) -> Any:
    """The token endpoint's answer after one mutation; unchanged for none."""
    return REPLY_MUTATIONS[name](reply) if name else reply


def extra_keys(present: Mapping[str, Any]) -> set[str]:
    """The names of keys that the JWKS must publish for the present mutations."""
    names = [n for k in _TOKEN_KEYS for n in _names(present.get(k))]
    return {EXTRA_KEYS[n] for n in names if n in EXTRA_KEYS}


def _names(names: str | Iterable[str] | None) -> tuple[str, ...]:
    if not names:
        return ()
    return (names,) if isinstance(names, str) else tuple(names)


_TOKEN_KEYS = ("id_token", "refresh_id_token", "exchanged_token")
_EITHER_KEYS = ("userinfo_sub", "callback_iss", "callback_state", "end_session_state")


def check(raw: Any) -> dict[str, Any]:
    """The ``hostile`` object of the control API; `ValueError` names what is unknown."""
    if not isinstance(raw, Mapping):
        raise ValueError("hostile: must be an object")
    for key, value in raw.items():
        if key in _TOKEN_KEYS:
            known = {*TOKEN_MUTATIONS, "absent"} if key == "refresh_id_token" else TOKEN_MUTATIONS
            if unknown := [n for n in _names(value) if n not in known]:
                raise ValueError(f"hostile.{key}: unknown {unknown}; known are {sorted(known)}")
        elif key == "token_reply":
            if value not in REPLY_MUTATIONS:
                raise ValueError(f"hostile.{key}: must be one of {sorted(REPLY_MUTATIONS)}")
        elif key in _EITHER_KEYS:
            if value not in ("other", "absent"):
                raise ValueError(f"hostile.{key}: must be 'other' or 'absent'")
        elif key == "discovery_issuer":
            if not isinstance(value, str):
                raise ValueError(f"hostile.{key}: must be a string")
        elif key == "metadata":
            if not isinstance(value, Mapping):
                raise ValueError(f"hostile.{key}: must be an object")
        else:
            known_keys = [*_TOKEN_KEYS, "token_reply", *_EITHER_KEYS]
            raise ValueError(
                f"hostile.{key}: unknown; known are "
                f"{sorted([*known_keys, 'discovery_issuer', 'metadata'])}"
            )
    return dict(raw)

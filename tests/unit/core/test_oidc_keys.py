"""Which published key signed a token, and everything that must not pass for a signature."""

from __future__ import annotations

from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from escape_hub.core.algorithms import ALGORITHMS
from escape_hub.core.keys import (
    MAX_TOKEN,
    Header,
    Key,
    parse_key_set,
    read_header,
    select_key,
    signed_claims,
)
from escape_hub.errors import InvalidTokenError, IssuerUnavailableError
from tests.fakes.fuzz import JSON, fuzz
from tests.fakes.signing import (
    assembled,
    b64,
    claims,
    ec_key,
    ed_key,
    hmac_signed,
    jwk,
    public_pem,
    rsa_key,
    signed,
)

DEFAULT = ("RS256", "ES256")


def keys(*published: dict[str, Any]) -> tuple[Key, ...]:
    return parse_key_set({"keys": list(published)})


def verify(
    token: str, published: tuple[Key, ...], algorithms: tuple[str, ...] = DEFAULT
) -> dict[str, Any]:
    header = read_header(token, kind="id-token", types={"jwt"}, algorithms=algorithms)
    key = select_key(published, header)
    assert key is not None, "no such key"
    return signed_claims(token, header, key, kind="id-token")


def code_of(token: str, published: tuple[Key, ...], algorithms: tuple[str, ...] = DEFAULT) -> str:
    with pytest.raises(InvalidTokenError) as caught:
        verify(token, published, algorithms)
    return caught.value.code


ONE = keys(jwk(rsa_key()))


class TestSignature:
    def test_rs256_by_key_id(self) -> None:  # idtoken-sig-rs256
        assert verify(signed(), ONE) == claims()

    def test_kid_absent_single_jwks(self) -> None:
        assert verify(signed(kid=None), ONE) == claims()

    def test_kid_absent_multiple_jwks(self) -> None:
        several = keys(jwk(rsa_key()), jwk(rsa_key("k2"), "k2"))
        assert code_of(signed(kid=None), several) == "jwks-ambiguous"

    def test_kid_absent_and_one_key_of_each_kind(self) -> None:
        several = keys(jwk(rsa_key()), jwk(ec_key(), "k2"))
        assert verify(signed(kid=None, key=ec_key(), alg="ES256"), several) == claims()

    def test_the_same_kid_twice_is_ambiguous(self) -> None:
        several = keys(jwk(rsa_key()), jwk(rsa_key("k2")))
        assert code_of(signed(), several) == "jwks-ambiguous"

    def test_invalid_sig_rs256(self) -> None:
        assert code_of(signed(key=rsa_key("k2")), ONE) == "id-token-signature"
        assert code_of(signed()[:-6] + "AAAAAA", ONE) == "id-token-signature"

    def test_invalid_sig_es256(self) -> None:
        published = keys(jwk(ec_key()))
        token = signed(key=ec_key(), alg="ES256")
        assert verify(token, published) == claims()
        assert code_of(token[:-6] + "AAAAAA", published) == "id-token-signature"
        # DER instead of the raw pair, and the zero pair that once passed elsewhere.
        head = token.rsplit(".", 1)[0]
        assert code_of(f"{head}.{b64(bytes(64))}", published) == "id-token-signature"
        assert code_of(f"{head}.{b64(b'0')}", published) == "id-token-signature"

    def test_invalid_sig_hs256(self) -> None:
        for secret in (b"client-secret", public_pem(rsa_key())):
            assert code_of(hmac_signed(secret), ONE) == "id-token-alg"

    def test_hs256_is_refused_even_where_a_setting_would_allow_it(self) -> None:
        assert code_of(hmac_signed(b"x" * 32), ONE, ("HS256", "RS256")) == "id-token-alg"

    @pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", None, 7, ["RS256"]])
    def test_idtoken_sig_none(self, alg: object) -> None:
        assert code_of(assembled({"alg": alg, "kid": "k1"}, claims()), ONE) == "id-token-alg"
        assert code_of(assembled({"alg": alg}, claims()), ONE, ("none",)) == "id-token-alg"

    def test_an_empty_signature_is_none(self) -> None:
        token = signed()
        assert code_of(token.rsplit(".", 1)[0] + ".", ONE) == "id-token-signature"

    def test_changed_content_breaks_it(self) -> None:
        head, _, signature = signed().split(".")
        other = assembled({}, claims(sub="bob-sub")).split(".")[1]
        assert code_of(f"{head}.{other}.{signature}", ONE) == "id-token-signature"

    @pytest.mark.parametrize(
        ("alg", "key"),
        [
            *((alg, rsa_key()) for alg in ALGORITHMS if ALGORITHMS[alg][0] == "RSA"),
            ("ES256", ec_key("P-256")),
            ("ES384", ec_key("P-384")),
            ("ES512", ec_key("P-521")),
            ("EdDSA", ed_key()),
        ],
    )
    def test_every_algorithm_that_can_be_allowed_works(self, alg: str, key: Any) -> None:
        token = signed(key=key, alg=alg)
        assert verify(token, keys(jwk(key)), (alg,)) == claims()
        if alg not in DEFAULT:
            assert code_of(token, keys(jwk(key))) == "id-token-alg"

    def test_rs512_with_a_key_that_names_no_algorithm(self) -> None:
        """A library's trap: it takes RS256 for such a key."""
        assert verify(signed(alg="RS512"), ONE, ("RS256", "RS512")) == claims()

    def test_a_key_pinned_to_another_algorithm_does_not_fit(self) -> None:
        header = Header("RS512", "k1")
        assert select_key(keys(jwk(rsa_key(), alg="RS256")), header) is None
        assert select_key(keys(jwk(rsa_key(), alg="RS512")), header) is not None

    def test_a_curve_of_another_algorithm_does_not_fit(self) -> None:
        assert select_key(keys(jwk(ec_key("P-384"))), Header("ES256", "k1")) is None

    def test_a_weak_key_is_refused(self) -> None:
        weak = rsa_key("weak", 1024)
        with pytest.warns(Warning, match="RSA"):  # the library's own, while signing
            token = signed(key=weak)
        assert code_of(token, keys(jwk(weak))) == "jwks-weak-key"

    def test_the_content_must_be_an_object(self) -> None:
        for content in ([1], "x", 7, None):
            token: Any = signed(content)  # type: ignore[arg-type]
            if content is not None:
                assert code_of(token, ONE) == "id-token-form"

    @pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 5000, b"{'a': 1}"])
    def test_the_content_must_be_json(self, content: bytes) -> None:
        token = jwt.PyJWS().encode(content, rsa_key(), algorithm="RS256", headers={"kid": "k1"})
        assert code_of(token, ONE) in ("id-token-form", "id-token-signature")

    def test_a_published_private_part_is_not_taken_along(self) -> None:
        (key,) = keys({**jwk(rsa_key()), "d": "AQAB", "p": "AQAB"})
        assert set(key.members) == {"n", "e"}


class TestHeader:
    @pytest.mark.parametrize("typ", [None, "JWT", "jwt", "application/jwt"])
    def test_usual_types_pass(self, typ: str | None) -> None:
        assert verify(signed(typ=typ), ONE) == claims()

    @pytest.mark.parametrize("typ", ["at+jwt", "logout+jwt", "application/at+jwt", "", 7, ["JWT"]])
    def test_other_types_are_refused(self, typ: object) -> None:
        token = assembled({"alg": "RS256", "kid": "k1", "typ": typ}, claims())
        assert code_of(token, ONE) == "id-token-typ"

    @pytest.mark.parametrize("header", [{"crit": ["exp"], "exp": 1}, {"crit": []}, {"b64": True}])
    def test_extensions_are_refused(self, header: dict[str, Any]) -> None:
        token = assembled({"alg": "RS256", "kid": "k1", **header}, claims())
        assert code_of(token, ONE) == "id-token-crit"

    def test_keys_in_the_header_are_ignored(self) -> None:
        mine = rsa_key("attacker")
        token = signed(
            key=mine,
            jwk=jwk(mine),
            jku="https://attacker.example.org/jwk",
            x5u="https://attacker.example.org/x5u",
        )
        assert code_of(token, ONE) == "id-token-signature"

    def test_the_size_is_capped(self) -> None:
        assert code_of("x" * (MAX_TOKEN + 1), ONE) == "id-token-size"
        assert code_of(signed(claims(padding="x" * MAX_TOKEN)), ONE) == "id-token-size"

    @pytest.mark.parametrize(
        "token",
        ["", "x", "a.b.c", "a.b", "..", "é.é.é", assembled([], {}), assembled("x", {}), "\x00"],
    )
    def test_what_is_no_jwt_is_refused(self, token: str) -> None:
        assert code_of(token, ONE) == "id-token-form"

    @pytest.mark.parametrize("kid", [7, ["k1"], {"k1": 1}])
    def test_a_key_id_is_text(self, kid: object) -> None:
        assert code_of(assembled({"alg": "RS256", "kid": kid}, claims()), ONE) == "id-token-form"

    @fuzz
    @given(
        st.text(max_size=60)
        | st.builds(assembled, st.dictionaries(st.sampled_from(["alg", "kid", "typ"]), JSON), JSON)
        | st.builds(
            lambda header, content, signature: assembled(
                {"alg": "RS256", "kid": "k1", **header}, content, signature
            ),
            st.dictionaries(st.sampled_from(["typ", "jwk", "x5c", "zip"]), JSON),
            JSON,
            st.binary(max_size=300),
        )
    )
    def test_whatever_comes_only_our_error_comes_out(self, token: str) -> None:
        with pytest.raises(InvalidTokenError) as caught:
            verify(token, ONE)
        assert caught.value.code


class TestKeySet:
    def test_encryption_keys_are_left_out(self) -> None:
        """Keycloak publishes one beside the signing key, without another kid to tell."""
        assert keys(jwk(rsa_key(), use="enc"), jwk(rsa_key("k2"), "k2")) == keys(
            jwk(rsa_key("k2"), "k2")
        )

    def test_a_key_without_use_or_for_verification_counts(self) -> None:
        assert len(keys(jwk(rsa_key(), use=None), jwk(ec_key(), key_ops=["verify"]))) == 2

    @pytest.mark.parametrize(
        "bad",
        [
            None,
            7,
            {},
            {"kty": "oct", "k": "c2VjcmV0", "kid": "k1"},
            {"kty": "XYZ"},
            {"kty": ["RSA"]},
            jwk(rsa_key(), n=7),
            jwk(rsa_key(), n=None),
            jwk(rsa_key(), n="not base64!"),
            jwk(rsa_key(), n="A"),
            jwk(ec_key(), crv=None),
            jwk(ec_key(), y=None),
            jwk(rsa_key(), key_ops=["encrypt"]),
            jwk(rsa_key(), key_ops="verify"),
            jwk(rsa_key(), use="tls"),
        ],
    )
    def test_a_bad_entry_does_not_spoil_the_rest(self, bad: Any) -> None:
        good = jwk(rsa_key("k2"), "k2")
        assert parse_key_set({"keys": [bad, good]}) == keys(good)

    @pytest.mark.parametrize(
        "document", [None, [], {}, {"keys": []}, {"keys": {}}, {"keys": [None]}, "x"]
    )
    def test_without_a_key_is_an_outage(self, document: object) -> None:
        with pytest.raises(IssuerUnavailableError) as caught:
            parse_key_set(document)
        assert caught.value.code == "jwks-empty"

    def test_odd_key_ids_and_algorithms_are_dropped(self) -> None:
        (key,) = keys(jwk(rsa_key(), kid=7, alg=["RS256"]))  # type: ignore[arg-type]
        assert (key.kid, key.alg) == (None, None)

    def test_a_point_off_the_curve_verifies_nothing(self) -> None:
        published = keys(jwk(ec_key(), x="AQAB"))
        assert code_of(signed(key=ec_key(), alg="ES256"), published) == "id-token-signature"

    @fuzz
    @given(
        st.lists(
            st.builds(
                lambda changed: {**jwk(rsa_key()), **changed},
                st.dictionaries(
                    st.sampled_from(["kty", "n", "e", "use", "kid", "alg", "crv", "x", "key_ops"]),
                    JSON,
                ),
            )
            | JSON,
            max_size=3,
        )
        | JSON
    )
    def test_whatever_comes_only_our_errors_come_out(self, listed: Any) -> None:
        try:
            published = parse_key_set({"keys": listed})
        except IssuerUnavailableError:
            return
        try:
            key = select_key(published, Header("RS256", "k1"))
            if key is not None:
                signed_claims(signed(), Header("RS256", "k1"), key, kind="id-token")
        except InvalidTokenError:
            pass

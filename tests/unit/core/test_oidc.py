"""The rules of metadata, callbacks, id_tokens, logout_tokens and userinfo."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from escape_hub.core import oidc, urls
from escape_hub.errors import (
    EscapeHubError,
    InvalidTokenError,
    IssuerError,
    IssuerMisconfiguredError,
    IssuerUnavailableError,
)
from tests.fakes.fuzz import JSON, fuzz
from tests.fakes.signing import CLIENT, ISSUER, NOW, claims

DOCUMENT = {
    "issuer": ISSUER,
    "authorization_endpoint": "https://iam.example.org/authorize",
    "token_endpoint": "https://iam.example.org/token",
    "jwks_uri": "https://iam.example.org/jwk",
    "userinfo_endpoint": "https://iam.example.org/userinfo",
}


def parse(expected: str | None = None, issuer: str = ISSUER, **changed: Any) -> oidc.Metadata:
    document = {k: v for k, v in {**DOCUMENT, **changed}.items() if v is not None}
    return oidc.parse_metadata(document, issuer=issuer, expected_issuer=expected)


class TestMetadata:
    def test_of_the_configured_issuer_is_taken(self) -> None:
        found = parse()
        assert (found.issuer, found.token_issuer) == (ISSUER, ISSUER)
        assert found.token_endpoint == "https://iam.example.org/token"
        assert found.end_session_endpoint is None
        assert found.iss_in_callback is False

    def test_says_whether_callbacks_carry_iss(self) -> None:
        assert parse(authorization_response_iss_parameter_supported=True).iss_in_callback

    # OpenID RP certification: discovery-issuer-mismatch.
    def test_of_another_issuer_is_refused(self) -> None:
        with pytest.raises(IssuerMisconfiguredError) as caught:
            parse(issuer="https://iam.example.org/other/")
        assert caught.value.code == "discovery-issuer"

    @pytest.mark.parametrize(
        ("configured", "found"),
        [("https://iam.example.org", ISSUER), (ISSUER, "https://iam.example.org")],
    )
    def test_that_differs_by_the_slash_is_refused_and_both_settings_are_offered(
        self, configured: str, found: str
    ) -> None:
        with pytest.raises(IssuerMisconfiguredError) as caught:
            oidc.parse_metadata(
                {**DOCUMENT, "issuer": found}, issuer=configured, expected_issuer=None
            )
        assert caught.value.code == "discovery-issuer-slash"
        assert "trailing slash" in caught.value.message
        assert f"Set issuer to {found!r}" in caught.value.message
        assert "expected_issuer" in caught.value.message

    def test_expected_issuer_is_what_tokens_must_say(self) -> None:
        found = parse(expected="https://iam.example.org")
        assert (found.issuer, found.token_issuer) == (ISSUER, "https://iam.example.org")

    def test_expected_issuer_is_accepted_as_the_metadatas_issuer_too(self) -> None:
        found = parse(issuer="https://iam.example.org", expected=ISSUER)
        assert (found.issuer, found.token_issuer) == (ISSUER, ISSUER)

    @pytest.mark.parametrize("name", ["authorization_endpoint", "token_endpoint", "jwks_uri"])
    def test_needs_the_endpoints_of_a_login(self, name: str) -> None:
        with pytest.raises(IssuerMisconfiguredError, match=name) as caught:
            parse(**{name: None})
        assert caught.value.code == "discovery-endpoint"

    @pytest.mark.parametrize("name", ["token_endpoint", "userinfo_endpoint", "jwks_uri"])
    @pytest.mark.parametrize(
        "url", ["http://iam.example.org/x", "ftp://iam.example.org/x", "/x", "", 7, ["https://x"]]
    )
    def test_endpoints_are_https(self, name: str, url: object) -> None:
        with pytest.raises(IssuerMisconfiguredError, match=name):
            parse(**{name: url})

    @pytest.mark.parametrize("document", [None, [], "x", 7, {}, {"issuer": None}, {"issuer": 7}])
    def test_that_is_none_is_an_outage(self, document: object) -> None:
        with pytest.raises(IssuerUnavailableError) as caught:
            oidc.parse_metadata(document, issuer=ISSUER, expected_issuer=None)
        assert caught.value.code == "discovery-garbage"

    @fuzz
    @given(st.dictionaries(st.sampled_from([*DOCUMENT, "revocation_endpoint"]), JSON))
    def test_whatever_comes_only_our_errors_come_out(self, changed: dict[str, Any]) -> None:
        try:
            oidc.parse_metadata({**DOCUMENT, **changed}, issuer=ISSUER, expected_issuer=None)
        except IssuerError:
            pass


@pytest.mark.parametrize(
    ("url", "safe"),
    [
        ("https://iam.example.org/", True),
        ("https://iam.example.org:8443/realms/escape", True),
        ("http://127.0.0.1:8081/", True),
        ("http://127.7.7.7/", True),
        ("http://[::1]:8081/", True),
        ("http://localhost/", True),
        ("http://127.0.0.1.example.org/", False),
        ("http://127.example.org/", False),
        ("http://iam.example.org/", False),
        ("https://iam.example.org/#x", False),
        ("https://alice@iam.example.org/", False),
        ("https://iam.example.org:port/", False),
        ("https://[iam/", False),
        ("https:///x", False),
        ("https://iam.example.org/\n", False),
        ("https://iam.example.org/é", False),
        ("iam.example.org", False),
        (None, False),
    ],
)
def test_only_https_and_loopback_addresses_are_safe(url: object, safe: bool) -> None:
    assert urls.is_safe_url(url) is safe


def test_no_host_is_no_loopback() -> None:
    assert not urls.is_loopback(None)


def test_discovery_url_drops_one_trailing_slash() -> None:
    end = "/.well-known/openid-configuration"
    assert urls.discovery_url("https://iam.example.org/") == "https://iam.example.org" + end
    assert urls.discovery_url("https://a.example.org/r") == "https://a.example.org/r" + end


def test_a_query_is_added_to_the_one_that_is_there() -> None:
    assert urls.with_query("https://a/x", {"b": "c d"}) == "https://a/x?b=c+d"
    assert urls.with_query("https://a/x?y=z", {"b": "c"}) == "https://a/x?y=z&b=c"


def test_the_challenge_is_that_of_rfc_7636_appendix_b() -> None:
    verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
    assert oidc.code_challenge(verifier) == "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("a", "a", True),
        ("a", "b", False),
        ("é", "é", True),
        (None, "a", False),
        ("a", None, False),
        (None, None, False),
        ("\ud800", "a", False),
    ],
)
def test_secrets_are_the_same_only_when_both_are_there(
    one: str | None, other: str | None, same: bool
) -> None:
    assert oidc.same_secret(one, other) is same


class TestCallbackIss:
    """RFC 9207 section 2.4."""

    PROMISES = {"authorization_response_iss_parameter_supported": True}

    def test_ours_is_taken(self) -> None:
        oidc.check_callback_iss(parse(**self.PROMISES), ISSUER)
        oidc.check_callback_iss(parse(), ISSUER)

    def test_none_is_taken_where_none_was_promised(self) -> None:
        oidc.check_callback_iss(parse(), None)

    def test_promised_but_absent_is_refused(self) -> None:
        with pytest.raises(InvalidTokenError) as caught:
            oidc.check_callback_iss(parse(**self.PROMISES), None)
        assert caught.value.code == "callback-iss-missing"

    @pytest.mark.parametrize("iss", ["https://attacker.example.org/", ISSUER.rstrip("/"), ""])
    def test_another_is_refused(self, iss: str) -> None:
        with pytest.raises(InvalidTokenError) as caught:
            oidc.check_callback_iss(parse(), iss)
        assert caught.value.code == "callback-iss"


def check_id(content: dict[str, Any], nonce: str | None = "n-1", **more: Any) -> None:
    oidc.check_id_token(
        content, issuer=ISSUER, client_id=CLIENT, nonce=nonce, now=NOW, skew=60, **more
    )


class TestIdToken:
    """OpenID Connect Core 1.0 section 3.1.3.7; names of the OpenID RP certification tests."""

    @pytest.mark.parametrize(
        "changed",
        [
            {},
            {"aud": [CLIENT]},
            {"aud": [CLIENT, "other"], "azp": CLIENT},
            {"azp": CLIENT},
            {"exp": NOW - 59},  # within the skew
            {"iat": NOW + 60},
            {"nbf": NOW + 60},
            {"exp": NOW + 0.5},
        ],
    )
    def test_good_ones_pass(self, changed: dict[str, Any]) -> None:
        check_id(claims(**changed))

    @pytest.mark.parametrize(
        ("changed", "code"),
        [
            ({"iss": "https://attacker.example.org/"}, "id-token-iss"),  # invalid-iss
            ({"iss": None}, "id-token-iss"),
            ({"iss": [ISSUER]}, "id-token-iss"),
            ({"iss": ISSUER.rstrip("/")}, "id-token-iss-slash"),
            ({"sub": None}, "id-token-sub"),  # missing-sub
            ({"sub": ""}, "id-token-sub"),
            ({"sub": 7}, "id-token-sub"),
            ({"sub": "x" * 256}, "id-token-sub"),
            ({"aud": "other"}, "id-token-aud"),  # invalid-aud
            ({"aud": None}, "id-token-aud"),  # missing-aud
            ({"aud": []}, "id-token-aud"),
            ({"aud": ["other", {}]}, "id-token-aud"),
            ({"aud": {CLIENT: 1}}, "id-token-aud"),
            ({"aud": [CLIENT, "other"]}, "id-token-azp"),
            ({"aud": [CLIENT, "other"], "azp": "other"}, "id-token-azp"),
            ({"azp": "other"}, "id-token-azp"),
            ({"azp": 7}, "id-token-azp"),
            ({"exp": None}, "id-token-exp"),
            ({"exp": NOW - 60}, "id-token-exp"),
            ({"exp": str(NOW + 600)}, "id-token-exp"),
            ({"exp": True}, "id-token-exp"),
            ({"exp": float("inf")}, "id-token-exp"),
            ({"exp": float("nan")}, "id-token-exp"),
            ({"exp": 10**400}, "id-token-exp"),
            ({"iat": None}, "id-token-iat"),  # missing-iat
            ({"iat": NOW + 61}, "id-token-iat"),
            ({"iat": []}, "id-token-iat"),
            ({"nbf": NOW + 61}, "id-token-nbf"),
            ({"nbf": "soon"}, "id-token-nbf"),
            ({"nonce": "n-2"}, "id-token-nonce"),  # nonce-invalid
            ({"nonce": None}, "id-token-nonce"),
            ({"nonce": ["n-1"]}, "id-token-nonce"),
        ],
    )
    def test_each_broken_rule_has_its_code(self, changed: dict[str, Any], code: str) -> None:
        with pytest.raises(InvalidTokenError) as caught:
            check_id(claims(**changed))
        assert caught.value.code == code

    def test_the_slash_error_offers_the_setting(self) -> None:
        with pytest.raises(InvalidTokenError, match="Set expected_issuer to 'https://iam.example"):
            check_id(claims(iss=ISSUER.rstrip("/")))

    def test_of_a_refresh_needs_no_nonce(self) -> None:
        check_id(claims(nonce=None), nonce=None, same_as=(ISSUER, "alice-sub"))

    # OpenID RP certification: refresh-token invalid-sub, invalid-issuer.
    @pytest.mark.parametrize("known", [(ISSUER, "bob-sub"), ("https://old.example/", "alice-sub")])
    def test_of_a_refresh_is_of_the_same_person_and_issuer(self, known: tuple[str, str]) -> None:
        with pytest.raises(InvalidTokenError) as caught:
            check_id(claims(nonce=None), nonce=None, same_as=known)
        assert caught.value.code == "id-token-identity"

    @fuzz
    @given(st.dictionaries(st.sampled_from([*claims(), "azp", "nbf"]), JSON, min_size=1))
    def test_whatever_comes_only_our_error_comes_out(self, changed: dict[str, Any]) -> None:
        try:
            check_id({**claims(), **changed})
        except InvalidTokenError as error:
            assert error.code.startswith("id-token-")


def logout_claims(**changed: Any) -> dict[str, Any]:
    made = {
        **claims(nonce=None),
        "jti": "j-1",
        "sid": "s-1",
        "events": {oidc.LOGOUT_EVENT: {}},
        **changed,
    }
    return {k: v for k, v in made.items() if v is not None}


def check_logout(content: dict[str, Any]) -> None:
    oidc.check_logout_token(content, issuer=ISSUER, client_id=CLIENT, now=NOW, skew=60)


class TestLogoutToken:
    """Back-Channel Logout 1.0 section 2.6; names of the OpenID RP certification tests."""

    @pytest.mark.parametrize(
        "changed",
        [{}, {"sid": None}, {"sub": None}, {"aud": [CLIENT]}, {"iat": NOW - 659}],
    )
    def test_good_ones_pass(self, changed: dict[str, Any]) -> None:
        check_logout(logout_claims(**changed))

    @pytest.mark.parametrize(
        ("changed", "code"),
        [
            ({"iss": "https://attacker.example.org/"}, "logout-token-iss"),  # wrong-iss
            ({"aud": "other"}, "logout-token-aud"),  # wrong-aud
            ({"events": None}, "logout-token-events"),  # no-event
            ({"events": {"http://schemas.openid.net/event/x": {}}}, "logout-token-events"),
            ({"events": {oidc.LOGOUT_EVENT: True}}, "logout-token-events"),
            ({"events": [oidc.LOGOUT_EVENT]}, "logout-token-events"),
            ({"nonce": "n-1"}, "logout-token-nonce"),  # with-nonce
            ({"sub": None, "sid": None}, "logout-token-sub"),
            ({"sub": 7}, "logout-token-sub"),
            ({"sid": 7}, "logout-token-sid"),
            ({"jti": None}, "logout-token-jti"),
            ({"exp": None}, "logout-token-exp"),
            ({"exp": NOW - 61}, "logout-token-exp"),
            ({"iat": None}, "logout-token-iat"),
            ({"iat": NOW - 660}, "logout-token-iat"),
            ({"iat": NOW + 61}, "logout-token-iat"),
        ],
    )
    def test_each_broken_rule_has_its_code(self, changed: dict[str, Any], code: str) -> None:
        with pytest.raises(InvalidTokenError) as caught:
            check_logout(logout_claims(**changed))
        assert caught.value.code == code

    def test_an_id_token_is_none(self) -> None:
        with pytest.raises(InvalidTokenError):
            check_logout(claims())

    @fuzz
    @given(st.dictionaries(st.sampled_from([*logout_claims(), "nonce"]), JSON, min_size=1))
    def test_whatever_comes_only_our_error_comes_out(self, changed: dict[str, Any]) -> None:
        try:
            check_logout({**logout_claims(), **changed})
        except InvalidTokenError as error:
            assert error.code.startswith("logout-token-")


class TestUserinfo:
    def test_of_the_same_person_passes(self) -> None:
        assert oidc.check_userinfo({"sub": "a", "x": 1}, "a") == {"sub": "a", "x": 1}
        assert oidc.check_userinfo({"sub": "a"}, None) == {"sub": "a"}

    # OpenID RP certification: userinfo-invalid-sub.
    @pytest.mark.parametrize("raw", [{"sub": "b"}, {}, {"sub": ""}, {"sub": ["a"]}, [], None])
    def test_of_another_or_nobody_is_refused(self, raw: object) -> None:
        with pytest.raises(InvalidTokenError) as caught:
            oidc.check_userinfo(raw, "a")
        assert caught.value.code == "userinfo-sub"

    @fuzz
    @given(JSON)
    def test_whatever_comes_only_our_error_comes_out(self, raw: object) -> None:
        try:
            oidc.check_userinfo(raw, "a")
        except EscapeHubError:
            pass

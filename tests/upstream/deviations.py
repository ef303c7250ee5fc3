# ruff: noqa: E501 - the names of their tests and our rules, one a line
"""Which of oauthenticator's tests our class does not pass, each by its name, and why.

Rule -> tests. A test that is in no list passes; one that is in a list fails.
"""

from __future__ import annotations

#: JupyterHub 6.1 adds 'user_info' to what a sign-in gives, which their tests do not expect:
#: oauthenticator's own class fails here as well, and that is tested.
JUPYTERHUB_6: dict[str, list[str]] = {
    "oauthenticator 17.4 is not up to JupyterHub 6.1's 'user_info'": [
        "test_generic::test_generic[id_token-01-class_config1-True-None]",
        "test_generic::test_generic[id_token-02-class_config2-True-None]",
        "test_generic::test_generic[id_token-04-class_config4-True-True]",
        "test_generic::test_generic[id_token-11-class_config7-True-True]",
        "test_generic::test_generic[id_token-12-class_config8-True-True]",
        "test_generic::test_generic[id_token-13-class_config9-True-False]",
        "test_generic::test_generic[id_token-14-class_config10-True-True]",
        "test_generic::test_generic[id_token-16-class_config12-True-True]",
        "test_generic::test_generic[id_token-17-class_config13-True-True]",
        "test_generic::test_generic[id_token-18-class_config14-True-True]",
        "test_generic::test_generic[id_token-20-class_config16-True-None]",
        "test_generic::test_generic[id_token-20-class_config17-True-None]",
        "test_generic::test_generic[id_token-22-class_config19-True-True]",
        "test_generic::test_generic[userdata_url-01-class_config1-True-None]",
        "test_generic::test_generic[userdata_url-02-class_config2-True-None]",
        "test_generic::test_generic[userdata_url-04-class_config4-True-True]",
        "test_generic::test_generic[userdata_url-11-class_config7-True-True]",
        "test_generic::test_generic[userdata_url-12-class_config8-True-True]",
        "test_generic::test_generic[userdata_url-13-class_config9-True-False]",
        "test_generic::test_generic[userdata_url-14-class_config10-True-True]",
        "test_generic::test_generic[userdata_url-16-class_config12-True-True]",
        "test_generic::test_generic[userdata_url-17-class_config13-True-True]",
        "test_generic::test_generic[userdata_url-18-class_config14-True-True]",
        "test_generic::test_generic[userdata_url-20-class_config16-True-None]",
        "test_generic::test_generic[userdata_url-20-class_config17-True-None]",
        "test_generic::test_generic[userdata_url-22-class_config19-True-True]",
    ],
}

#: Without an issuer ours is their class, and differs in its name.
NO_ISSUER: dict[str, list[str]] = {
    "The message names the class that the operator configures.": [
        "test_generic::test_deprecated_config[claim_groups_key-class_config0-expect_config0-30-expect_message0]",
        "test_generic::test_generic_manage_groups_required[admin_groups-value1]",
        "test_generic::test_generic_manage_groups_required[allowed_groups-value2]",
        "test_generic::test_generic_manage_groups_required[auth_state_groups_key-oauth_user.permissions.groups]",
    ],
}

#: With an issuer: the rules that a hub runs with.
ISSUER: dict[str, list[str]] = {
    "The scope holds 'openid', or the hub does not start.": [
        "test_generic::test_allowed_scopes[allowed_scopes0-False]",
        "test_generic::test_allowed_scopes[allowed_scopes1-True]",
    ],
    "A deprecated name stops the hub, with the new one, instead of a warning.": [
        "test_generic::test_deprecated_config[claim_groups_key-class_config0-expect_config0-30-expect_message0]",
        "test_generic::test_generic_callable_username_key",
        "test_generic::test_generic_claim_groups_key_callable",
        "test_generic::test_generic_claim_groups_key_nested_strings",
    ],
    "An id_token is verified: RS256 or ES256, never HS256 with a key of anybody (OpenID Connect Core 3.1.3.7).": [
        "test_generic::test_generic[id_token-00-class_config0-False-None]",
        "test_generic::test_generic[id_token-01-class_config1-True-None]",
        "test_generic::test_generic[id_token-02-class_config2-True-None]",
        "test_generic::test_generic[id_token-03-class_config3-False-None]",
        "test_generic::test_generic[id_token-04-class_config4-True-True]",
        "test_generic::test_generic[id_token-05-class_config5-False-None]",
        "test_generic::test_generic[id_token-10-class_config6-False-None]",
        "test_generic::test_generic[id_token-11-class_config7-True-True]",
        "test_generic::test_generic[id_token-12-class_config8-True-True]",
        "test_generic::test_generic[id_token-13-class_config9-True-False]",
        "test_generic::test_generic[id_token-14-class_config10-True-True]",
        "test_generic::test_generic[id_token-15-class_config11-False-False]",
        "test_generic::test_generic[id_token-16-class_config12-True-True]",
        "test_generic::test_generic[id_token-17-class_config13-True-True]",
        "test_generic::test_generic[id_token-18-class_config14-True-True]",
        "test_generic::test_generic[id_token-19-class_config15-False-False]",
        "test_generic::test_generic[id_token-20-class_config16-True-None]",
        "test_generic::test_generic[id_token-20-class_config17-True-None]",
        "test_generic::test_generic[id_token-21-class_config18-False-None]",
        "test_generic::test_generic[id_token-22-class_config19-True-True]",
        "test_generic::test_generic[id_token-23-class_config20-False-False]",
    ],
    "The hub's groups follow the claims always: manage_groups is on.": [
        "test_generic::test_generic[userdata_url-01-class_config1-True-None]",
        "test_generic::test_generic[userdata_url-02-class_config2-True-None]",
        "test_generic::test_generic[userdata_url-04-class_config4-True-True]",
        "test_generic::test_generic_manage_groups_required[admin_groups-value1]",
        "test_generic::test_generic_manage_groups_required[allowed_groups-value2]",
        "test_generic::test_generic_manage_groups_required[auth_state_groups_key-oauth_user.permissions.groups]",
    ],
    "A groups claim that is not there gives no groups; the refusal tells the person which group is missing.": [
        "test_generic::test_generic_auth_state_groups_key_invalid[oauth_user.nonexistent.groups-The auth_state_groups_key oauth_user.nonexistent.groups does not exist in the auth_model.]",
        "test_generic::test_generic_auth_state_groups_key_invalid[oauth_user.permissions.invalid_values_type-The value of the auth_state_groups_key oauth_user.permissions.invalid_values_type is invalid:]",
    ],
    "Deny by default, at authenticate already: their test sets no rule on the object it uses.": [
        "test_generic::test_generic_data",
    ],
    "The auth_state is the broker's: modify_auth_state_hook stops the hub, with what to use instead.": [
        "test_generic::test_modify_auth_state_hook[async]",
        "test_generic::test_modify_auth_state_hook[sync]",
    ],
    "A refresh_user never renews by itself and stores nothing: the broker spends refresh tokens, one at a time.": [
        "test_generic::test_refresh_user[False]",
        "test_generic::test_refresh_user[True]",
    ],
    "The handlers are ours, and need a hub with the scope of the token endpoint.": [
        "test_oauth2::test_custom_logout",
    ],
    "PKCE cannot be switched off.": [
        "test_oauth2::test_login_states[False]",
    ],
}

"""The settings of `EscapeAuthenticator`, with the text an operator reads about each.

Upstream's names are kept where upstream has the setting: ``client_id``,
``client_secret``, ``scope``, ``username_claim``, ``oauth_callback_url``,
``allowed_users``, ``allowed_groups``, ``admin_users``, ``admin_groups``,
``manage_groups``, ``auth_state_groups_key``, ``blocked_users``, ``allow_all``.
"""

from __future__ import annotations

from traitlets import Bool, Dict, Enum, Float, HasTraits, Integer, List, Set, Unicode

from escape_hub.core.renewal import RenewalPolicy

#: Where the defaults of the renewal's numbers come from.
_POLICY = RenewalPolicy()

#: The audiences of the ESCAPE data lake. EOS's ``endpoint`` is the operator's to say.
DEFAULT_AUDIENCES = {
    "eos": {
        "audience": "eos-eulake",
        "scope": "openid profile",
        "file": "eos.token",
        "format": "eos",
        "label": "EOS storage",
    },
    "rucio": {
        "audience": "rucio",
        "scope": "openid profile",
        "file": "rucio.token",
        "format": "bare",
        "label": "Rucio catalogue",
    },
}


class EscapeTraits(HasTraits):
    """Traits only; what they do is in `EscapeAuthenticator` and below it."""

    issuer = Unicode(
        config=True,
        help="""
        Address of the IAM, as in `https://iam-escape.cloud.cnaf.infn.it/`: the
        `issuer` of its OpenID Connect discovery document, character by character
        (INDIGO IAM's ends in `/`). All other addresses come from that document,
        so `authorize_url`, `token_url` and `userdata_url` must not be set.
        Interacts with `expected_issuer`.

        .. versionadded:: 0.1
        """,
    )
    expected_issuer = Unicode(
        config=True,
        help="""
        What tokens must have as `iss`, where that differs from `issuer` (an IAM
        whose `IAM_ISSUER` lacks the final `/` of its discovery document). Empty:
        the same as `issuer`. The comparison is exact in either case.

        .. versionadded:: 0.1
        """,
    )
    audiences = Dict(
        default_value=DEFAULT_AUDIENCES,
        config=True,
        help="""
        The services of the lake for which a session gets a token of its own: name ->
        `{audience, scope, file, format, label, endpoint}`. `audience` and `scope`
        are sent to the IAM, `file` is written in the session's token directory,
        `format` is `eos` or `bare`, `label` is the name people read. Format `eos`
        needs `endpoint`, the host and path (no scheme, no port) that EOS asks about
        the token, as in `iam-escape.cloud.cnaf.infn.it/userinfo`; it has no default.
        Each audience is exchanged on its own: one that fails stops no other.

        .. versionadded:: 0.1
        """,
    )
    allowed_roles = Set(
        Unicode(),
        config=True,
        help="""
        Let in whoever has one of these roles in `roles_claim`. One of several allow
        rules (`allowed_groups`, `allowed_users`, `allow_all`): any of them lets a
        person in, and without any nobody comes in. Asked again at each renewal.

        .. versionadded:: 0.1
        """,
    ).tag(allow_config=True)
    admin_roles = Set(
        Unicode(),
        config=True,
        help="""
        Make whoever has one of these roles in `roles_claim` an administrator of the
        hub. When `admin_roles` or `admin_groups` is set, a person with none of them
        is no administrator any more at the next login or renewal, unless listed in
        `admin_users`.

        .. versionadded:: 0.1
        """,
    ).tag(allow_config=True)
    roles_claim = Unicode(
        "roles",
        config=True,
        help="""
        Claim that lists a person's roles, with `.` between nested names, as in
        `resource_access.jupyterhub.roles` (Keycloak; its mapper must add the claim to
        userinfo). Read by `allowed_roles`, `admin_roles` and `hub_roles`. Groups come
        from `auth_state_groups_key`.

        .. versionadded:: 0.1
        """,
    )
    hub_roles = Dict(
        key_trait=Unicode(),
        value_trait=Set(Unicode()),
        config=True,
        help="""
        JupyterHub roles that follow the roles in `roles_claim`: hub role -> the claim's
        roles that give it, as in `{"instructor": {"teacher", "tutor"}}`. Brought in
        step at each login and each renewal, for the hub roles named here alone; whoever
        has none of the claim's roles loses the hub role, however it was given. The hub
        role itself is defined in `JupyterHub.load_roles`; `user`, `admin`, `server` and
        `token` cannot be given so (see `admin_roles`). A hub role for the members of a
        group needs no setting here: name the group in `load_roles`.

        .. versionadded:: 0.1
        """,
    )
    contact = Unicode(
        "the administrators of this service",
        config=True,
        help="""
        Whom people are told to ask when they are not let in: a name, an address.

        .. versionadded:: 0.1
        """,
    )
    signing_algorithms = List(
        Unicode(),
        default_value=["RS256", "ES256"],
        config=True,
        help="""
        JWS algorithms accepted in signed tokens of the IAM. They come from here and
        never from the IAM's metadata; `none` and the symmetric ones (HS256, ...) are
        refused at start.

        .. versionadded:: 0.1
        """,
    )
    client_auth = Enum(
        ["client_secret_basic", "client_secret_post"],
        default_value="client_secret_basic",
        config=True,
        help="""
        How the hub proves to the IAM that it is the client `client_id`: the names of
        OpenID Connect Core, section 9. Must agree with the client's registration.

        .. versionadded:: 0.1
        """,
    )
    ca_file = Unicode(
        config=True,
        help="""
        PEM file with the certificate authorities trusted for every call to the IAM,
        instead of the public ones. Certificates are always checked.

        .. versionadded:: 0.1
        """,
    )
    http_proxy = Unicode(
        config=True,
        help="""
        HTTP proxy for every call to the IAM, as in `http://proxy.example.org:3128`.
        Empty: what `HTTPS_PROXY` and `NO_PROXY` of the hub's environment say. Loopback
        is never sent to a proxy.

        .. versionadded:: 0.1
        """,
    )
    outage_grace = Float(
        _POLICY.outage_grace,
        min=1,
        config=True,
        help="""
        Seconds for which a person stays signed in after the last token expired because
        the IAM did not answer. While a token lives an outage of the IAM logs
        nobody out anyway. Kernels are never stopped by it.

        .. versionadded:: 0.1
        """,
    )
    max_session_age = Float(
        _POLICY.max_session_age,
        min=1,
        config=True,
        help="""
        Seconds after a login for which tokens are renewed without the person; then
        they must sign in again. Sessions and kernels go on. Interacts with
        `JupyterHub.shutdown_on_logout`: after a logout that leaves servers
        running, their tokens are renewed up to this age.

        .. versionadded:: 0.1
        """,
    )
    blocked_check_interval = Float(
        _POLICY.check_interval,
        min=60,
        config=True,
        help="""
        Seconds after which a person's groups, roles and `blocked_users` are looked at
        again at the latest, however long the IAM's tokens live. Every renewal looks
        at them anyway.

        .. versionadded:: 0.1
        """,
    )
    renewal_rate = Float(
        _POLICY.rate,
        min=0.1,
        config=True,
        help="""
        Calls a second to the IAM that scheduled renewals make at most, so that a
        restart with a thousand sessions is no storm there (a renewal is one call and
        one for each audience). Interacts with `renewal_concurrency`.

        .. versionadded:: 0.1
        """,
    )
    renewal_concurrency = Integer(
        _POLICY.in_flight,
        min=1,
        config=True,
        help="""
        Calls of renewals under way at the same time at most, the most urgent first.

        .. versionadded:: 0.1
        """,
    )
    revoke_on_logout = Bool(
        True,
        config=True,
        help="""
        Revoke the refresh token at the IAM (RFC 7009) when a logout ends its use: with
        `JupyterHub.shutdown_on_logout`, or when no server of the person is running.
        Best effort: an IAM that does not answer holds up no logout.

        .. versionadded:: 0.1
        """,
    )
    logout_at_issuer = Bool(
        True,
        config=True,
        help="""
        After a logout go on to the IAM's own logout (OpenID Connect RP-Initiated
        Logout 1.0) where its metadata has one. The IAM leads back to
        `https://<hub>/hub/escape/signed_out`, which must be registered for the client
        as a post-logout redirect URI, and from there people come to
        `logout_redirect_url`, or else to the hub's login page. See `logout_method`.

        .. versionadded:: 0.1
        """,
    )
    logout_method = Enum(
        ["post", "get"],
        default_value="post",
        config=True,
        help="""
        How the browser goes to the IAM's logout (`logout_at_issuer`). `post` keeps the
        id_token, which names the person and gives no access, out of every address. The
        standard asks an IAM to take both, but MITREid Connect takes no `post`, nor does
        oidc-provider as it comes: people would end at an error page of theirs. With
        those use `get`.

        .. versionadded:: 0.1
        """,
    )
    backchannel_logout = Bool(
        True,
        config=True,
        help="""
        Take word from the IAM that somebody signed out there (OpenID Connect
        Back-Channel Logout 1.0), at `https://<hub>/hub/escape/backchannel_logout`,
        which is registered for the client as its back-channel logout URI. It ends the
        person's sign-in in all their browsers, their stored tokens and the files of
        their running sessions; servers go on unless `JupyterHub.shutdown_on_logout` is
        set. Interacts with `revoke_on_logout`. A logout that the person began here, with
        servers that keep their access, does not come back to end it. Bad posts are
        limited by the sender's address: see `JupyterHub.trusted_downstream_ips`.

        .. versionadded:: 0.1
        """,
    )

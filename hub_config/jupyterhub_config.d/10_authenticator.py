# Who may sign in, and for which services of the lake a session gets access.
# Each setting's own help: jupyterhub --help-all, class EscapeAuthenticator.
# A key for what the hub stores (32 bytes in hex) must be in JUPYTERHUB_CRYPT_KEY.

import os

c = get_config()  # noqa: F821

c.JupyterHub.authenticator_class = "escape"

# The IAM, character by character as its discovery document names itself.
c.EscapeAuthenticator.issuer = "https://iam-escape.cloud.cnaf.infn.it/"
c.EscapeAuthenticator.login_service = "ESCAPE IAM"

# The client that the IAM's administrators registered for this hub. The secret is
# never written here, and taken out of the environment, which the proxy would inherit.
c.EscapeAuthenticator.client_id = "escape-hub"
c.EscapeAuthenticator.client_secret = os.environ.pop("ESCAPE_HUB_CLIENT_SECRET", "")
c.EscapeAuthenticator.oauth_callback_url = "https://hub.example.org/hub/oauth_callback"

# Nobody comes in unless a rule lets them.
c.EscapeAuthenticator.allowed_groups = {"escape"}
c.EscapeAuthenticator.admin_groups = {"escape/hub-admins"}

# One entry a service: what the IAM calls it, and the file the session finds its
# access in. EOS asks at `endpoint` who it is: host and path, no scheme, no port.
c.EscapeAuthenticator.audiences = {
    "eos": {
        "audience": "eos-eulake",
        "scope": "openid profile",
        "file": "eos.token",
        "format": "eos",
        "label": "EOS storage",
        "endpoint": "iam-escape.cloud.cnaf.infn.it/userinfo",
    },
    "rucio": {
        "audience": "rucio",
        "scope": "openid profile",
        "file": "rucio.token",
        "label": "Rucio catalogue",
    },
}

# A session's own API token may fetch the access of its owner, and nothing else new.

c = get_config()  # noqa: F821

c.JupyterHub.custom_scopes = {
    "custom:escape:tokens": {
        "description": "Fetch access to the data lake for one's own running session",
    },
}

# JupyterHub gives a server only what its owner may do. This replaces the default role
# "user" by itself and our scope; a role of your own can be extended in the same way.
c.JupyterHub.load_roles = [
    {"name": "user", "scopes": ["self", "custom:escape:tokens!user"]},
]

"""The development hub: the fragments of hub_config, and a demo around them on loopback.

``make demo`` starts it, and so does ``jupyterhub -f jupyterhub_config.py``. It
starts the development IAM as a managed service. Settings of its own come from the
environment (``ESCAPE_HUB_DEMO_PORT`` and its kin) and have defaults. Everything
that must last is in one directory, see `escape_hub.demo.state`.
"""

import json
import os
import sys
from pathlib import Path

from escape_hub.demo.launcher import port
from escape_hub.demo.state import demo_secrets, state_directory

c = get_config()  # noqa: F821

HERE = Path(__file__).resolve().parent
STATE = state_directory()
SECRETS = demo_secrets(STATE)
HUB = f"http://127.0.0.1:{port('ESCAPE_HUB_DEMO_PORT')}"
IAM = f"http://127.0.0.1:{port('ESCAPE_HUB_DEMO_IAM_PORT')}/"
BIN = Path(sys.executable).parent

os.environ.setdefault("JUPYTERHUB_CRYPT_KEY", SECRETS.crypt_key)
os.environ["PATH"] = f"{BIN}:{os.environ.get('PATH', '')}"
# Nothing here leaves the machine, whatever proxy the rest of it needs.
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"

for fragment in sorted(HERE.glob("hub_config/jupyterhub_config.d/*.py")):
    load_subconfig(str(fragment))  # noqa: F821

# --- the hub, on loopback, with its state in one place --------------------------------
c.JupyterHub.bind_url = f"{HUB}/"
c.JupyterHub.hub_bind_url = f"http://127.0.0.1:{port('ESCAPE_HUB_DEMO_HUB_PORT')}"
c.JupyterHub.db_url = f"sqlite:///{STATE}/jupyterhub.sqlite"
c.JupyterHub.cookie_secret_file = str(STATE / "cookie_secret")
c.JupyterHub.cleanup_servers = True
c.JupyterHub.allow_named_servers = True
c.ConfigurableHTTPProxy.api_url = f"http://127.0.0.1:{port('ESCAPE_HUB_DEMO_PROXY_PORT')}"
c.ConfigurableHTTPProxy.pid_file = str(STATE / "jupyterhub-proxy.pid")

# --- the development IAM, a process of its own ----------------------------------------
IAM_CONFIG = {
    "clients": {
        "escape-hub": {
            "secret": SECRETS.client_secret,
            "redirect_uris": [f"{HUB}/hub/oauth_callback"],
            "post_logout_redirect_uris": [f"{HUB}/hub/escape/signed_out"],
            "backchannel_logout_uri": f"{HUB}/hub/escape/backchannel_logout",
        }
    },
    "refresh_rotation": True,
    "access_token_lifetime": int(os.environ.get("ESCAPE_HUB_DEMO_TOKEN_LIFETIME", "600")),
    "end_session": True,
}
iam_config = STATE / "iam.json"
with open(os.open(iam_config, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
    json.dump(IAM_CONFIG, file)

c.JupyterHub.services = [
    {
        "name": "development-iam",
        "command": [
            sys.executable, "-m", "escape_hub.demo.iam",
            "--port", str(port("ESCAPE_HUB_DEMO_IAM_PORT")),
            "--config", str(iam_config),
            "--state", str(STATE / "iam-state.json"),
        ],
    }
]  # fmt: skip

c.EscapeAuthenticator.issuer = IAM
c.EscapeAuthenticator.client_id = "escape-hub"
c.EscapeAuthenticator.client_secret = SECRETS.client_secret
c.EscapeAuthenticator.oauth_callback_url = f"{HUB}/hub/oauth_callback"
c.EscapeAuthenticator.contact = "whoever runs this demo"
# EOS cannot read an endpoint with a port, and no EOS is here: a placeholder.
c.EscapeAuthenticator.audiences["eos"]["endpoint"] = "iam.example.org/userinfo"

# --- sessions: processes of one and the same user, which isolates nobody ---------------
c.JupyterHub.spawner_class = "escape-simple"
c.Spawner.cmd = [str(BIN / "jupyterhub-singleuser")]
if os.getuid() == 0:
    c.EscapeSimpleLocalProcessSpawner.args = ["--allow-root"]
c.EscapeSimpleLocalProcessSpawner.home_dir_template = f"{STATE}/homes/{{username}}"
c.EscapeSpawnerMixin.rucio_host = "https://rucio.example.org"
c.EscapeSpawnerMixin.rucio_auth_host = "https://rucio-auth.example.org"

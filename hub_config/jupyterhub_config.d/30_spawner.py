# How sessions are started, and what each of them finds.
# Each setting's own help: jupyterhub --help-all, class EscapeSpawnerMixin.

c = get_config()  # noqa: F821

# "escape-local": processes of this machine's own users; the hub runs as root.
# "escape-simple": one system user for everybody, which isolates nobody.
# "escape-kube": pods of a Kubernetes cluster; see README.md, "Pods".
c.JupyterHub.spawner_class = "escape-local"

# Sessions survive a restart of the hub, and their access is renewed after it.
c.JupyterHub.cleanup_servers = False

# The session's own directory, 0700. The default is in memory where there is such a
# place. As in the first version of this service it would be:
# c.EscapeSpawnerMixin.token_dir = "/tmp/{username}"

# rucio.cfg of each session. The account comes from the claims of the IAM.
c.EscapeSpawnerMixin.rucio_host = "https://vre-rucio.cern.ch"
c.EscapeSpawnerMixin.rucio_auth_host = "https://vre-rucio-auth.cern.ch"
c.EscapeSpawnerMixin.rucio_account = "{preferred_username}"

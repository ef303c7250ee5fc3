# What people choose from when they start a session. Read once, at the hub's start.

from pathlib import Path

c = get_config()  # noqa: F821

c.EscapeSpawnerMixin.environments_file = str(
    Path(__file__).resolve().parent.parent / "environments.yaml"
)

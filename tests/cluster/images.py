"""The images that every test cluster has."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.cluster.build import cache_folder
from tests.cluster.node_agent.images import Image

CHECKOUT = Path(__file__).resolve().parent.parent.parent

HOST_IMAGE = "escape-hub-test/host:1"
"""The machine's root with the project's virtual environment first on PATH, user 1000:100."""

PLAIN_IMAGE = "escape-hub-test/plain:1"
"""The machine's root and nothing of the project, user 0:0: somebody else's image."""


def default_images() -> dict[str, Image]:
    """The recipes that every cluster has."""
    venv, python = Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()
    own = [CHECKOUT, venv, cache_folder("proxy")]
    if not python.is_relative_to("/usr"):
        own.append(python)
    path = f"{venv}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {
        HOST_IMAGE: Image(
            command=["sleep", "infinity"],
            user=1000,
            group=100,
            working_dir="/home/jovyan",
            env={"PATH": path, "HOME": "/home/jovyan", "LANG": "C.UTF-8"},
            binds=[str(folder) for folder in own if folder.exists()],
        ),
        PLAIN_IMAGE: Image(command=["sleep", "infinity"], env={"LANG": "C.UTF-8"}),
    }

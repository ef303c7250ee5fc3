"""What runs beside the user's notebook; standard library only, access tokens only."""

from __future__ import annotations

from typing import Any


def _jupyter_server_extension_points() -> list[dict[str, Any]]:
    """Where jupyter_server finds the extension; imported by nobody else."""
    from escape_hub.session.extension import SessionExtension

    return [{"module": "escape_hub.session.extension", "app": SessionExtension}]


def _jupyter_labextension_paths() -> list[dict[str, str]]:
    """Where a development install finds JupyterLab's part."""
    return [{"src": "labextension", "dest": "escape-hub"}]

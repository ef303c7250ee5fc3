"""The error page of a session that the cluster refused, or did not bring up."""

from __future__ import annotations

import html
from typing import Any

from jupyterhub import spawner as upstream
from tornado import web

from escape_hub.core.pod_trouble import Trouble

#: JupyterHub 6 does not count these as a sign of a broken hub, which stops after a few.
_StartException: Any = getattr(upstream, "SpawnException", web.HTTPError)


class StartFailedError(_StartException):
    """A start that the cluster refused or never finished; the page shows these words."""

    def __init__(self, trouble: Trouble) -> None:
        web.HTTPError.__init__(self, trouble.status, trouble.words)
        self.trouble = trouble
        self.reason = trouble.code
        self.message = f"{trouble.words} (reference: {trouble.code})"
        self.message_html = (
            f"{html.escape(trouble.words)} <small>Reference: {html.escape(trouble.code)}</small>"
        )
        self.log_message = f"{trouble.words} [{trouble.code}]"
        self.jupyterhub_message = self.message
        self.jupyterhub_html_message = self.message_html

    def __str__(self) -> str:
        return str(self.log_message)

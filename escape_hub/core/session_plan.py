"""What the hub tells a session about the files it should keep, without any secret.

The plan travels as JSON in the environment variable ``ESCAPE_HUB_SESSION`` and
is visible in a pod's spec: it must never hold a token.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from escape_hub.core.audiences import Audience
from escape_hub.errors import SettingsError

VERSION = 1
ENV = "ESCAPE_HUB_SESSION"


@dataclass(frozen=True, slots=True)
class RucioClient:
    """The values of ``rucio.cfg``'s ``[client]`` section for one user.

    ``audience`` is the configured name of the audience whose token file Rucio reads.
    """

    rucio_host: str
    auth_host: str
    account: str
    audience: str = "rucio"
    ca_cert: str = ""
    vo: str = ""
    request_retries: int = 3


@dataclass(frozen=True, slots=True)
class SessionPlan:
    """Directory, audiences and Rucio client of one session.

    ``token_dir`` is absolute and belongs to this session alone. ``sign_in_path``
    is a path on the hub's host that starts a new login. ``scratch_dir`` is the user's
    own directory on the scratch space, for the session to make; empty: none.
    """

    token_dir: str
    audiences: tuple[Audience, ...]
    rucio: RucioClient | None = None
    sign_in_path: str = "/hub/oauth_login"
    scratch_dir: str = ""

    def to_json(self) -> str:
        """The text for ``ESCAPE_HUB_SESSION``."""
        return json.dumps({"version": VERSION, **asdict(self)}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> SessionPlan:
        """Read the plan; `SettingsError` when hub and session speak different versions."""
        try:
            raw: dict[str, Any] = json.loads(text)
            version = raw.pop("version")
            if version != VERSION:
                raise SettingsError(
                    f"{ENV} has version {version!r}, this session reads {VERSION}: "
                    "install the hub's version of escape-hub in the notebook image"
                )
            rucio = raw.pop("rucio")
            audiences = tuple(Audience(**a) for a in raw.pop("audiences"))
            return cls(audiences=audiences, rucio=RucioClient(**rucio) if rucio else None, **raw)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise SettingsError(
                f"{ENV} cannot be read ({type(error).__name__}): install the hub's version of "
                "escape-hub in the notebook image"
            ) from None

    def path(self, audience: Audience) -> str:
        """Absolute path of the audience's token file."""
        return f"{self.token_dir}/{audience.file}"

    def environment(self) -> dict[str, str]:
        """The variables every process of the session starts with; paths and settings only.

        ``BEARER_TOKEN*`` is never set: Rucio and XRootD clients would prefer it to
        the right file.
        """
        env = {ENV: self.to_json()}
        for audience in self.audiences:
            if audience.format == "eos":
                env["OAUTH2_TOKEN"] = f"FILE:{self.path(audience)}"
        if self.rucio is not None:
            env["RUCIO_CONFIG"] = f"{self.token_dir}/rucio.cfg"
        return env

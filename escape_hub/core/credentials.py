"""The text of the files that a session holds: EOS token, bare token, ``rucio.cfg``."""

from __future__ import annotations

import configparser
import io
import re

from escape_hub.core.audiences import Audience, check_endpoint
from escape_hub.core.session_plan import RucioClient, SessionPlan
from escape_hub.errors import MalformedTokenError, SettingsError

#: RFC 6750 section 2.1, b64token: what may follow "Bearer". No ``:``, so EOS can split at it.
_B64TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*")
MAX_TOKEN_LENGTH = 16 * 1024


def token_text(audience: Audience, token: str) -> str:
    """The exact content of the audience's token file, without a newline at the end.

    Format ``eos`` is ``oauth2:<token>:<endpoint>`` (EOS 5.5, ``eosxd``); a malformed
    one crashed the server once (EOS-6500), so anything that is no ``b64token``
    raises `MalformedTokenError`. Format ``bare`` is the token alone: Rucio sends a
    newline on as part of the header.
    """
    if len(token) > MAX_TOKEN_LENGTH or not _B64TOKEN.fullmatch(token):
        raise MalformedTokenError(
            f"the token for {audience.label!r} is not of the form RFC 6750 allows; "
            "the old file is kept"
        )
    if audience.format == "eos":
        endpoint = check_endpoint(audience.endpoint, where=f"audience {audience.name!r}")
        return f"oauth2:{token}:{endpoint}"
    return token


def rucio_cfg(plan: SessionPlan) -> str:
    """The text of ``rucio.cfg`` for rucio-clients 41 (``rucio/common/config.py``).

    Raises `SettingsError` when the plan has no Rucio client, or names an audience
    that is not configured.
    """
    client = plan.rucio
    if client is None:
        raise SettingsError("the session has no Rucio client configured")
    found = [a for a in plan.audiences if a.name == client.audience]
    if not found:
        raise SettingsError(
            f"rucio audience {client.audience!r} is not among the audiences "
            f"{[a.name for a in plan.audiences]}"
        )
    section = _client_section(client, found[0], plan.path(found[0]))
    parser = configparser.RawConfigParser()
    # The client reads the file with interpolation: a bare % would be an error there.
    parser["client"] = {k: v.replace("%", "%%") for k, v in section.items() if v}
    out = io.StringIO()
    parser.write(out)
    return out.getvalue()


def _client_section(client: RucioClient, audience: Audience, token_path: str) -> dict[str, str]:
    values = {
        "rucio_host": client.rucio_host,
        "auth_host": client.auth_host,
        "auth_type": "oidc",
        "auth_token_file_path": token_path,
        "account": client.account,
        "vo": client.vo,
        "oidc_audience": audience.audience,
        "oidc_scope": audience.scope,
        "ca_cert": client.ca_cert,
        "request_retries": str(client.request_retries),
    }
    for key, value in values.items():
        if "\n" in value or "\r" in value:
            raise SettingsError(f"rucio.cfg: {key} holds a line break")
    return values

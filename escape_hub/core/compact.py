"""The compact form of a signed JWT (RFC 7515 section 7.1), read without believing it."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

_FORM = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")


def _object(part: str) -> dict[str, Any] | None:
    try:
        value: Any = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def peek_header(token: str) -> dict[str, Any] | None:
    """The header of a token, **unverified**; None when it is no signed JWT."""
    return _object(token.split(".")[0]) if _FORM.fullmatch(token) else None


def peek_claims(token: str) -> dict[str, Any] | None:
    """The claims of a token, **unverified**; None when it is no signed JWT with claims."""
    return _object(token.split(".")[1]) if peek_header(token) is not None else None

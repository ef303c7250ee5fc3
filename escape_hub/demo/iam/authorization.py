"""The authorization request of a client, and the way back to it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from escape_hub.demo.iam.config import ClientConfig

_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")


def add_query(url: str, params: dict[str, str]) -> str:
    """``url`` with parameters added to its query."""
    parts = urlsplit(url)
    query = urlencode([*parse_qsl(parts.query, keep_blank_values=True), *params.items()])
    return urlunsplit(parts._replace(query=query))


@dataclass(frozen=True, slots=True)
class Request:
    """An authorization request (OpenID Connect Core section 3.1.2.1) whose address is trusted."""

    client_id: str
    client: ClientConfig
    redirect_uri: str
    params: dict[str, str]

    @property
    def scope(self) -> list[str]:
        """The requested scopes, each once."""
        return list(dict.fromkeys(self.params.get("scope", "").split()))

    @property
    def prompt(self) -> set[str]:
        """The values of ``prompt``."""
        return set(self.params.get("prompt", "").split())

    def fault(self) -> tuple[str, str] | None:
        """What is wrong with it: ``error`` and ``error_description``; None when it is good."""
        if self.params.get("response_type") != "code":
            return "unsupported_response_type", "Only response_type=code is supported"
        if unknown := sorted(set(self.scope) - set(self.client.scopes)):
            return "invalid_scope", f"Scope not allowed: {' '.join(unknown)}"
        if self.params.get("code_challenge_method") != "S256":
            return "invalid_request", "PKCE with code_challenge_method=S256 is required"
        if not _CHALLENGE.fullmatch(self.params.get("code_challenge", "")):
            return "invalid_request", "code_challenge is not a SHA-256 digest"
        return None

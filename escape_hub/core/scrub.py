"""Take everything that could be a secret out of a text that somebody else wrote.

An issuer's ``error_description`` may echo what was sent to it: MITREid, the base
of INDIGO IAM 1.x, repeats whole tokens and authorization codes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

#: What stands in the place of a removed piece.
REMOVED = "[removed]"
#: No run of token characters as long as this survives.
LONGEST_RUN = 20
#: A shorter run is removed when it is a piece of a secret that was sent.
SHORTEST_PIECE = 5

_MAX = 300
_MOST = 8192  # characters that are looked at
# RFC 6750 b64token, RFC 3986 unreserved and percent-encoding: what tokens are made of.
_RUN = re.compile(r"[A-Za-z0-9\-._~+/=%]+")


def shortened(text: str, limit: int) -> str:
    """``text``, ``limit`` characters at most, without a piece of what was cut through."""
    if len(text) <= limit:
        return text
    head = text[:limit]
    return head[: max(head.rfind(c) for c in " \t\r\n") + 1]


def scrub(text: str, secrets: Iterable[str] = ()) -> str:
    """``text`` on one line, at most 300 characters, without anything that looks like a secret.

    Long runs of token characters go whatever they are (a user's UUID as well, which
    nobody misses). ``secrets`` are values that were sent in the request: they go
    whole or in pieces, however short (an authorization code can have six characters).
    """
    text = shortened(text, _MOST)
    known = [secret for secret in secrets if len(secret) >= SHORTEST_PIECE]
    for secret in known:
        text = text.replace(secret, REMOVED)

    def judge(run: re.Match[str]) -> str:
        word = run.group()
        if len(word) >= LONGEST_RUN:
            return REMOVED
        if len(word) >= SHORTEST_PIECE and any(word in secret for secret in known):
            return REMOVED
        return word

    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return _RUN.sub(judge, line)[:_MAX]

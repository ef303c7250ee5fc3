"""Addresses of an issuer: which may be used, and how two issuers differ."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlencode, urlsplit

WELL_KNOWN = "/.well-known/openid-configuration"


def is_loopback(host: str | None) -> bool:
    """Whether a host of a URL is this machine itself, by name or address."""
    if host is None:
        return False
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_safe_url(url: object) -> bool:
    """Whether ``url`` is an absolute https address, or http on loopback.

    No fragment, no user, nothing but printable ASCII.
    """
    if not isinstance(url, str) or any(c <= " " or c > "~" for c in url):
        return False
    try:
        parts = urlsplit(url)
        host = parts.hostname
        _ = parts.port  # raises for a port that is none
    except ValueError:
        return False
    if not host or parts.fragment or parts.username is not None:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))


def differ_by_slash(one: str, other: str) -> bool:
    """Whether two issuers differ by a trailing slash and by nothing else."""
    return one != other and one.rstrip("/") == other.rstrip("/")


def discovery_url(issuer: str) -> str:
    """Where the metadata is: a trailing slash goes first (Discovery 1.0 section 4)."""
    return issuer.rstrip("/") + WELL_KNOWN


def with_query(url: str, query: Mapping[str, str]) -> str:
    """``url`` with parameters added to those it may have (RFC 6749 section 3.1)."""
    return f"{url}{'&' if '?' in url else '?'}{urlencode(query)}"

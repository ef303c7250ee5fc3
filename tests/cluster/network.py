"""The pods' network: one bridge on this machine, without a way out of it.

Pods reach the machine at the bridge's address, the machine reaches every pod at its own
address, pods reach each other. Nothing is routed or translated to the outside. Services, DNS
and NetworkPolicy are stored by the API server and have no effect here.
"""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess

PREFIX = "ehb"
"""Bridges are called this and the hexadecimal id of the process that owns them."""

_RANGE = ipaddress.IPv4Network("198.18.0.0/15")
"""Set aside for tests inside one's own network (RFC 2544), so no real peer is hidden by it."""


def ip(*arguments: str, namespace: str = "") -> str:
    """Run ``ip``, in a named network namespace if one is given; its output."""
    within = ["-n", namespace] if namespace else []
    done = subprocess.run(["ip", *within, *arguments], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


class Bridge:
    """Made on construction, gone after `remove`; leftovers of dead owners go at once."""

    def __init__(self) -> None:
        remove_leftovers()
        self.name = f"{PREFIX}{os.getpid():x}"
        self.subnet = _free_subnet()
        self.host_ip = str(self.subnet[1])
        ip("link", "add", self.name, "type", "bridge")
        ip("addr", "add", f"{self.host_ip}/{self.subnet.prefixlen}", "dev", self.name)
        ip("link", "set", self.name, "up")

    def remove(self) -> None:
        ip("link", "del", self.name)


def remove_leftovers() -> None:
    """Delete the bridges of test runs that were killed."""
    for link in json.loads(ip("-j", "link", "show", "type", "bridge") or "[]"):
        name = link.get("ifname", "")
        if name.startswith(PREFIX) and not is_alive(name.removeprefix(PREFIX)):
            ip("link", "del", name)


def is_alive(owner: str) -> bool:
    """Whether the process with this hexadecimal id runs; True for what is no id."""
    try:
        return os.path.exists(f"/proc/{int(owner, 16)}")
    except ValueError:
        return True


def _free_subnet() -> ipaddress.IPv4Network:
    """A /24 of the range that no interface of this machine is in; runs at once begin apart."""
    taken = [
        ipaddress.IPv4Network(f"{address['local']}/{address['prefixlen']}", strict=False)
        for link in json.loads(ip("-j", "-4", "addr"))
        for address in link.get("addr_info", [])
    ]
    subnets = list(_RANGE.subnets(new_prefix=24))
    first = os.getpid() % len(subnets)
    for subnet in subnets[first:] + subnets[:first]:
        if not any(subnet.overlaps(other) for other in taken):
            return subnet
    raise RuntimeError("every subnet for a test cluster is taken")

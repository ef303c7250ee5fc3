"""A pod's network: a namespace with one interface on the cluster's bridge."""

from __future__ import annotations

import ipaddress
import os
import subprocess
from pathlib import Path
from typing import Any

from tests.cluster.network import ip
from tests.cluster.node_agent.config import AgentConfig

_FIRST = 10


class Addresses:
    """Hands out the bridge's addresses; one that was given back rests as long as it can."""

    def __init__(self, subnet: str) -> None:
        self._free = [str(host) for host in ipaddress.ip_network(subnet).hosts()][_FIRST:]

    def take(self) -> str:
        return self._free.pop(0)

    def give_back(self, address: str) -> None:
        self._free.append(address)


class PodNetwork:
    """``address`` and ``path`` (of the namespace) from `make` until `remove`.

    A pod with hostNetwork has the host's: no namespace and the bridge's address.
    """

    def __init__(self, config: AgentConfig, addresses: Addresses, number: int, host: bool) -> None:
        self._config, self._addresses, self._host = config, addresses, host
        self._name = f"pod{number}"
        # The name is seen on the machine, where another test run may have its own pods.
        self._outside = f"{config.bridge.replace('ehb', 'ehv')}.{number:x}"[-15:]
        self.address = ""
        self.path = ""

    def make(self) -> None:
        if self._host:
            self.address = self._config.host_ip
            return
        self.address = self._addresses.take()
        width = ipaddress.ip_network(self._config.subnet).prefixlen
        ip("netns", "add", self._name)
        self.path = f"/run/netns/{self._name}"
        ip("link", "add", self._outside, "type", "veth", "peer", "name", "eth0",
           "netns", self._name)  # fmt: skip
        ip("link", "set", self._outside, "master", self._config.bridge, "up")
        ip("link", "set", "lo", "up", namespace=self._name)
        ip("addr", "add", f"{self.address}/{width}", "dev", "eth0", namespace=self._name)
        ip("link", "set", "eth0", "up", namespace=self._name)
        ip("route", "add", "default", "via", self._config.host_ip, namespace=self._name)

    def remove(self) -> None:
        if self.path:
            subprocess.run(["ip", "netns", "del", self._name], capture_output=True)
            self._addresses.give_back(self.address)
            self.path = ""


def write_hosts(folder: Path, pod_name: str, address: str, aliases: list[dict[str, Any]]) -> Path:
    """``/etc/hosts`` as kubelet writes it; there is no DNS, so ``hostAliases`` matter."""
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost", f"{address}\t{pod_name}"]
    for alias in aliases:
        lines.append("\t".join([alias["ip"], *(alias.get("hostnames") or [])]))
    path = folder / "etc-hosts"
    path.write_text("\n".join(lines) + os.linesep)
    path.chmod(0o644)
    return path

"""What a pod's manifest takes from elsewhere: Secrets, ConfigMaps, tokens, its own fields."""

from __future__ import annotations

import base64
import json
import re
import time
from typing import Any

from tests.cluster.kube_api import ApiError
from tests.cluster.node_agent.atomic_writer import File, Payload
from tests.cluster.node_agent.client import Client
from tests.cluster.node_agent.oci import ConfigError, expand
from tests.cluster.node_agent.status import Json

PLURALS = {"secret": "secrets", "configmap": "configmaps"}


def pod_field(pod: Json, path: str) -> str:
    """A ``fieldRef`` as text. ``pod`` carries the agent's own status (pod and host address)."""
    if keyed := re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path):
        return str((pod["metadata"].get(keyed[1]) or {}).get(keyed[2], ""))
    value: Any = pod
    for part in path.split("."):
        value = (value or {}).get(part)
    if isinstance(value, dict):
        return "\n".join(f"{key}={json.dumps(text)}" for key, text in sorted(value.items()))
    return "" if value is None else str(value)


def token_owner(pod: Json) -> int | None:
    """The uid that all containers share, if their manifest says so: kubelet gives it the token."""
    common = (pod["spec"].get("securityContext") or {}).get("runAsUser")
    containers = [*(pod["spec"].get("initContainers") or []), *pod["spec"]["containers"]]
    uids = {(c.get("securityContext") or {}).get("runAsUser", common) for c in containers}
    return uids.pop() if len(uids) == 1 else None


class Sources:
    """Reads for one pod, as the node: the Node authorizer allows what the pod refers to."""

    def __init__(self, client: Client, pod: Json) -> None:
        self._client, self.pod = client, pod
        self._namespace = pod["metadata"]["namespace"]
        self._tokens: dict[tuple[str, str], tuple[bytes, float]] = {}

    async def data(self, kind: str, name: str, *, optional: bool = False) -> dict[str, bytes]:
        """The keys of a ``secret`` or ``configmap``. Raises `ConfigError` when there is none."""
        path = f"/api/v1/namespaces/{self._namespace}/{PLURALS[kind]}/{name}"
        try:
            # The authorizer's view of the pod lags a moment behind the binding.
            found = await self._client.insistently(
                lambda: self._client.request("GET", path), seconds=3 if optional else 8
            )
        except ApiError as error:
            if optional and error.status in (403, 404):
                return {}
            if error.status == 404:
                raise ConfigError(f'{kind} "{name}" not found') from None
            raise
        data = {k: base64.b64decode(v) for k, v in (found.get("binaryData") or {}).items()}
        for key, value in (found.get("data") or {}).items():
            data[key] = base64.b64decode(value) if kind == "secret" else value.encode()
        return data

    async def payload(self, volume: Json) -> Payload:
        """The files of a secret, configMap, downwardAPI or projected volume."""
        if "projected" not in volume:
            return await self._payload_of(volume, volume["name"], 0o644)
        projected = volume["projected"]
        files: Payload = {}
        mode = projected.get("defaultMode", 0o644)
        for source in projected.get("sources") or []:
            files |= await self._payload_of(source, volume["name"], mode)
        return files

    async def _payload_of(self, source: Json, volume: str, mode: int) -> Payload:
        if "secret" in source:
            part = source["secret"]
            return await self._keys(
                "secret", part.get("secretName") or part.get("name"), part, mode
            )
        if "configMap" in source:
            part = source["configMap"]
            return await self._keys("configmap", part["name"], part, mode)
        if "downwardAPI" in source:
            part = source["downwardAPI"]
            mode = part.get("defaultMode", mode)
            return {
                item["path"]: File(
                    pod_field(self.pod, item["fieldRef"]["fieldPath"]).encode(),
                    item.get("mode", mode),
                )
                for item in part.get("items") or []
            }
        return await self._token(source["serviceAccountToken"], volume, mode)

    async def _keys(self, kind: str, name: str, part: Json, mode: int) -> Payload:
        mode = part.get("defaultMode", mode)
        optional = part.get("optional", False)
        data = await self.data(kind, name, optional=optional)
        if not part.get("items"):
            return {key: File(content, mode) for key, content in data.items()}
        files = {}
        for item in part["items"]:
            if item["key"] in data:
                files[item["path"]] = File(data[item["key"]], item.get("mode", mode))
            elif not optional:
                raise ConfigError(f"references non-existent {kind} key: {item['key']}")
        return files

    async def _token(self, part: Json, volume: str, mode: int) -> Payload:
        """A token bound to this pod, renewed at 80 % of its life."""
        key = (volume, part["path"])
        if key not in self._tokens or self._tokens[key][1] < time.time():
            lifetime = part.get("expirationSeconds", 3600)
            meta = self.pod["metadata"]
            reference = {
                "apiVersion": "v1",
                "kind": "Pod",
                "name": meta["name"],
                "uid": meta["uid"],
            }
            spec: Json = {"expirationSeconds": lifetime, "boundObjectRef": reference}
            if part.get("audience"):
                spec["audiences"] = [part["audience"]]
            account = self.pod["spec"].get("serviceAccountName", "default")
            path = f"/api/v1/namespaces/{self._namespace}/serviceaccounts/{account}/token"
            answer = await self._client.insistently(
                lambda: self._client.request("POST", path, {"spec": spec}), seconds=8
            )
            self._tokens[key] = (answer["status"]["token"].encode(), time.time() + 0.8 * lifetime)
        owner = token_owner(self.pod)
        private = owner is not None or "fsGroup" in (self.pod["spec"].get("securityContext") or {})
        # kubelet 0600s a token and lets the fsGroup rule make it readable for the group.
        content = self._tokens[key][0]
        return {part["path"]: File(content, 0o600 if private else mode, owner or 0)}

    async def environment(self, container: Json, given: dict[str, str]) -> dict[str, str]:
        """The container's variables on top of ``given``, references resolved in order."""
        env = dict(given)
        for entry in container.get("envFrom") or []:
            kind = "secret" if "secretRef" in entry else "configmap"
            ref = entry.get("secretRef") or entry["configMapRef"]
            data = await self.data(kind, ref["name"], optional=ref.get("optional", False))
            env |= {entry.get("prefix", "") + key: text.decode() for key, text in data.items()}
        for entry in container.get("env") or []:
            value = await self._value(entry, env)
            if value is not None:
                env[entry["name"]] = value
        return env

    async def _value(self, entry: Json, env: dict[str, str]) -> str | None:
        source = entry.get("valueFrom")
        if not source:
            return expand(entry.get("value", ""), env)
        if "fieldRef" in source:
            return pod_field(self.pod, source["fieldRef"]["fieldPath"])
        for field, kind in (("secretKeyRef", "secret"), ("configMapKeyRef", "configmap")):
            if field in source:
                ref = source[field]
                optional = ref.get("optional", False)
                data = await self.data(kind, ref["name"], optional=optional)
                if ref["key"] in data:
                    return data[ref["key"]].decode()
                if optional:
                    return None
                raise ConfigError(f"couldn't find key {ref['key']} in {kind} {ref['name']}")
        raise ConfigError(f"the node agent has no {', '.join(source)}")

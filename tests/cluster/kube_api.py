"""Talk to a Kubernetes API server in plain dictionaries, as the manifests are written."""

from __future__ import annotations

import json
import ssl
import time
from pathlib import Path
from typing import Any

import httpx
import yaml

from tests.cluster.certificates import CertificateFiles

Manifest = dict[str, Any]
APPLY = "application/apply-patch+yaml"
MERGE = "application/strategic-merge-patch+json"


class ApiError(RuntimeError):
    """The API server refused; ``status`` is HTTP's, ``reason`` is Kubernetes' own."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message = status, reason, message


def raise_for(response: httpx.Response) -> None:
    if response.is_success:
        return
    try:
        said = response.json()
    except ValueError:
        said = {"message": response.text[:300]}
    raise ApiError(response.status_code, said.get("reason", ""), said.get("message", ""))


def write_kubeconfig(
    path: Path,
    server: str,
    ca_file: Path,
    *,
    files: CertificateFiles | None = None,
    token: str = "",
    namespace: str = "default",
) -> Path:
    """A 0600 kubeconfig of one context, for a client certificate or a bearer token."""
    user: dict[str, str] = {}
    if files:
        user = {"client-certificate": str(files.certificate), "client-key": str(files.key)}
    elif token:
        user = {"token": token}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [
            {"name": "test", "cluster": {"server": server, "certificate-authority": str(ca_file)}}
        ],
        "users": [{"name": "test", "user": user}],
        "contexts": [
            {"name": "test", "context": {"cluster": "test", "user": "test", "namespace": namespace}}
        ],
    }
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))
    return path


def client_arguments(kubeconfig: Path) -> dict[str, Any]:
    """Arguments for ``httpx.Client`` or ``httpx.AsyncClient`` that speak as ``kubeconfig`` says."""
    config = yaml.safe_load(kubeconfig.read_text())
    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    context = ssl.create_default_context(cafile=cluster["certificate-authority"])
    headers = {}
    if "client-certificate" in user:
        context.load_cert_chain(user["client-certificate"], user["client-key"])
    if "token" in user:
        headers["Authorization"] = f"Bearer {user['token']}"
    return {
        "base_url": cluster["server"],
        "verify": context,
        "headers": headers,
        "timeout": httpx.Timeout(15.0),
        "trust_env": False,
    }


class KubeApi:
    """One identity at the API server, for tests: blocking, and an error for each refusal."""

    def __init__(self, kubeconfig: Path) -> None:
        self._http = httpx.Client(**client_arguments(kubeconfig))
        self._resources: dict[str, dict[str, tuple[str, bool]]] = {}

    def close(self) -> None:
        self._http.close()

    def request(self, method: str, path: str, body: Any = None, **query: Any) -> Manifest:
        """The JSON answer. Raises `ApiError`, and ``httpx.TransportError`` when none came."""
        content_type = query.pop("content_type", "application/json")
        response = self._http.request(
            method,
            path,
            content=None if body is None else json.dumps(body),
            headers={"Content-Type": content_type},
            params=query,
        )
        raise_for(response)
        return response.json() if response.content[:1] == b"{" else {"text": response.text}

    def path(self, kind: str, namespace: str = "", name: str = "", version: str = "v1") -> str:
        """The path of a kind's collection or of one object, from the server's own discovery."""
        root = f"/api/{version}" if "/" not in version else f"/apis/{version}"
        if version not in self._resources:
            found = self.request("GET", root)["resources"]
            self._resources[version] = {
                r["kind"]: (r["name"], r["namespaced"]) for r in found if "/" not in r["name"]
            }
        plural, namespaced = self._resources[version][kind]
        middle = f"/namespaces/{namespace}" if namespaced and namespace else ""
        return f"{root}{middle}/{plural}" + (f"/{name}" if name else "")

    def apply(self, manifest: Manifest, *, strict: bool = True) -> Manifest:
        """Server-side apply; ``strict`` refuses unknown and doubled fields."""
        meta = manifest["metadata"]
        path = self.path(
            manifest["kind"], meta.get("namespace", ""), meta["name"], manifest["apiVersion"]
        )
        return self.request(
            "PATCH",
            path,
            manifest,
            content_type=APPLY,
            fieldManager="cluster-tests",
            force="true",
            fieldValidation="Strict" if strict else "Ignore",
        )

    def get(self, kind: str, namespace: str, name: str, version: str = "v1") -> Manifest:
        return self.request("GET", self.path(kind, namespace, name, version))

    def find(self, kind: str, namespace: str, name: str, version: str = "v1") -> Manifest | None:
        """The object, or None when there is none of this name."""
        try:
            return self.get(kind, namespace, name, version)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(self, kind: str, namespace: str = "", version: str = "v1", **query: Any) -> list[Any]:
        found = self.request("GET", self.path(kind, namespace, version=version), **query)
        return list(found["items"])

    def delete(
        self, kind: str, namespace: str, name: str, version: str = "v1", **options: Any
    ) -> None:
        """Ask for the end of an object; one that is gone already is fine."""
        try:
            self.request("DELETE", self.path(kind, namespace, name, version), options or None)
        except ApiError as error:
            if error.status != 404:
                raise

    def may(self, verb: str, resource: str, namespace: str) -> bool:
        """Whether this identity may do ``verb``, as the authorizers see it now."""
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {
                "resourceAttributes": {"verb": verb, "resource": resource, "namespace": namespace}
            },
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        return bool(self.request("POST", path, review)["status"]["allowed"])

    def until_answered(self, seconds: float = 60.0) -> None:
        """Wait until the server is ready; right after its start its RBAC caches answer 403."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.request("GET", "/readyz")
                return
            except (ApiError, httpx.TransportError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

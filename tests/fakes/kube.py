"""As much of the Kubernetes API as KubeSpawner uses, in this process, with outages and refusals.

What it answers is what kube-apiserver 1.36 answers; `tests/cluster` runs the same mends
against that one.
"""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import tornado.web
from tornado.httpserver import HTTPServer

from tests.harness.processes import free_port


class FakeKube:
    """Pods by name. `away` closes the port and its connections, `back` opens it again."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.pods: dict[str, dict[str, Any]] = {}
        self.created: list[dict[str, Any]] = []
        #: What a create answers instead of 201: (HTTP status, message).
        self.refusal: tuple[int, str] | None = None
        #: How many more requests are answered 403, as right after a restart.
        self.cold = 0
        #: What a new pod's status is.
        self.status: dict[str, Any] = running()
        self.lists = 0
        self._server: HTTPServer | None = None
        self._gone = asyncio.Event()

    def back(self) -> None:
        self._gone = asyncio.Event()
        routes = [(r"/api/v1/namespaces/([^/]+)/(pods|events)(?:/([^/]+))?", _Objects)]
        server = HTTPServer(tornado.web.Application(routes, kube=self, log_function=lambda _: None))
        server.listen(self.port, "127.0.0.1", flags=socket.AI_PASSIVE)
        self._server = server

    async def away(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            self._gone.set()
            server.stop()
            await server.close_all_connections()

    async def wait_gone(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._gone.wait(), seconds)
        except TimeoutError:
            return


def running() -> dict[str, Any]:
    ready = {"name": "notebook", "ready": True, "state": {"running": {}}}
    return {"phase": "Running", "podIP": "127.0.0.1", "containerStatuses": [ready]}


class _Objects(tornado.web.RequestHandler):
    @property
    def kube(self) -> FakeKube:
        found: FakeKube = self.settings["kube"]
        return found

    def prepare(self) -> None:
        if self.kube.cold > 0:
            self.kube.cold -= 1
            self.refuse(403, 'pods is forbidden: User "hub" cannot do that')

    def refuse(self, status: int, message: str) -> None:
        self.set_status(status)
        self.finish({"kind": "Status", "status": "Failure", "message": message, "code": status})

    async def get(self, namespace: str, kind: str, name: str | None) -> None:
        items = list(self.kube.pods.values()) if kind == "pods" else []
        if self.get_argument("watch", ""):
            for pod in items:
                self.write(json.dumps({"type": "MODIFIED", "object": pod}) + "\n")
            await self.flush()
            await self.kube.wait_gone(0.3)
            return
        if kind == "pods":
            self.kube.lists += 1
        self.write({"metadata": {"resourceVersion": "1"}, "items": items})

    def post(self, namespace: str, kind: str, name: str | None) -> None:
        pod = json.loads(self.request.body)
        if self.kube.refusal:
            self.refuse(*self.kube.refusal)
            return
        self.kube.created.append(pod)
        pod["metadata"] |= {"namespace": namespace, "uid": "1", "resourceVersion": "2"}
        self.kube.pods[pod["metadata"]["name"]] = {**pod, "status": self.kube.status}
        self.set_status(201)
        self.write(pod)

    def delete(self, namespace: str, kind: str, name: str) -> None:
        pod = self.kube.pods.get(name)
        options = json.loads(self.request.body or "{}")
        uid = (options.get("preconditions") or {}).get("uid")
        if pod is None:
            self.refuse(404, "not found")
        elif uid and uid != pod["metadata"]["uid"]:
            self.refuse(409, "the UID in the precondition does not match")
        else:
            del self.kube.pods[name]
            self.write({k: v for k, v in pod.items() if k != "status"})

"""A pod from its binding to its end."""

from __future__ import annotations

import asyncio
import logging
import shutil
import time
from pathlib import Path

from tests.cluster.kube_api import ApiError
from tests.cluster.node_agent.client import Client
from tests.cluster.node_agent.config import AgentConfig
from tests.cluster.node_agent.container import Container
from tests.cluster.node_agent.oci import Bind
from tests.cluster.node_agent.pod_network import Addresses, PodNetwork, write_hosts
from tests.cluster.node_agent.runtime import Crun
from tests.cluster.node_agent.sources import Sources
from tests.cluster.node_agent.status import Json, pod_status
from tests.cluster.node_agent.volumes import VolumeError, Volumes

log = logging.getLogger("node_agent.pod")

SIDECAR_GRACE = 2.0
"""Seconds that a sidecar has at least, when the main containers used up the pod's grace."""


class Pod:
    """Init containers and sidecars in order, then the main containers, then the end.

    Implements ``surroundings.Surroundings``. `begin` starts the work; `terminate` ends it and
    deletes the object; both return at once.
    """

    def __init__(
        self,
        manifest: Json,
        number: int,
        *,
        config: AgentConfig,
        client: Client,
        crun: Crun,
        addresses: Addresses,
        present_images: set[str],
    ) -> None:
        self.manifest, self.config, self.client, self.crun = manifest, config, client, crun
        self.present_images = present_images
        meta, spec = manifest["metadata"], manifest["spec"]
        self.uid, self.path = meta["uid"], f"/api/v1/namespaces/{meta['namespace']}/pods/"
        self.path += meta["name"]
        self.folder: Path = config.pods / self.uid
        self.sources = Sources(client, manifest)
        self.volumes = Volumes(config, manifest, self.sources)
        self.network = PodNetwork(config, addresses, number, bool(spec.get("hostNetwork")))
        self.init = [
            Container(self, c, "sidecar" if c.get("restartPolicy") == "Always" else "init")
            for c in spec.get("initContainers") or []
        ]
        self.main = [Container(self, c, "main") for c in spec["containers"]]
        self.etc_binds: list[Bind] = []
        self.ended = asyncio.Event()
        """The pod has left this node: nothing of it runs or is mounted, the object is gone."""
        self._status: Json = dict(manifest.get("status") or {})
        self._dirty = asyncio.Event()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._runs: list[tuple[Container, asyncio.Task[None]]] = []

    @property
    def address(self) -> str:
        return self.network.address

    @property
    def network_path(self) -> str:
        return self.network.path

    def changed(self) -> None:
        """A state has changed: publish the status soon."""
        self._dirty.set()

    def event(self, kind: str, reason: str, message: str, container: str = "") -> None:
        self.client.event(self.manifest, kind, reason, message, container)

    def begin(self) -> None:
        self._tasks["life"] = asyncio.create_task(self._live())
        self._tasks["status"] = asyncio.create_task(self._publish_for_ever())

    def terminate(self, grace: float) -> None:
        """Stop within ``grace`` seconds and let the API server forget the pod."""
        if "end" not in self._tasks:
            self._tasks["end"] = asyncio.create_task(self._terminate(grace))

    async def _live(self) -> None:
        try:
            await self._prepare()
            for container in self.init:
                if not await self._initialize(container):
                    break
            else:
                for container in self.main:
                    self._start(container)
                await self._wait(self.main)
            await self._stop_sidecars(self._grace())
        except Exception:
            log.exception("pod %s failed in the agent", self.path)
            self.event("Warning", "FailedSync", "the node agent failed; see its log")
            return
        self._clean_up()

    async def _prepare(self) -> None:
        self.folder.mkdir(parents=True)
        while True:
            try:
                await self.volumes.make()
                break
            except VolumeError as error:
                self.event("Warning", "FailedMount", str(error))
            except ApiError as error:
                # The Node authorizer has not seen the binding yet.
                log.info("volumes of %s: %s", self.path, error)
            await asyncio.sleep(1)
        self.network.make()
        # What fieldRef can name: status.podIP, status.hostIP.
        status = {"podIP": self.address, "hostIP": self.config.host_ip}
        self.manifest = {**self.manifest, "status": {**self.manifest["status"], **status}}
        self.sources.pod = self.manifest
        name, aliases = self.manifest["metadata"]["name"], self.manifest["spec"].get("hostAliases")
        hosts = write_hosts(self.folder, name, self.address, aliases or [])
        resolv = self.folder / "resolv.conf"
        resolv.write_text("# no DNS here\n")
        self.etc_binds = [
            Bind(str(hosts), "/etc/hosts"),
            Bind(str(resolv), "/etc/resolv.conf"),
        ]
        self.changed()

    async def _initialize(self, container: Container) -> bool:
        """Run an init container to its end, or a sidecar until it has started."""
        run = self._start(container)
        ready = asyncio.create_task(container.initialized.wait())
        await asyncio.wait([run, ready], return_when=asyncio.FIRST_COMPLETED)
        if container.kind == "init" and container.initialized.is_set():
            # Its overlay goes before the next one starts. (Not 'await run': that could cancel it.)
            await asyncio.wait([run])
        ready.cancel()
        return container.initialized.is_set()

    def _start(self, container: Container) -> asyncio.Task[None]:
        run = asyncio.create_task(container.run())
        self._runs.append((container, run))
        return run

    async def _wait(self, containers: list[Container]) -> None:
        runs = [run for container, run in self._runs if container in containers]
        if runs:
            await asyncio.wait(runs)

    def _grace(self) -> float:
        return float(self.manifest["spec"].get("terminationGracePeriodSeconds", 30))

    async def _stop(self, containers: list[Container], grace: float) -> None:
        await asyncio.gather(*(container.stop(grace) for container in containers))
        await self._wait(containers)

    async def _stop_sidecars(self, grace: float) -> None:
        """In the reverse of the order they started in."""
        deadline = time.monotonic() + grace
        for container in reversed(self.init):
            await self._stop([container], max(deadline - time.monotonic(), SIDECAR_GRACE))

    async def _terminate(self, grace: float) -> None:
        deadline = time.monotonic() + grace
        if life := self._tasks.get("life"):
            life.cancel()
            await asyncio.gather(life, return_exceptions=True)
        for container in [*self.init, *self.main]:
            container.refuse_restarts()
        await self._stop(self.main, grace)
        await self._stop_sidecars(deadline - time.monotonic())
        self._clean_up()
        if status := self._tasks.get("status"):
            status.cancel()
            await self._publish()
        await self._delete()
        log.info("pod %s is gone", self.path)
        self.ended.set()

    def _clean_up(self) -> None:
        self.network.remove()
        self.volumes.remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    async def _publish_for_ever(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            await self._publish()

    async def _publish(self) -> None:
        """The newest status, also after an outage of the API server."""

        async def patch() -> Json:
            init, main = ([c.state for c in group] for group in (self.init, self.main))
            status = pod_status(
                self.manifest, self.address, self.config.host_ip, init, main, self._status
            )
            self._status = status
            body = {"metadata": {"uid": self.uid}, "status": status}
            return await self.client.patch_status(self.path, body)

        try:
            await self.client.insistently(patch)
        except ApiError as error:
            if error.status not in (404, 409):
                log.warning("status of %s: %s", self.path, error)

    async def _delete(self) -> None:
        options = {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
        try:
            await self.client.insistently(lambda: self.client.request("DELETE", self.path, options))
        except ApiError as error:
            if error.status not in (404, 409):
                log.warning("deleting %s: %s", self.path, error)

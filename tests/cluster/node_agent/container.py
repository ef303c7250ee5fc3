"""One container of a pod through all its runs: pull, create, hooks, probes, restarts, stop."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
import signal
import time
from pathlib import Path

from tests.cluster.kube_api import ApiError
from tests.cluster.node_agent.backoff import Backoff
from tests.cluster.node_agent.client import AWAY
from tests.cluster.node_agent.images import Image, RootFilesystem
from tests.cluster.node_agent.oci import ConfigError, expand, runtime_config
from tests.cluster.node_agent.probes import Target, act
from tests.cluster.node_agent.pulling import pull
from tests.cluster.node_agent.runtime import RunningContainer, RuntimeFailure
from tests.cluster.node_agent.status import ContainerState, Json, timestamp
from tests.cluster.node_agent.surroundings import Surroundings
from tests.cluster.node_agent.watching import watch

log = logging.getLogger("node_agent.container")

START_ERROR = 128
"""The exit code that Kubernetes shows for a container whose program could not be started."""


class Stopped(Exception):  # noqa: N818 - no error: the pod ends
    """The container waited for something, and is not to start any more."""


class Container:
    """``state`` is what the pod's status shows. `run` ends when it will not be started again."""

    def __init__(self, pod: Surroundings, spec: Json, kind: str) -> None:
        self.pod, self.spec, self.name, self.kind = pod, spec, spec["name"], kind
        begin = "PodInitializing" if pod.manifest["spec"].get("initContainers") else ""
        waiting = (begin or "ContainerCreating", "")
        self.state = ContainerState(self.name, spec["image"], kind, waiting)
        self.initialized = asyncio.Event()
        """Those after it may start: it has succeeded, or it runs and its startup probe passed."""
        self._running: RunningContainer | None = None
        self._stopping = asyncio.Event()
        self._attempt = -1
        meta = pod.manifest["metadata"]
        self._title = f"{meta['name']}_{meta['namespace']}({meta['uid']})"

    async def run(self) -> None:
        """Start the container again and again as its restart policy says."""
        config = self.pod.config
        backoff = Backoff(config.backoff_seconds, config.backoff_limit_seconds)
        try:
            while True:
                code = await self._run_once()
                if self._stopping.is_set() or not self._restarts_after(code):
                    break
                await self._wait_before_restart(backoff.next())
        except Stopped:
            log.info("%s/%s was stopped while it waited", self._title, self.name)
        except Exception:
            log.exception("%s/%s failed in the agent", self._title, self.name)
            self._record_end(START_ERROR)
        finally:
            self.state.final = True
            self.state.started = self.state.ready = False
            self.pod.changed()

    def refuse_restarts(self) -> None:
        """The pod is about to end: what stops now stays stopped, what waits gives up."""
        self._stopping.set()

    async def stop(self, grace: float) -> None:
        """preStop, SIGTERM, and SIGKILL when ``grace`` seconds are over."""
        self.refuse_restarts()
        running = self._running
        if running is None:
            return
        self.event("Normal", "Killing", f"Stopping container {self.name}")
        deadline = time.monotonic() + grace
        await self._pre_stop(running, grace)
        await running.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(running.wait(), max(deadline - time.monotonic(), 0.1))
        except TimeoutError:
            await running.signal(signal.SIGKILL)
            await running.wait()

    async def pause(self, seconds: float) -> None:
        """Wait, but raise `Stopped` as soon as the container is not to start any more."""
        try:
            await asyncio.wait_for(self._stopping.wait(), seconds)
        except TimeoutError:
            return
        raise Stopped

    def event(self, kind: str, reason: str, message: str) -> None:
        self.pod.event(kind, reason, message, self.name)

    def wait_because(self, reason: str, message: str = "") -> None:
        self.state.waiting = (reason, message)
        self.state.started = self.state.ready = False
        self.pod.changed()

    def _restarts_after(self, code: int) -> bool:
        policy = self.pod.manifest["spec"].get("restartPolicy", "Always")
        if self.kind == "sidecar":
            return True
        if self.kind == "init" or policy == "OnFailure":
            return code != 0 and policy != "Never"
        return bool(policy == "Always")

    async def _wait_before_restart(self, seconds: float) -> None:
        self.state.last = self.state.terminated()
        if seconds:
            short = f"{self._title.split('(')[0]}"
            self.event(
                "Warning", "BackOff", f"Back-off restarting failed container {self.name} in pod "
                f"{self._title}",
            )  # fmt: skip
            self.wait_because(
                "CrashLoopBackOff",
                f"back-off {seconds:g}s restarting failed container={self.name} pod={short}",
            )
            await self.pause(seconds)

    async def _run_once(self) -> int:
        self._attempt += 1
        image = await pull(self)
        folder = self.pod.folder / f"{self.name}-{self._attempt}"
        root = RootFilesystem(folder, image)
        try:
            root.make()
            running = await self._create(image, root)
            if running is None:
                return START_ERROR
            if self._stopping.is_set():
                await running.signal(signal.SIGKILL)
            return await self._attend(running)
        finally:
            self._running = None
            self._forget()
            await self.pod.crun.delete(self._id)
            root.remove()
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def _id(self) -> str:
        return f"{self.pod.manifest['metadata']['uid']}-{self.name}-{self._attempt}"

    async def _create(self, image: Image, root: RootFilesystem) -> RunningContainer | None:
        """The started container; None when its program cannot be started."""
        while True:
            try:
                config = await self._config(image, root)
                break
            except ConfigError as error:
                self.event("Warning", "Failed", f"Error: {error}")
                self.wait_because("CreateContainerConfigError", str(error))
            except (ApiError, *AWAY) as error:
                log.info("%s/%s waits for the API: %s", self._title, self.name, error)
            await self.pause(self.pod.config.backoff_seconds)
        try:
            log_file = self._log_file()
            running = await self.pod.crun.start(root.folder, self._id, config, log_file)
        except RuntimeFailure as error:
            self.event("Warning", "Failed", f"Error: {error}")
            self._record_start()
            self._record_end(START_ERROR)
            return None
        self._running = running
        self._remember(running)
        self.event("Normal", "Created", "Container created")
        self.event("Normal", "Started", "Container started")
        self._record_start()
        return running

    async def _config(self, image: Image, root: RootFilesystem) -> Json:
        pod, spec = self.pod.manifest, self.spec
        given = {
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOSTNAME": pod["spec"].get("hostname") or pod["metadata"]["name"],
            "KUBERNETES_SERVICE_HOST": self.pod.config.host_ip,
            "KUBERNETES_SERVICE_PORT": str(self.pod.config.api_port),
            **image.env,
        }
        env = await self.pod.sources.environment(spec, given)
        # An image's command counts only where the manifest gives neither command nor args.
        command = spec.get("command") or ([] if spec.get("args") else image.command)
        arguments = [expand(word, env) for word in [*command, *(spec.get("args") or [])]]
        if not arguments:
            raise ConfigError("no command specified")
        mounts = [self.pod.volumes.bind(m, env) for m in spec.get("volumeMounts") or []]
        return runtime_config(
            pod,
            spec,
            root=root.path,
            image=image.image_user,
            arguments=arguments,
            working_dir=spec.get("workingDir") or image.working_dir,
            env=env,
            binds=[*root.binds(), *self.pod.etc_binds, *mounts],
            network_namespace=self.pod.network_path,
            available_capabilities=self.pod.crun.capabilities,
        )

    async def _attend(self, running: RunningContainer) -> int:
        """Hooks and probes beside the running container; its exit code."""
        watching = asyncio.create_task(watch(self, running))
        try:
            code = await running.wait()
        finally:
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        log.info("%s/%s ended with %s", self._title, self.name, code)
        self._record_end(code)
        return code

    async def _pre_stop(self, running: RunningContainer, grace: float) -> None:
        if hook := (self.spec.get("lifecycle") or {}).get("preStop"):
            target = Target.of(running, self.pod.address, self.spec)
            try:
                good, _ = await asyncio.wait_for(act(hook, target, grace), max(grace, 0.1))
            except TimeoutError:
                return
            if not good:
                self.event("Warning", "FailedPreStopHook", "PreStopHook failed")

    def _record_start(self) -> None:
        state = self.state
        state.waiting, state.exit_code = None, None
        state.started_at, state.container_id = timestamp(), f"crun://{self._id}"
        state.restarts = self._attempt
        self.pod.changed()

    def _record_end(self, code: int) -> None:
        self.state.exit_code, self.state.finished_at = code, timestamp()
        self.state.started = self.state.ready = False
        if self.kind == "init" and code == 0:
            self.initialized.set()
        self.pod.changed()

    def _log_file(self) -> Path:
        meta = self.pod.manifest["metadata"]
        folder = self.pod.config.logs / f"{meta['namespace']}/{meta['name']}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{self.name}-{self._attempt}.log"

    def _running_file(self) -> Path:
        meta = self.pod.manifest["metadata"]
        folder = self.pod.config.running / f"{meta['namespace']}/{meta['name']}"
        return folder / f"{self.name}.json"

    def _remember(self, running: RunningContainer) -> None:
        path = self._running_file()
        path.parent.mkdir(parents=True, exist_ok=True)
        said = {"id": running.id, "pid": running.pid, "process": running.process}
        path.write_text(json.dumps(said))

    def _forget(self) -> None:
        self._running_file().unlink(missing_ok=True)

"""What KubeSpawner 7.1 gets wrong, mended one by one; each has a switch of its own.

The texts that go to its maintainers are in ``docs/upstream/kubespawner-*.md``. A
mend that a later KubeSpawner makes itself can be switched off, then taken out.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar, NoReturn

import aiohttp
from kubernetes_asyncio.client.rest import ApiException
from traitlets import Bool, Float
from traitlets.config import Configurable

from escape_hub.core.pod_trouble import Trouble, api_away, api_refused, stuck
from escape_hub.hub.start_failed import StartFailedError

#: Right after its start the API answers 403, for it has not read its roles yet: for how long
#: (seconds) that is no verdict, and how long ago a connection must have failed for it.
_WAKING_UP, _RECENTLY = 5.0, 30.0
#: A start's own limit is this much (seconds) below `start_timeout`, to say why in time.
_MARGIN = 2.0
#: Seconds between two tries to delete a pod in the background, and how many there are.
_LATER, _LATER_TRIES = 15.0, 240
_deletions: set[asyncio.Task[None]] = set()


class KubeMends(Configurable):
    """Goes before KubeSpawner, or a subclass of it."""

    # KubeSpawner's own, which has no types.
    api: Any
    api_token: Any
    k8s_api_request_retry_timeout: Any
    log: Any
    namespace: Any
    pod_name: Any
    pod_reflector: Any
    start_timeout: Any

    hide_manifests = Bool(
        True,
        config=True,
        help="""
        Keep manifests out of the log. When the API refuses to create a pod or a Secret,
        KubeSpawner writes all of it into the log, the session's API token and the keys
        of internal_ssl included.

        .. versionadded:: 0.1
        """,
    )
    explain_failures = Bool(
        True,
        config=True,
        help="""
        Show people a sentence when the cluster refuses a session or cannot run it, in
        place of KubeSpawner's "500: Unhandled error starting server", and write what the
        API said into the log in one line.

        .. versionadded:: 0.1
        """,
    )
    await_api = Bool(
        True,
        config=True,
        help="""
        Try again, for `start_timeout` seconds (a stop: for
        `k8s_api_request_retry_timeout`), while the API of the cluster refuses or breaks
        connections. KubeSpawner retries requests that time out and gives up at the first
        refused connection.

        .. versionadded:: 0.1
        """,
    )
    heal_reflectors = Bool(
        True,
        config=True,
        help="""
        Watch pods and events again after an outage of the API of more than 51 seconds,
        and take no server for stopped because the API does not answer. KubeSpawner stops
        watching for good, and the hub then never learns of a pod's end or start.

        .. versionadded:: 0.1
        """,
    )

    image_patience = Float(
        30.0,
        min=0,
        config=True,
        help="""
        Seconds for which a start goes on while the session's image cannot be pulled. With
        `explain_failures`; KubeSpawner alone would wait for `start_timeout`.

        .. versionadded:: 0.1
        """,
    )

    _image_missing_since = 0.0
    _away_since = 0.0
    _waking_since = 0.0
    #: When any session last failed to reach the API.
    _away_last: ClassVar[float] = float("-inf")

    # -- manifests in the log ------------------------------------------------------------

    async def _make_create_pod_request(self, pod: Any, request_timeout: float) -> Any:
        if self.hide_manifests:
            keep_out_of_the_log(pod)
        return await super()._make_create_pod_request(pod, request_timeout)

    async def _make_create_resource_request(self, kind: str, manifest: Any) -> Any:
        if self.hide_manifests:
            keep_out_of_the_log(manifest)
        return await super()._make_create_resource_request(kind, manifest)

    # -- refused connections, and reasons --------------------------------------------------

    async def _start(self) -> Any:
        # Not `start`: its task, as KubeSpawner makes it, is what the progress page awaits.
        limit = max(self.start_timeout - _MARGIN, 0.9 * self.start_timeout)
        self._image_missing_since = 0.0
        try:
            async with asyncio.timeout(limit if self.explain_failures else None):
                return await self._insist(super()._start, None)
        except Exception as error:
            self._explain(error, "start", limit)
            raise

    async def stop(self, now: bool = False) -> None:
        """As KubeSpawner's, and again while the API is away; at last in the background.

        JupyterHub forgets a server whose stop failed, so nobody else would delete its pod.
        """
        begin: Callable[[], Awaitable[Any]] = lambda: super(KubeMends, self).stop(now)  # noqa: E731
        pod = self._own_pod()
        try:
            await self._insist(begin, self.k8s_api_request_retry_timeout)
        except Exception as error:
            if self.await_api and pod is not None and connection_failed(error):
                self.log.warning("%s is deleted as soon as the API answers", self.pod_name)
                task = asyncio.create_task(delete_later(self.api, pod["metadata"]))
                _deletions.add(task)
                task.add_done_callback(_deletions.discard)
            raise

    async def _insist(self, call: Callable[[], Awaitable[Any]], seconds: float | None) -> Any:
        """Call again while the API is away, for ``seconds`` or until cancelled."""
        began, delay = time.monotonic(), 0.5
        self._away_since = self._waking_since = 0.0
        while True:
            try:
                found = await call()
            except Exception as error:
                late = seconds is not None and time.monotonic() - began + delay > seconds
                if not self.await_api or not self._is_away(error) or late:
                    raise
                if self._waking_since:
                    delay = 0.5
                self.log.warning(
                    "The API of the cluster does not answer (%s): trying again for %s",
                    type(error).__name__,
                    self.pod_name,
                )
            else:
                self._away_since = 0.0
                return found
            await asyncio.sleep(delay)
            delay = min(2 * delay, 5.0)

    def _is_away(self, error: BaseException) -> bool:
        now = time.monotonic()
        if connection_failed(error):
            self._away_since, self._waking_since = self._away_since or now, 0.0
            KubeMends._away_last = now
            return True
        refused = isinstance(error, ApiException) and error.status in (401, 403)
        if not refused or now - KubeMends._away_last > _RECENTLY:
            return False
        self._waking_since = self._waking_since or now
        return now - self._waking_since < _WAKING_UP

    def _explain(self, error: Exception, what: str, limit: float) -> None:
        """Raise the sentence for ``error``, if there is one."""
        if not self.explain_failures:
            return
        trouble = None
        if isinstance(error, ApiException):
            trouble = api_refused(error.status or 0, error.body, error.reason or "")
        elif connection_failed(error) or (isinstance(error, TimeoutError) and self._away_since):
            trouble = api_away(f"no connection ({type(error).__name__})")
        elif isinstance(error, TimeoutError):
            trouble = stuck(self._own_pod(), limit)
        if trouble is not None:
            self._fail(trouble, what)

    def _fail(self, trouble: Trouble, what: str) -> NoReturn:
        detail = trouble.detail.replace(self.api_token or "\0", "[removed]")
        self.log.error("No %s of %s [%s]: %s", what, self.pod_name, trouble.code, detail)
        # Without its cause: that holds the API's whole answer.
        raise StartFailedError(trouble) from None

    def is_pod_running(self, pod: Any) -> Any:
        """As KubeSpawner's, which asks this while it waits: the place to give up early."""
        if self.explain_failures and pod is not None:
            trouble, now = stuck(pod, 0), time.monotonic()
            if trouble.code != "pod-image":
                self._image_missing_since = 0.0
            elif not self._image_missing_since:
                self._image_missing_since = now
            elif now - self._image_missing_since > self.image_patience:
                self._fail(trouble, "start")
        return super().is_pod_running(pod)

    def _own_pod(self) -> Any:
        pods = self.pod_reflector.pods if self.pod_reflector else {}
        return pods.get(f"{self.namespace}/{self.pod_name}")

    # -- reflectors --------------------------------------------------------------------------

    async def _start_reflector(
        self, kind: str, reflector_class: Any, replace: bool = False, **options: Any
    ) -> Any:
        if not self.heal_reflectors:
            return await super()._start_reflector(kind, reflector_class, replace, **options)
        reflectors, key = type(self).reflectors, self._get_reflector_key(kind)
        before = reflectors.get(key)
        if before is not None and not replace:
            self._watch_again(before)
        try:
            return await super()._start_reflector(kind, reflector_class, replace, **options)
        except Exception as error:
            # One that never loaded knows no pods: the hub would take every server for stopped.
            if not is_loaded(reflectors.get(key)):
                reflectors.pop(key, None)
                if is_loaded(before):
                    reflectors[key] = before
            if isinstance(error, ApiException) and not error.body:
                message = f"the hub cannot list {kind} in {self.namespace}: {error.reason}"
                error.body = json.dumps({"message": message}).encode()
            raise

    def _watch_again(self, reflector: Any) -> None:
        """Arm the same reflector: it keeps what it knew until it has read a new list."""
        task = reflector.watch_task
        if task is None or not task.done() or task.cancelled() or not is_loaded(reflector):
            return
        self.log.warning("Watching %s had ended: watching again", reflector.kind)
        reflector.watch_task = asyncio.create_task(reflector._watch_and_update())

    async def poll(self) -> Any:
        """As KubeSpawner's; None (running, as far as is known) when the API tells nothing."""
        try:
            return await super().poll()
        except Exception as error:
            known = not connection_failed(error) and not isinstance(error, ApiException)
            if not self.heal_reflectors or known:
                raise
            why = type(error).__name__
            self.log.warning("The cluster does not show %s (%s)", self.pod_name, why)
            return None


def connection_failed(error: BaseException) -> bool:
    """Whether no answer came: refused, reset, no route, no name."""
    return isinstance(error, aiohttp.ClientConnectionError | ConnectionError)


async def delete_later(api: Any, metadata: Any) -> None:
    """Delete this very pod, and none that has its name by then."""
    body = {"preconditions": {"uid": metadata["uid"]}}
    for _ in range(_LATER_TRIES):
        await asyncio.sleep(_LATER)
        try:
            await api.delete_namespaced_pod(metadata["name"], metadata["namespace"], body=body)
            return
        except Exception as error:  # away, or waking up: the next try decides
            if isinstance(error, ApiException) and error.status in (404, 409):
                return


def keep_out_of_the_log(manifest: Any) -> None:
    """Make ``to_str``, which KubeSpawner logs, say the object's name only."""
    text = f"{manifest.kind} {manifest.metadata.name} (its manifest is kept out of the log)"
    manifest.to_str = lambda: text


def is_loaded(reflector: Any) -> bool:
    """Whether it has read its list at least once."""
    if reflector is None:
        return False
    loaded = reflector.first_load_future
    return bool(loaded.done() and not loaded.cancelled() and loaded.exception() is None)

"""KubeSpawner's four faults, and each mend switched off shows the fault again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from kubernetes_asyncio.client.rest import ApiException
from kubespawner import KubeSpawner
from traitlets.config import Config

from escape_hub.hub import kube_mends
from escape_hub.hub.kube_mends import KubeMends
from escape_hub.hub.start_failed import StartFailedError
from tests.fakes.kube import FakeKube, running

KUBECONFIG = """
current-context: none
contexts: [{name: none, context: {cluster: none, user: none}}]
clusters: [{name: none, cluster: {server: "http://127.0.0.1:9"}}]
users: [{name: none, user: {}}]
"""
TOKEN = "the-servers-own-api-token"


class Mended(KubeMends, KubeSpawner):
    """KubeSpawner with the mends and nothing else of ours."""

    reflectors: dict[Any, Any] = {}  # noqa: RUF012 - KubeSpawner's own way


@pytest_asyncio.fixture
async def kube(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeKube]:
    file = tmp_path / "kubeconfig"
    file.write_text(KUBECONFIG)
    setting = "kubernetes_asyncio.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION"
    monkeypatch.setattr(setting, str(file))
    monkeypatch.setattr(KubeMends, "_away_last", float("-inf"))
    fake = FakeKube()
    fake.back()
    yield fake
    await Mended._stop_all_reflectors()
    await fake.away()
    ours = asyncio.current_task()
    for task in asyncio.all_tasks() - {ours}:
        task.cancel()
    await asyncio.sleep(0)


def spawner(kube: FakeKube, name: str = "alice", **settings: Any) -> Any:
    config = Config()
    for setting, value in {"start_timeout": 10, "uid": 1000, **settings}.items():
        config.KubeSpawner[setting] = value
    made: Any = Mended(_mock=True, config=config, k8s_api_host=kube.url)
    made.user.name = name
    made.pod_name = f"jupyter-{name}"
    made.api_token = TOKEN
    made.log = logging.getLogger("test.kube_mends")
    made.get_env = lambda: {"JUPYTERHUB_API_TOKEN": TOKEN}
    return made


# -- manifests in the log ----------------------------------------------------------------


@pytest.mark.parametrize("mended", [True, False])
async def test_a_refused_pod_is_not_written_into_the_log(
    kube: FakeKube, caplog: pytest.LogCaptureFixture, mended: bool
) -> None:
    caplog.set_level("DEBUG")
    kube.refusal = (403, "exceeded quota: x")
    with pytest.raises(StartFailedError):
        await spawner(kube, hide_manifests=mended)._start()
    assert (TOKEN in caplog.text) is not mended
    assert ("Pod jupyter-alice (its manifest is kept out of the log)" in caplog.text) is mended


async def test_what_the_api_says_is_logged_without_the_server_s_token(
    kube: FakeKube, caplog: pytest.LogCaptureFixture
) -> None:
    kube.refusal = (403, "no")
    made = spawner(kube)
    error = ApiException(status=422)
    error.body = '{"message": "Invalid value: ' + TOKEN + '"}'
    with pytest.raises(StartFailedError):
        made._explain(error, "start", 10)
    assert "Invalid value: [removed]" in caplog.text
    assert TOKEN not in caplog.text


# -- the reason --------------------------------------------------------------------------


async def test_a_refusal_is_a_sentence_with_a_reference(
    kube: FakeKube, caplog: pytest.LogCaptureFixture
) -> None:
    kube.refusal = (403, 'pods "jupyter-alice" is forbidden: exceeded quota: q')
    with pytest.raises(StartFailedError) as found:
        await spawner(kube)._start()
    error = found.value
    assert error.status_code == 429
    assert "There is no room for another session" in error.jupyterhub_message
    assert "(reference: cluster-quota)" in error.jupyterhub_message
    assert "cluster-quota" in error.jupyterhub_html_message
    assert "No start of jupyter-alice [cluster-quota]" in caplog.text
    # Neither its cause nor its context carries the API's answer along.
    assert error.__cause__ is None and error.__suppress_context__


async def test_switched_off_it_is_upstreams_error(kube: FakeKube) -> None:
    kube.refusal = (403, "exceeded quota: q")
    with pytest.raises(ApiException):
        await spawner(kube, explain_failures=False)._start()


@pytest.mark.parametrize(("start_timeout", "image_patience"), [(4, 30), (30, 2)])
async def test_an_image_that_is_missing_is_said_before_the_hub_gives_up(
    kube: FakeKube, start_timeout: int, image_patience: int
) -> None:
    waiting = {"reason": "ImagePullBackOff", "message": "i: not found"}
    status = {"name": "notebook", "ready": False, "state": {"waiting": waiting}}
    kube.status = {"phase": "Pending", "podIP": None, "containerStatuses": [status]}
    made = spawner(kube, start_timeout=start_timeout)
    made.image_patience = image_patience
    with pytest.raises(StartFailedError, match="pod-image"):
        await asyncio.wait_for(made.start(), 8)
    assert await made.poll() is None
    await made.stop(now=True)
    assert kube.pods == {}


# -- refused connections -------------------------------------------------------------------


async def test_a_start_waits_for_an_api_that_is_away_for_a_while(kube: FakeKube) -> None:
    made = spawner(kube)
    await made._start_watching_pods()
    await kube.away()
    start = made.start()
    await asyncio.sleep(1.2)
    assert not start.done()
    kube.back()
    kube.cold = 2  # right after its start it knows no roles yet
    assert (await start).startswith("http://127.0.0.1")
    assert len(kube.created) == 1


@pytest.mark.parametrize(("seconds", "patient"), [(10, True), (100, False)])
async def test_a_403_soon_after_an_outage_is_no_verdict(
    kube: FakeKube, monkeypatch: pytest.MonkeyPatch, seconds: float, patient: bool
) -> None:
    """Whichever session met the outage, and however long the API took to answer at all."""
    monkeypatch.setattr(KubeMends, "_away_last", time.monotonic() - seconds)
    made = spawner(kube)
    await made._start_watching_pods()
    kube.cold = 2
    if patient:
        await made._start()
    else:
        with pytest.raises(StartFailedError, match="cluster-role"):
            await made._start()


async def test_a_right_that_is_missing_is_said_also_soon_after_an_outage(
    kube: FakeKube, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(KubeMends, "_away_last", time.monotonic())
    monkeypatch.setattr(kube_mends, "_WAKING_UP", 1.0)
    kube.refusal = (403, 'pods is forbidden: User "hub" cannot create resource "pods"')
    with pytest.raises(StartFailedError, match="cluster-role"):
        await spawner(kube)._start()


async def test_switched_off_the_first_refused_connection_ends_the_start(kube: FakeKube) -> None:
    made = spawner(kube, await_api=False)
    await made._start_watching_pods()
    await kube.away()
    with pytest.raises(StartFailedError, match="cluster-away"):
        await made._start()


async def test_a_403_that_follows_no_outage_is_a_verdict(kube: FakeKube) -> None:
    kube.refusal = (403, 'pods is forbidden: User "hub" cannot create resource "pods"')
    with pytest.raises(StartFailedError, match="cluster-role"):
        await spawner(kube)._start()
    assert kube.created == []


async def test_an_api_that_stays_away_is_said_in_time(kube: FakeKube) -> None:
    made = spawner(kube, start_timeout=3, k8s_api_request_retry_timeout=1)
    await made._start_watching_pods()
    await kube.away()
    with pytest.raises(StartFailedError, match="does not answer at the moment") as found:
        await asyncio.wait_for(made.start(), made.start_timeout)
    assert found.value.status_code == 503
    with pytest.raises(OSError):
        await made.stop()


async def test_a_stop_waits_as_well(kube: FakeKube) -> None:
    made = spawner(kube)
    await made._start()
    await kube.away()
    stop = asyncio.create_task(made.stop())
    await asyncio.sleep(0.7)
    kube.back()
    await stop
    assert kube.pods == {}


@pytest.mark.parametrize("other", [False, True])
async def test_a_stop_that_had_to_give_up_deletes_its_pod_later_and_no_other(
    kube: FakeKube, monkeypatch: pytest.MonkeyPatch, other: bool
) -> None:
    monkeypatch.setattr(kube_mends, "_LATER", 0.1)
    made = spawner(kube, k8s_api_request_retry_timeout=1)
    await made._start()
    await kube.away()
    with pytest.raises(OSError):
        await made.stop()
    (task,) = kube_mends._deletions
    if other:
        kube.pods["jupyter-alice"]["metadata"]["uid"] = "another"
    kube.back()
    await task
    assert bool(kube.pods) is other


# -- reflectors ----------------------------------------------------------------------------


async def give_up(made: Any) -> None:
    """As after an outage of 51 s: the watch has ended by itself, in silence."""
    made.pod_reflector.watch_task.cancel()

    async def ended() -> None:
        return None

    made.pod_reflector.watch_task = task = asyncio.create_task(ended())
    await task


@pytest.mark.parametrize("mended", [True, False])
async def test_a_reflector_that_gave_up_watches_again(kube: FakeKube, mended: bool) -> None:
    made = spawner(kube, heal_reflectors=mended)
    await made._start()
    reflector = made.pod_reflector
    await give_up(made)
    kube.pods.clear()  # it was deleted behind the hub
    assert await made.poll() is None
    for _ in range(30):
        await asyncio.sleep(0.05)
        if reflector.pods == {}:
            break
    assert (await made.poll() == 1) is mended
    assert made.pod_reflector is reflector


async def test_two_polls_at_once_watch_once(kube: FakeKube) -> None:
    made, other = spawner(kube), spawner(kube, "bob")
    await made._start()
    await give_up(made)
    lists = kube.lists
    await asyncio.gather(made.poll(), other.poll(), made.poll())
    await asyncio.sleep(0.1)
    assert kube.lists == lists + 1


@pytest.mark.parametrize("mended", [True, False])
async def test_a_running_server_is_not_taken_for_stopped_when_a_new_reflector_cannot_load(
    kube: FakeKube, mended: bool
) -> None:
    made = spawner(kube, heal_reflectors=mended)
    await made._start()
    await kube.away()
    with pytest.raises(OSError):
        await made._start_watching_pods(replace=True)
    assert (await made.poll() is None) is mended


async def test_a_hub_that_starts_in_an_outage_takes_no_server_for_stopped(kube: FakeKube) -> None:
    kube.pods["jupyter-alice"] = {
        "metadata": {"name": "jupyter-alice", "namespace": "default", "uid": "1"},
        "status": running(),
    }
    made = spawner(kube, namespace="default")
    made.server = None
    await kube.away()
    assert await made.poll() is None
    kube.back()
    kube.cold = 1
    assert await made.poll() is None  # 403: it shows nothing yet
    assert made.pod_reflector is None
    assert await made.poll() is None
    kube.pods.clear()
    await made._start_watching_pods(replace=True)
    assert await made.poll() == 1

"""The older hub line that Zero-to-JupyterHub ships: start, renew and stop in a pod."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.cluster import Cluster
from tests.cluster.images import CHECKOUT, HOST_IMAGE
from tests.cluster.kube_stage import PYTHON, KubeStage
from tests.cluster.node_agent.images import Image
from tests.harness.processes import wait_for
from tests.harness.session_view import look
from tests.hub.story import assert_files_are_right, assert_rucio_cfg_is_right, changed

pytestmark = pytest.mark.hub55


def older_image(venv: Path) -> Image:
    """The notebook's side of the same line."""
    base = Path(sys.base_prefix).resolve()
    binds = [str(CHECKOUT), str(venv.resolve())]
    if not base.is_relative_to("/usr"):
        binds.append(str(base))
    path = f"{venv.resolve()}/bin:/usr/local/bin:/usr/bin:/bin"
    env = {"PATH": path, "HOME": "/home/jovyan", "LANG": "C.UTF-8"}
    return Image(user=1000, group=100, working_dir="/home/jovyan", env=env, binds=binds)


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory, cluster: Cluster) -> Iterator[KubeStage]:
    venv = Path(os.environ["ESCAPE_HUB_VENV55"])
    namespace = cluster.namespace("older")
    cluster.add_image(f"{HOST_IMAGE}-older", older_image(venv))
    python = str(venv / "bin/python")
    directory = tmp_path_factory.mktemp("older")
    options = {"python": python}
    made = KubeStage(directory, cluster, namespace, hub_options=options, access_token_lifetime=60)
    catalogue = directory / "environments.yaml"
    catalogue.write_text(catalogue.read_text().replace(HOST_IMAGE, f"{HOST_IMAGE}-older"))
    with made as running:
        yield running
    assert running.leaks() == []
    cluster.delete_namespace(namespace)


def test_a_session_starts_is_renewed_and_stops(stage: KubeStage) -> None:
    alice = stage.person()
    alice.spawn(PYTHON)
    kernel = alice.start_kernel()
    before = look(alice, kernel)
    assert_files_are_right(before, stage.iam)
    assert_rucio_cfg_is_right(before)
    assert alice.run(kernel, "import jupyterhub; print(jupyterhub.__version__)") == "5.5.0\n"
    assert alice.api("POST", "escape/renew").status_code == 200
    wait_for("renewed files", lambda: changed(before, look(alice, kernel)), 90, every=0.5)
    alice.stop_server()
    assert stage.pods() == []

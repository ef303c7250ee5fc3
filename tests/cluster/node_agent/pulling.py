"""Have a container's image, in kubelet's words when there is none."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from tests.cluster.node_agent import images
from tests.cluster.node_agent.backoff import Backoff
from tests.cluster.node_agent.images import Image

if TYPE_CHECKING:
    from tests.cluster.node_agent.container import Container


async def pull(container: Container) -> Image:
    """Until it succeeds: kubelet never gives up on an image."""
    name, config = container.spec["image"], container.pod.config
    wait = Backoff(config.backoff_seconds, config.backoff_limit_seconds)
    wait.next()
    while True:
        try:
            return await _pull_once(container, name)
        except images.PullError as error:
            container.event("Warning", "Failed", f'Failed to pull image "{name}": {error}')
            container.event("Warning", "Failed", "Error: ErrImagePull")
            container.wait_because("ErrImagePull", str(error))
            await container.pause(0.5)
            container.event("Normal", "BackOff", f'Back-off pulling image "{name}"')
            container.event("Warning", "Failed", "Error: ImagePullBackOff")
            container.wait_because(
                "ImagePullBackOff",
                f'Back-off pulling image "{name}": ErrImagePull: {error}',
            )
            await container.pause(wait.next())


async def _pull_once(container: Container, name: str) -> Image:
    always = container.spec.get("imagePullPolicy") == "Always"
    if name in container.pod.present_images and not always:
        found = images.find(container.pod.config.images_file, name)
        already = f'Container image "{name}" already present on machine'
        container.event("Normal", "Pulled", f"{already} and can be accessed by the pod")
        return found
    container.event("Normal", "Pulling", f'Pulling image "{name}"')
    began = time.monotonic()
    found = images.find(container.pod.config.images_file, name)
    await container.pause(found.pull_seconds)
    took = f"{(time.monotonic() - began) * 1000:.0f}ms"
    pulled = f'Successfully pulled image "{name}" in {took} ({took} including waiting)'
    container.event("Normal", "Pulled", f"{pulled}. Image size: 0 bytes.")
    container.pod.present_images.add(name)
    return found

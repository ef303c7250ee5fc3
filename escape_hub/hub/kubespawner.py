"""Sessions as pods: KubeSpawner with a volume in memory, a sidecar, and the lake mounted.

`EscapeKubeSpawnerMixin` goes before KubeSpawner or an operator's own subclass of it.
The parts of the pod are made in `escape_hub.core.pod`; here they are put into the
manifest that KubeSpawner has made of its own settings, profiles and all, so that no
profile and no list of an operator can push them out. An operator's
``modify_pod_hook`` still sees, and may change, the result.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from jupyterhub.utils import maybe_future
from kubernetes_asyncio.client.models import V1Container, V1Volume, V1VolumeMount
from kubespawner import KubeSpawner
from kubespawner.utils import get_k8s_model
from traitlets import default

from escape_hub.core import pod as parts
from escape_hub.core.auth_state import AuthState
from escape_hub.core.environment_choice import profile_list
from escape_hub.core.environments import Selection
from escape_hub.core.session_names import session_directory
from escape_hub.core.session_plan import SessionPlan
from escape_hub.errors import EscapeHubError
from escape_hub.hub import kube_traits
from escape_hub.hub.kube_mends import KubeMends
from escape_hub.hub.kube_traits import KubeTraits
from escape_hub.hub.spawning import EscapeSpawnerMixin


class EscapeKubeSpawnerMixin(KubeTraits, EscapeSpawnerMixin, KubeMends):
    """Puts a session's volume, sidecar and mounts into the pod; mends what fails there."""

    # KubeSpawner's own, which has no types.
    api: Any
    profile_list: Any
    supplemental_gids: Any

    @default("token_dir")
    def _default_token_dir(self) -> str:
        return f"{self.token_mount.rstrip('/')}/{{session}}"

    @classmethod
    def check_kubernetes_settings(cls, configured: Any) -> None:
        """Called when the hub starts; `SettingsError` names the setting."""
        kube_traits.check_kubernetes_settings(configured)

    # -- environment and plan --------------------------------------------------------------

    def apply_selection(self, selection: Selection) -> None:
        """Hand on the choice as the one profile there is; KubeSpawner applies it at its start."""
        super().apply_selection(selection)
        key = selection.environment.key
        catalogue = self.catalogue
        assert catalogue is not None  # noqa: S101 - a selection comes from one
        self.profile_list = [p for p in profile_list(catalogue, self._groups) if p["slug"] == key]
        # A catalogue has no unlisted choices, and KubeSpawner answers such a wish with a 500.
        wishes = self.user_options.items()
        self.user_options = {k: v for k, v in wishes if not k.endswith("--unlisted-choice")}

    def session_plan(self, state: AuthState) -> SessionPlan:
        """As for every session, with the scratch directory where that is mounted."""
        plan = super().session_plan(state)
        parts.check_token_dir(plan.token_dir, self.token_mount)
        if not self.scratch_dir:
            return plan
        scratch = session_directory(self.scratch_dir, self.user.name, self.name)
        _, mounts = parts.lake_mounts(self.lake_mounts)
        return replace(plan, scratch_dir=scratch if parts.mount_for(mounts, scratch) else "")

    # -- the pod -----------------------------------------------------------------------------

    async def get_pod_manifest(self) -> Any:
        """KubeSpawner's manifest with the parts of the session in it."""
        given = self.supplemental_gids
        try:
            self.supplemental_gids = await self._all_groups()
            pod = await super().get_pod_manifest()
        finally:
            self.supplemental_gids = given
        try:
            self._complete(pod)
        except EscapeHubError as error:
            raise self._refusal(error) from error
        return pod

    async def _all_groups(self) -> list[int]:
        known = self.supplemental_gids
        if callable(known):
            known = await maybe_future(known(self))
        return parts.supplemental_groups(known or [], self.group_gids, self._groups)

    def _complete(self, pod: Any) -> None:
        volumes, mounts = parts.lake_mounts(self.lake_mounts)
        volumes = [parts.memory_volume(self.token_volume_size), *volumes]
        mounts = [parts.memory_mount(self.token_mount), *mounts]
        notebook = next(c for c in pod.spec.containers if c.name == "notebook")
        notebook.volume_mounts = [
            *(notebook.volume_mounts or []),
            *(get_k8s_model(V1VolumeMount, m) for m in mounts),
        ]
        pod.spec.volumes = [
            *(pod.spec.volumes or []),
            *(get_k8s_model(V1Volume, v) for v in volumes),
        ]
        if self.delivery == "sidecar":
            sidecar = get_k8s_model(V1Container, self._sidecar(pod, notebook))
            pod.spec.init_containers = [*(pod.spec.init_containers or []), sidecar]
        if pod.spec.automount_service_account_token is None:
            # An operator who gives sessions an account must say that its token goes in, too.
            pod.spec.automount_service_account_token = False

    def _sidecar(self, pod: Any, notebook: Any) -> parts.Json:
        plain = self.api.api_client.sanitize_for_serialization
        there: parts.Json = plain(notebook)
        mounts: list[parts.Json] = there["volumeMounts"]
        wanted = {parts.MEMORY_VOLUME, parts.CERTIFICATES_VOLUME}
        kept = [m for m in mounts if m["name"] in wanted]
        if self._plan is not None and self._plan.scratch_dir:
            lake = [m for m in mounts if m["name"].startswith(parts.LAKE)]
            kept += parts.mount_for(lake, self._plan.scratch_dir)
        settings = parts.SidecarSettings(
            self.sidecar_image,
            tuple(self.sidecar_command),
            self.sidecar_resources,
            self.sidecar_pull_policy,
        )
        user = parts.sidecar_user(
            plain(notebook.security_context), plain(pod.spec.security_context)
        )
        return parts.sidecar(settings, user=user, env=there["env"], mounts=kept)


class EscapeKubeSpawner(EscapeKubeSpawnerMixin, KubeSpawner):
    """Sessions as pods, one each."""

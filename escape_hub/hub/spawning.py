"""What a session is given at spawn; the same for KubeSpawner and the local spawners.

Put `EscapeSpawnerMixin` before a spawner class. It never overrides ``start``
(KubeSpawner's progress page needs the very task that its own returns), only the
hooks around it, which JupyterHub calls in this order:

``run_auth_state_hook``
    who is it: claims and groups; also before the form is shown
``run_pre_spawn_hook``
    fresh tokens, or a late issuer; the environment is enforced; the plan is made
``get_env``
    the plan goes into the environment: paths and settings, never a token
``run_post_stop_hook``
    no server of the user is left: nothing to renew any more
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from jupyterhub.utils import maybe_future, url_path_join
from tornado.httputil import url_concat
from traitlets import Instance, default, validate
from traitlets.config import Configurable

from escape_hub.core.auth_state import AuthState, ForeignAuthStateError
from escape_hub.core.environment_choice import options_from_form, preselect, select
from escape_hub.core.environments import Catalogue, Selection
from escape_hub.core.session_names import rucio_account, session_directory
from escape_hub.core.session_plan import RucioClient, SessionPlan
from escape_hub.errors import EscapeHubError, SettingsError
from escape_hub.hub import environment_form
from escape_hub.hub.catalogue import cached_catalogue
from escape_hub.hub.spawn_messages import access_report, for_people, needs_sign_in
from escape_hub.hub.spawner_traits import SpawnerTraits
from escape_hub.hub.startup import TOKEN_SCOPE

#: What the hub's default role ``server`` holds, and ours, for the server's owner only.
SERVER_TOKEN_SCOPES = ["users:activity!user", "access:servers!server", f"{TOKEN_SCOPE}!user"]


class EscapeSpawnerMixin(SpawnerTraits, Configurable):
    """Gives a session the paths of its token files and the environment that was chosen."""

    # JupyterHub's own, which has no types.
    user_options: Any
    args: Any
    environment: Any

    _state: AuthState | None = None
    _groups: frozenset[str] = frozenset()
    _selection: Selection | None = None
    _plan: SessionPlan | None = None
    _report: tuple[str, ...] = ()
    _signed_in = Instance(asyncio.Event, ())

    # -- settings of the spawner that are ours ---------------------------------------------

    @default("server_token_scopes")
    def _default_server_token_scopes(self) -> list[str]:
        return list(SERVER_TOKEN_SCOPES)

    @validate("server_token_scopes")
    def _keep_our_scope(self, proposal: Any) -> Any:
        scopes = proposal.value
        if callable(scopes) or f"{TOKEN_SCOPE}!user" in scopes:
            return scopes
        return [*scopes, f"{TOKEN_SCOPE}!user"]

    @default("options_form")
    def _default_options_form(self) -> Any:
        return type(self).environment_form if self.catalogue else ""

    @default("options_from_form")
    def _default_options_from_form(self) -> Any:
        return options_from_form if self.catalogue else self._passthrough_options_from_form

    @default("apply_user_options")
    def _default_apply_user_options(self) -> Any:
        # Applied in `run_pre_spawn_hook`, where a hook of the operator cannot switch it off.
        return (lambda spawner, user_options: None) if self.catalogue else None

    # -- who is it, and what may they use --------------------------------------------------

    @property
    def escape_authenticator(self) -> Any:
        """The authenticator, which must be ours: it owns the broker and the renewal."""
        found = self.authenticator
        if all(hasattr(found, name) for name in ("broker", "renewal", "audience_settings")):
            return found
        raise SettingsError(
            f"{type(self).__name__} needs JupyterHub.authenticator_class = 'escape', "
            f"not {type(found).__name__}: only that one has tokens for a session"
        )

    @property
    def catalogue(self) -> Catalogue | None:
        """The environments, when there is a catalogue."""
        return cached_catalogue(self.environments_file) if self.environments_file else None

    async def run_auth_state_hook(self, auth_state: Any) -> None:
        """Learn who it is, from what was stored at the last login or renewal."""
        try:
            await self._identify(auth_state)
        except EscapeHubError as error:
            raise self._refusal(error) from error
        await super().run_auth_state_hook(auth_state)

    async def _identify(self, auth_state: Any) -> None:
        try:
            self._state = AuthState.from_dict(auth_state)
        except ForeignAuthStateError:
            self._state = None
        self._groups = await self._current_groups(auth_state if self._state else None)

    async def _current_groups(self, auth_state: Any) -> frozenset[str]:
        """Groups by the claims; those an administrator gave by hand where the hub allows that."""
        authenticator = self.escape_authenticator
        groups: set[str] = set()
        if auth_state is not None:
            groups |= set(await maybe_future(authenticator.get_user_groups(auth_state)))
        if not authenticator.manage_groups:
            groups |= {group.name for group in self.user.groups}
        return frozenset(groups)

    async def environment_form(self) -> str:
        """The form's HTML: a card for each environment that is allowed."""
        catalogue = self.catalogue
        if catalogue is None:
            return ""
        await self._identify(await self.user.get_auth_state())
        last = self.orm_spawner.user_options if self.orm_spawner else None
        chosen = preselect(catalogue, self._groups, last or {})
        return environment_form.render(catalogue, self._groups, chosen)

    def _enforce_environment(self) -> None:
        """Only what the user's groups allow is started, wherever the wish came from."""
        if (catalogue := self.catalogue) is None:
            return
        wish = self.user_options or {}
        self._selection = select(catalogue, self._groups, wish)
        self.user_options = {**wish, **self._selection.user_options()}
        if self.orm_spawner is not None:
            # What is really started is what the home page shows and the form preselects.
            self.orm_spawner.user_options = self.user_options
        self.apply_selection(self._selection)

    def apply_selection(self, selection: Selection) -> None:
        """Make the choice the spawner's own settings. Classes add what they can start."""
        limits = selection.resources
        if limits.cpu is not None:
            self.cpu_limit = limits.cpu
        if limits.memory:
            self.mem_limit = limits.memory

    # -- spawn -----------------------------------------------------------------------------

    async def run_pre_spawn_hook(self) -> None:
        """Sign in, enforce, plan; a refusal is an error page that says what to do."""
        try:
            state = await self._fresh_state()
            self._enforce_environment()
            self._plan = self.session_plan(state)
        except EscapeHubError as error:
            raise self._refusal(error) from error
        finally:
            self._signed_in.set()
        self.escape_authenticator.renewal.schedule(self.user.name)
        await maybe_future(super().run_pre_spawn_hook())

    async def _fresh_state(self) -> AuthState:
        """Tokens that live, if the issuer gives them in time; else what there is."""
        stored = self._state
        if stored is None or stored.needs_login:
            raise needs_sign_in(stored.needs_login if stored else None, self.user.name)
        state: AuthState
        try:
            state = await self.escape_authenticator.broker.renew(
                self.user.name,
                min_valid_period=self.min_valid_period,
                patience=self.issuer_patience,
            )
        except (ForeignAuthStateError, LookupError):
            # Gone since the hub read it a moment ago: the user is being logged out.
            raise needs_sign_in(None, self.user.name) from None
        if state.needs_login:
            raise needs_sign_in(state.needs_login, self.user.name)
        self._groups = await self._current_groups(state.to_dict())
        authenticator = self.escape_authenticator
        now = authenticator.clock.now()
        self._report = access_report(authenticator.audience_settings, state, now)
        return state

    def session_plan(self, state: AuthState) -> SessionPlan:
        """Directory, audiences and Rucio client of this session. Holds no token."""
        return SessionPlan(
            token_dir=session_directory(self.token_dir, self.user.name, self.name),
            audiences=tuple(self.escape_authenticator.audience_settings),
            rucio=self._rucio_client(state),
            sign_in_path=url_path_join(self.hub.base_url, "oauth_login"),
        )

    def _rucio_client(self, state: AuthState) -> RucioClient | None:
        if not self.rucio_host:
            return None
        return RucioClient(
            rucio_host=self.rucio_host,
            auth_host=self.rucio_auth_host or self.rucio_host,
            account=self._rucio_account(state),
            audience=self.rucio_audience,
            ca_cert=self.rucio_ca_cert,
            vo=self.rucio_vo,
        )

    def _rucio_account(self, state: AuthState) -> str:
        if not callable(self.rucio_account):
            return rucio_account(self.rucio_account, state.claims)
        try:
            found = self.rucio_account(dict(state.claims))
        except Exception as error:
            # The type alone: a claim may stand in the text.
            raise SettingsError(
                f"EscapeSpawnerMixin.rucio_account, a callable, failed with {type(error).__name__}"
            ) from None
        if not isinstance(found, str) or not found.strip():
            raise SettingsError(
                "EscapeSpawnerMixin.rucio_account, a callable, must return a name, and gave "
                f"{'an empty one' if isinstance(found, str) else type(found).__name__}"
            )
        return found

    def get_env(self) -> dict[str, str]:
        """The session's environment, with the plan and without any ``BEARER_TOKEN*``."""
        env: dict[str, str] = super().get_env()
        if self._plan is not None:
            env.update(self._plan.environment())
        # Rucio's and XRootD's clients would prefer these to the right file.
        return {name: value for name, value in env.items() if not name.startswith("BEARER_TOKEN")}

    async def progress(self) -> AsyncIterator[dict[str, Any]]:
        """The starting page's events: ours first, then the spawner's own."""
        yield {"progress": 5, "message": "Signing in to the data lake"}
        await self._signed_in.wait()
        for line in self._report:
            yield {"progress": 20, "message": line}
        if self._selection is not None:
            yield {"progress": 30, "message": f"Starting {self._selection.environment.name}"}
        async with aclosing(super().progress()) as events:
            async for event in events:
                yield event

    def _refusal(self, error: EscapeHubError) -> Exception:
        sign_in = url_path_join(self.hub.base_url, "oauth_login")
        again = url_path_join(self.hub.base_url, "spawn", self.user.escaped_name)
        url = url_concat(sign_in, {"next": again})
        return for_people(error, self.log, self._log_name, sign_in_url=url)

    # -- stop ------------------------------------------------------------------------------

    async def run_post_stop_hook(self) -> None:
        """After the user's last server nothing needs renewing."""
        try:
            if not self._others_run():
                self.escape_authenticator.renewal.unschedule(self.user.name)
        except SettingsError as error:
            self.log.error("%s", error.message)
        await maybe_future(super().run_post_stop_hook())

    def _others_run(self) -> bool:
        servers = self.user.orm_user.orm_spawners
        return any(s.server is not None for name, s in servers.items() if name != self.name)

"""A hub, its IAM and the canaries that watch both."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.harness.canaries import Canaries, ProcessSampler, processes_of
from tests.harness.hub import Hub
from tests.harness.iam import CLIENT_SECRET, Iam


class Stage:
    """``with Stage(directory, hub_options, iam_options) as stage: stage.hub, stage.iam``.

    After the block `leaks` says where a secret was found that does not belong there.
    """

    def __init__(
        self, directory: Path, hub_options: dict[str, Any], iam_options: dict[str, Any]
    ) -> None:
        self.directory = directory
        self.hub = Hub(directory / "hub", **hub_options)
        # `redirect_uris` in the options are those of other clients with the hub's registration.
        redirect_uris = [self.hub.redirect_uri, *iam_options.pop("redirect_uris", [])]
        registration = {
            "redirect_uris": redirect_uris,
            "post_logout_redirect_uris": [f"{self.hub.url}hub/escape/signed_out"],
            "backchannel_logout_uri": f"{self.hub.url}hub/escape/backchannel_logout",
        }
        self.iam = Iam(directory / "iam", **registration, **iam_options)
        self.canaries = Canaries()
        self.sampler = ProcessSampler(str(directory))
        self._found: list[str] = []

    def __enter__(self) -> Stage:
        try:
            self.iam.start()
            self.sampler.start()
            self.start_hub()
        except BaseException:
            self.close()
            raise
        return self

    def start_hub(self) -> None:
        """Also after a kill; the hub's own environment is the operator's and is spared."""
        self.hub.start(self.iam, before_wait=self._spare)

    def _spare(self, pid: int) -> None:
        self.sampler.spare_environment.add(pid)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._search()
        finally:
            self.close()

    def close(self) -> None:
        self.sampler.stop()
        self.hub.stop()
        self.iam.stop()
        # Sessions outlive their hub, as an operator wants it; they must not outlive a test.
        for pid, _environ, _command in processes_of(str(self.directory).encode()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _search(self) -> None:
        for kind, values in self.iam.issued().items():
            self.canaries.add(kind, values)
        self.canaries.add("client secret", [CLIENT_SECRET])
        exempt = [self.hub.token_root, self.directory / "iam"]
        self._found = self.canaries.look_in_files(self.directory, exempt=exempt)
        self._found += self.canaries.look_in("the IAM's log", self.iam.process.log_text.encode())
        self._found += self.sampler.found(self.canaries)

    def leaks(self) -> list[str]:
        """Kinds and places, never a value."""
        return self._found

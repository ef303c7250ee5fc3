"""The catalogue of notebook environments, as values.

`environment_checks` makes them from what an operator wrote, `environment_choice`
says who may use what. The same entries make the cards of the start page,
KubeSpawner's ``profile_list`` and what the local spawners start.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

#: The name of the environment's key in JupyterHub's ``user_options`` (KubeSpawner's word).
PROFILE = "profile"

_UNITS = {"K": "KiB", "M": "MiB", "G": "GiB", "T": "TiB"}


@dataclass(frozen=True, slots=True)
class Resources:
    """Limits of a session. ``memory`` as KubeSpawner writes it: ``512M``, ``2G`` (powers of 1024).

    ``None``, ``""`` and 0 mean that the environment says nothing about it.
    """

    cpu: float | None = None
    memory: str = ""
    gpu: int = 0

    def words(self) -> tuple[str, ...]:
        """As people read it: ``("2 CPU cores", "4 GiB memory", "1 GPU")``."""
        found = []
        if self.cpu is not None:
            found.append(f"{self.cpu:g} CPU core{'' if self.cpu == 1 else 's'}")
        if self.memory:
            found.append(f"{self.memory[:-1]} {_UNITS[self.memory[-1]]} memory")
        if self.gpu:
            found.append(f"{self.gpu} GPU{'' if self.gpu == 1 else 's'}")
        return tuple(found)

    def overridden_by(self, other: Resources) -> Resources:
        """These limits, with what ``other`` says in place of them."""
        return Resources(
            self.cpu if other.cpu is None else other.cpu,
            other.memory or self.memory,
            other.gpu or self.gpu,
        )


@dataclass(frozen=True, slots=True)
class Local:
    """What a local spawner starts; empty fields leave the spawner's own setting alone."""

    cmd: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    notebook_dir: str = ""
    default_url: str = ""

    def overridden_by(self, other: Local) -> Local:
        """These settings with ``other``'s on top; ``args`` and ``env`` add up."""
        return Local(
            other.cmd or self.cmd,
            self.args + other.args,
            {**self.env, **other.env},
            other.notebook_dir or self.notebook_dir,
            other.default_url or self.default_url,
        )


@dataclass(frozen=True, slots=True)
class Kubernetes:
    """What KubeSpawner starts. ``kubespawner_override`` is passed on as it is, and wins."""

    image: str = ""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    kubespawner_override: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the values of an option."""

    key: str
    name: str
    default: bool = False
    resources: Resources = Resources()
    local: Local = Local()
    kubernetes: Kubernetes = Kubernetes()


@dataclass(frozen=True, slots=True)
class Option:
    """Something to choose within an environment. ``choices`` is never empty."""

    key: str
    name: str
    choices: tuple[Choice, ...]

    @property
    def default(self) -> Choice:
        """The choice marked so, or the first."""
        return next((c for c in self.choices if c.default), self.choices[0])


@dataclass(frozen=True, slots=True)
class Environment:
    """One entry of the catalogue. No ``allowed_groups`` means everybody who may sign in."""

    key: str
    name: str
    description: str = ""
    contents: tuple[str, ...] = ()
    resources: Resources = Resources()
    allowed_groups: frozenset[str] = frozenset()
    default: bool = False
    profile_options: tuple[Option, ...] = ()
    local: Local = Local()
    kubernetes: Kubernetes = Kubernetes()

    def allows(self, groups: Collection[str]) -> bool:
        """Whether somebody in ``groups`` may use it. Unknown groups are no groups: denied."""
        return not self.allowed_groups or not self.allowed_groups.isdisjoint(groups)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All environments, in the order people see them. Never empty, keys are unique."""

    environments: tuple[Environment, ...]

    def get(self, key: object) -> Environment | None:
        """The entry of that key, if any."""
        return next((e for e in self.environments if e.key == key), None)


@dataclass(frozen=True, slots=True)
class Selection:
    """An environment with one choice for each of its options."""

    environment: Environment
    choices: Mapping[str, Choice] = field(default_factory=dict)

    @property
    def resources(self) -> Resources:
        """The environment's limits with those of the choices on top."""
        found = self.environment.resources
        for choice in self.choices.values():
            found = found.overridden_by(choice.resources)
        return found

    @property
    def local(self) -> Local:
        """What a local spawner starts."""
        found = self.environment.local
        for choice in self.choices.values():
            found = found.overridden_by(choice.local)
        return found

    def user_options(self) -> dict[str, str]:
        """What JupyterHub remembers."""
        chosen = {name: choice.key for name, choice in self.choices.items()}
        return {PROFILE: self.environment.key, **chosen}

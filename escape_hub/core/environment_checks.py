"""From what an operator wrote to a `Catalogue`: every rule of the file is here.

Input is plain data (mappings, lists, strings, numbers), wherever it was read
from. A fault is a `CatalogueError`, which knows the path of the offending value,
so that whoever read the file can name the line.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from escape_hub.core.environments import (
    PROFILE,
    Catalogue,
    Choice,
    Environment,
    Kubernetes,
    Local,
    Option,
    Resources,
)
from escape_hub.errors import SettingsError

Path = tuple[str | int, ...]
T = TypeVar("T")

_KEY = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
_MEMORY = re.compile(r"[0-9]+(\.[0-9]+)?[KMGT]")
#: Variables that the hub sets, or that would make clients prefer another file than ours.
_RESERVED_ENV = re.compile(
    r"(JUPYTERHUB_|JPY_|ESCAPE_HUB_|BEARER_TOKEN).*|OAUTH2_TOKEN|RUCIO_CONFIG"
)

_ENVIRONMENT_KEYS = {
    "name", "description", "contents", "resources", "allowed_groups", "default",
    "profile_options", "local", "kubernetes",
}  # fmt: skip
_CHOICE_KEYS = {"name", "default", "resources", "local", "kubernetes"}


class CatalogueError(SettingsError):
    """The catalogue breaks a rule. ``path`` leads to the value, from the top of the file."""

    code = "environments"

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(f"{'.'.join(map(str, path)) or 'the catalogue'}: {reason}")
        self.path = path
        self.reason = reason


def parse_catalogue(raw: object) -> Catalogue:
    """Check the whole catalogue; `CatalogueError` for the first fault."""
    top = _mapping(raw, (), {"environments"})
    entries = _named(top.get("environments"), ("environments",), _environment)
    if not entries:
        raise CatalogueError(("environments",), "at least one environment is needed")
    _one_default(entries, ("environments",))
    return Catalogue(entries)


def _environment(key: str, raw: object, path: Path) -> Environment:
    found = _mapping(raw, path, _ENVIRONMENT_KEYS)
    options = _named(found.get("profile_options", {}), (*path, "profile_options"), _option)
    if reserved := [o for o in options if o.key == PROFILE]:
        raise CatalogueError(
            (*path, "profile_options", reserved[0].key), "that name is taken; choose another"
        )
    groups = _strings(found.get("allowed_groups", []), (*path, "allowed_groups"))
    if "allowed_groups" in found and not groups:
        raise CatalogueError(
            (*path, "allowed_groups"),
            "an empty list would allow nobody; leave it out to allow everybody",
        )
    return Environment(
        key=key,
        name=_text(found.get("name"), (*path, "name")),
        description=_text(found.get("description", ""), (*path, "description"), empty=True),
        contents=_strings(found.get("contents", []), (*path, "contents")),
        resources=_resources(found.get("resources", {}), (*path, "resources")),
        allowed_groups=frozenset(groups),
        default=_flag(found.get("default", False), (*path, "default")),
        profile_options=options,
        local=_local(found.get("local", {}), (*path, "local")),
        kubernetes=_kubernetes(found.get("kubernetes", {}), (*path, "kubernetes")),
    )


def _option(key: str, raw: object, path: Path) -> Option:
    found = _mapping(raw, path, {"name", "choices"})
    choices = _named(found.get("choices"), (*path, "choices"), _choice)
    if not choices:
        raise CatalogueError((*path, "choices"), "at least one choice is needed")
    _one_default(choices, (*path, "choices"))
    return Option(key, _text(found.get("name"), (*path, "name")), choices)


def _choice(key: str, raw: object, path: Path) -> Choice:
    found = _mapping(raw, path, _CHOICE_KEYS)
    return Choice(
        key=key,
        name=_text(found.get("name"), (*path, "name")),
        default=_flag(found.get("default", False), (*path, "default")),
        resources=_resources(found.get("resources", {}), (*path, "resources")),
        local=_local(found.get("local", {}), (*path, "local")),
        kubernetes=_kubernetes(found.get("kubernetes", {}), (*path, "kubernetes")),
    )


def _resources(raw: object, path: Path) -> Resources:
    found = _mapping(raw, path, {"cpu", "memory", "gpu"})
    cpu, gpu = found.get("cpu"), found.get("gpu", 0)
    if cpu is not None and (isinstance(cpu, bool) or not isinstance(cpu, int | float) or cpu <= 0):
        raise CatalogueError((*path, "cpu"), "must be a number of cores above 0, as in 0.5 or 2")
    if isinstance(gpu, bool) or not isinstance(gpu, int) or gpu < 0:
        raise CatalogueError((*path, "gpu"), "must be a whole number, as in 1")
    memory = _text(found.get("memory", ""), (*path, "memory"), empty=True)
    if memory and not _MEMORY.fullmatch(memory):
        raise CatalogueError(
            (*path, "memory"), f"{memory!r} is no amount; write a number with K, M, G or T: 4G"
        )
    return Resources(None if cpu is None else float(cpu), memory, gpu)


def _local(raw: object, path: Path) -> Local:
    found = _mapping(raw, path, {"cmd", "args", "env", "notebook_dir", "default_url"})
    return Local(
        cmd=_strings(found.get("cmd", []), (*path, "cmd")),
        args=_strings(found.get("args", []), (*path, "args")),
        env=_env(found.get("env", {}), (*path, "env")),
        notebook_dir=_text(found.get("notebook_dir", ""), (*path, "notebook_dir"), empty=True),
        default_url=_text(found.get("default_url", ""), (*path, "default_url"), empty=True),
    )


def _kubernetes(raw: object, path: Path) -> Kubernetes:
    found = _mapping(raw, path, {"image", "node_selector", "kubespawner_override"})
    override = _mapping(found.get("kubespawner_override", {}), (*path, "kubespawner_override"))
    _env(override.get("environment", {}), (*path, "kubespawner_override", "environment"))
    selector_path = (*path, "node_selector")
    selector = _mapping(found.get("node_selector", {}), selector_path)
    return Kubernetes(
        image=_text(found.get("image", ""), (*path, "image"), empty=True),
        node_selector={k: _text(v, (*selector_path, k)) for k, v in selector.items()},
        kubespawner_override=dict(override),
    )


def _env(raw: object, path: Path) -> dict[str, str]:
    found = {}
    for name, value in _mapping(raw, path).items():
        if _RESERVED_ENV.fullmatch(name):
            raise CatalogueError((*path, name), "the hub sets this variable itself: take it out")
        found[name] = _text(value, (*path, name), empty=True)
    return found


def _named(raw: object, path: Path, make: Callable[[str, object, Path], T]) -> tuple[T, ...]:
    return tuple(make(key, value, (*path, key)) for key, value in _keyed(raw, path))


def _keyed(raw: object, path: Path) -> Iterator[tuple[str, object]]:
    for key, value in _mapping(raw, path).items():
        if not _KEY.fullmatch(key):
            raise CatalogueError(
                (*path, key), "the key may hold lower-case letters, digits and '-' only"
            )
        yield key, value


def _one_default(entries: tuple[Environment, ...] | tuple[Choice, ...], path: Path) -> None:
    marked = [e.key for e in entries if e.default]
    if len(marked) > 1:
        raise CatalogueError(
            (*path, marked[1], "default"), f"{marked[0]!r} is the default already; mark one only"
        )


def _mapping(raw: object, path: Path, known: set[str] | None = None) -> Mapping[str, Any]:
    if not isinstance(raw, Mapping):
        raise CatalogueError(path, f"must be a mapping ('name: value' lines), not {_kind(raw)}")
    for key in raw:
        if not isinstance(key, str):
            raise CatalogueError((*path, key), "the key must be a string: put it in quotes")
        if known is not None and key not in known:
            raise CatalogueError(
                (*path, key), f"unknown; known here are {', '.join(sorted(known))}"
            )
    return raw


def _strings(raw: object, path: Path) -> tuple[str, ...]:
    if not isinstance(raw, list):
        raise CatalogueError(path, f"must be a list ('- value' lines), not {_kind(raw)}")
    return tuple(_text(value, (*path, i)) for i, value in enumerate(raw))


def _text(raw: object, path: Path, *, empty: bool = False) -> str:
    if raw is None:
        raise CatalogueError(path, "is missing")
    if not isinstance(raw, str):
        raise CatalogueError(path, f"must be a string, not {_kind(raw)}: put it in quotes")
    if not raw.strip() and not empty:
        raise CatalogueError(path, "must not be empty")
    return raw.strip()


def _flag(raw: object, path: Path) -> bool:
    if not isinstance(raw, bool):
        raise CatalogueError(path, f"must be true or false, not {_kind(raw)}")
    return raw


def _kind(raw: object) -> str:
    if raw is None:
        return "nothing"
    kinds = {bool: "true/false", int: "a number", float: "a number", str: "a string"}
    kinds |= {list: "a list", dict: "a mapping"}
    return kinds.get(type(raw), type(raw).__name__)

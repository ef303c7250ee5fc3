"""Reads the catalogue of environments from YAML, and names the line of every fault.

The rules are in `escape_hub.core.environment_checks`; here is only the file.
PyYAML's nodes know their lines, so the file is composed to nodes once and both
the data and the lines are taken from them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import yaml

from escape_hub.core import environment_checks
from escape_hub.core.environments import Catalogue
from escape_hub.errors import SettingsError

#: An environment's text is a few lines; a file beyond this is not a catalogue.
MAX_SIZE = 1024 * 1024


class _Loader(yaml.SafeLoader):
    """Dates stay strings: nothing in a catalogue is a date, and a version may look like one."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load_catalogue(path: str | Path) -> Catalogue:
    """The catalogue of that file, or a `SettingsError` with file, line and reason."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SettingsError(
            f"{file}: no such file; EscapeSpawnerMixin.environments_file names the catalogue"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: cannot be read: {error}") from None
    return parse(text, name=str(file))


@cache
def cached_catalogue(path: str) -> Catalogue:
    """The same, read once in the life of the hub: what people see and what is enforced agree."""
    return load_catalogue(path)


def parse(text: str, *, name: str) -> Catalogue:
    """The catalogue in ``text``; ``name`` is the file's name in messages."""
    if len(text) > MAX_SIZE:
        raise SettingsError(f"{name}: larger than {MAX_SIZE} bytes, which is no catalogue")
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            raise SettingsError(f"{name}:1: the file is empty")
        _refuse_repeated_keys(root, name)
        raw = loader.construct_document(root)
    except yaml.YAMLError as error:
        raise SettingsError(_syntax(error, name)) from None
    finally:
        loader.dispose()
    try:
        return environment_checks.parse_catalogue(raw)
    except environment_checks.CatalogueError as error:
        line = _line(root, error.path)
        raise SettingsError(f"{name}:{line}: {error.message}", code=error.code) from None


def _refuse_repeated_keys(root: yaml.Node, name: str) -> None:
    """YAML takes the last of two equal keys and says nothing: an environment would vanish."""
    seen: set[int] = set()
    todo = [root]
    while todo:
        node = todo.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            _refuse_repeated(node, name)
            todo += [child for pair in node.value for child in pair]
        elif isinstance(node, yaml.SequenceNode):
            todo += node.value


def _refuse_repeated(node: yaml.MappingNode, name: str) -> None:
    first: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if str(key.value) in first:
            raise SettingsError(
                f"{name}:{line}: {key.value!r} is there already, in line {first[str(key.value)]}"
            )
        first[str(key.value)] = line


def _line(node: yaml.Node, path: environment_checks.Path) -> int:
    """The line of the value at ``path``, or of the nearest thing above that exists."""
    line = int(node.start_mark.line) + 1
    for step in path:
        found = _child(node, step)
        if found is None:
            break
        line, node = found
    return line


def _child(node: yaml.Node, step: Any) -> tuple[int, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(step):
                return key.start_mark.line + 1, value
    elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step].start_mark.line + 1, node.value[step]
    return None


def _syntax(error: yaml.YAMLError, name: str) -> str:
    mark = getattr(error, "problem_mark", None)
    line = f":{mark.line + 1}" if mark else ""
    parts = [getattr(error, "context", None), getattr(error, "problem", None)]
    return f"{name}{line}: {', '.join(p for p in parts if p) or 'not YAML'}"

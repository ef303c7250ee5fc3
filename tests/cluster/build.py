"""Build the control plane's programs once, into the cache.

Usage: python3 tests/cluster/build.py            (prints the folder it built or found)

The first build takes about seven minutes of two cores and 4 GB of disk; a second call
returns at once. It may run in the background while other tests run: it is niced, and two
builds at once wait for each other. Needs Go (``requirements_check.py`` says which) and a Go
module proxy as ``go env GOPROXY`` names it. Standard library only.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOOLS = HERE / "tools"
sys.path.insert(0, str(HERE.parent.parent / "tools"))
import setup  # type: ignore[import-not-found]  # noqa: E402 - tools/setup.py

PROGRAMS = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
}


class BuildError(RuntimeError):
    """The control plane could not be built; the text ends with what Go said."""


def cache_folder(kind: str) -> Path:
    """Where ``tools/setup.py`` keeps what it makes: ``venv``, ``venv55``, ``proxy``."""
    return Path(setup.place(kind))


def place() -> Path:
    """The folder of the programs, whether they are built or not."""
    digest = hashlib.sha256()
    for part in (TOOLS / "go.mod", TOOLS / "go.sum"):
        digest.update(part.read_bytes())
    version = subprocess.run(["go", "version"], capture_output=True, text=True, check=True)
    digest.update(version.stdout.encode())
    return Path(setup.cache_root() / f"cluster-{digest.hexdigest()[:16]}")


def is_built() -> bool:
    return (place() / ".complete").exists()


def kubernetes_version() -> str:
    """The pinned version, like ``1.36.3``."""
    found = re.search(r"^\tk8s\.io/kubernetes v([\d.]+)", (TOOLS / "go.mod").read_text(), re.M)
    if found is None:
        raise BuildError("tools/go.mod does not pin k8s.io/kubernetes")
    return found[1]


def linker_flags(program: str) -> str:
    """Without these, /version answers v0.0.0 and clients that compare versions go astray."""
    flags = ["-s", "-w"]
    if program != "etcd":
        version = kubernetes_version()
        major, minor, _ = version.split(".")
        stamps = {
            "gitMajor": major,
            "gitMinor": minor,
            "gitVersion": f"v{version}",
            "gitCommit": "unknown",
            "gitTreeState": "clean",
            "buildDate": "1970-01-01T00:00:00Z",
        }
        for name, value in stamps.items():
            flags += ["-X", f"k8s.io/component-base/version.{name}={value}"]
    return " ".join(flags)


@contextmanager
def only_one_builder() -> Iterator[None]:
    root = setup.cache_root()
    root.mkdir(parents=True, exist_ok=True)
    with (root / "cluster-build.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def compile_into(folder: Path) -> None:
    # -modcacherw: 'rm -rf' and 'go clean -modcache' work on what this downloads.
    env = {
        **os.environ,
        "CGO_ENABLED": "0",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
        "GOFLAGS": "-mod=readonly -modcacherw -trimpath -buildvcs=false",
    }
    for program, package in PROGRAMS.items():
        command = ["go", "build", "-ldflags", linker_flags(program), "-o", str(folder / program)]
        done = subprocess.run(
            ["nice", "-n", "19", *command, package],
            cwd=TOOLS,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            raise BuildError(f"building {program} failed:\n{done.stdout[-3000:]}")


def build() -> Path:
    """The folder with the programs of `PROGRAMS`, built now if it has to be."""
    target = place()
    with only_one_builder():
        if (target / ".complete").exists():
            return target
        print("cluster: building the control plane (about seven minutes)", flush=True)
        staging = Path(tempfile.mkdtemp(prefix="cluster-build.", dir=setup.cache_root()))
        try:
            compile_into(staging)
            (staging / ".complete").touch()
            shutil.rmtree(target, ignore_errors=True)
            staging.chmod(0o755)
            staging.rename(target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
    return target


if __name__ == "__main__":
    try:
        print(build())
    except BuildError as error:
        sys.exit(f"cluster: {error}")

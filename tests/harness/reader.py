"""A reader in a tight loop, run inside a session: python reader.py OUTPUT SECONDS TARGET.

Standard library only. It reads both token files again and again, and appends a
JSON line to OUTPUT for every token it sees first, and a summary at the end. It
ends after SECONDS, or as soon as each file held TARGET distinct tokens.
"""

from __future__ import annotations

import json
import os
import stat
import sys
import time
from typing import Any


def read(path: str) -> tuple[str, str]:
    """(content, what is wrong with the file or nothing); opened once, judged by its own fd."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        return "", f"cannot open: {error.strerror}"
    try:
        found = os.fstat(fd)
        content = os.read(fd, 65536).decode()
    finally:
        os.close(fd)
    if stat.S_IMODE(found.st_mode) != 0o600 or found.st_uid != os.getuid():
        return content, f"mode {stat.S_IMODE(found.st_mode):o} uid {found.st_uid}"
    return content, ""


def jwt_of(name: str, content: str) -> str:
    """The token inside; nothing when the file is partial."""
    if name == "eos.token":
        parts = content.split(":")
        complete = len(parts) == 3 and parts[0] == "oauth2" and parts[2].endswith("/userinfo")
        return parts[1] if complete and parts[1].count(".") == 2 else ""
    return content if content.count(".") == 2 and not content.endswith("\n") else ""


def main(output: str, seconds: float, target: int) -> None:
    paths = {
        "eos.token": os.environ["OAUTH2_TOKEN"].removeprefix("FILE:"),
        "rucio.token": os.path.dirname(os.environ["RUCIO_CONFIG"]) + "/rucio.token",
    }
    seen: dict[str, dict[str, dict[str, float]]] = {name: {} for name in paths}
    faults: dict[str, int] = {}
    reads, began = 0, time.monotonic()
    with open(output, "a", buffering=1) as out:
        while time.monotonic() - began < seconds:
            for name, path in paths.items():
                content, wrong = read(path)
                reads += 1
                token = jwt_of(name, content)
                if wrong or not token:
                    key = f"{name}: {wrong or 'partial or empty'}"
                    faults[key] = faults.get(key, 0) + 1
                    continue
                now = time.time()
                if token not in seen[name]:
                    seen[name][token] = {"first": now}
                    out.write(json.dumps({"file": name, "token": token, "first": now}) + "\n")
                seen[name][token]["last"] = now
            if all(len(tokens) >= target for tokens in seen.values()):
                break
            time.sleep(0.002)
        summary: dict[str, Any] = {"reads": reads, "faults": faults, "seen": seen}
        out.write(json.dumps({"summary": summary}) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), int(sys.argv[3]))

"""How long a hub's health page takes, looked at every ``--every`` s until stdin closes.

Then prints ``<monotonic time it was due> <seconds>`` a line. A page that takes longer than the
interval counts for every look that was due meanwhile: a stall must not hide its own length.
A process of its own, so that it does not wait for whoever presses the hub.
"""

from __future__ import annotations

import argparse
import http.client
import sys
import threading
import time


def _set_at_the_end_of_stdin(over: threading.Event) -> None:
    sys.stdin.read()
    over.set()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/hub/health")
    parser.add_argument("--every", type=float, default=0.05)
    asked = parser.parse_args()
    over = threading.Event()
    threading.Thread(target=_set_at_the_end_of_stdin, args=(over,), daemon=True).start()
    connection = http.client.HTTPConnection("127.0.0.1", asked.port, timeout=30)
    seen: list[tuple[float, float]] = []
    due = time.monotonic()
    while not over.wait(max(0.0, due - time.monotonic())):
        connection.request("GET", asked.path)
        reply = connection.getresponse()
        reply.read()
        if reply.status != 200:
            sys.exit(f"probe: {asked.path} answered {reply.status}")
        done = time.monotonic()
        while due <= done:
            seen.append((due, done - due))
            due += asked.every
    # Not as they come: a pipe that nobody reads yet is full after some minutes.
    for at, took in seen:
        print(f"{at:.6f} {took:.6f}")


if __name__ == "__main__":
    main()

"""A TCP relay that makes a service on loopback far away: every byte is ``--delay`` s late.

Both ways, so a request and its reply take twice that. Its own process, for its timers must
not wait for what is measured. Opening a connection is not delayed.
"""

from __future__ import annotations

import argparse
import asyncio
import socket


async def _carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter, delay: float) -> None:
    loop = asyncio.get_running_loop()
    late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

    async def read() -> None:
        while data := await source.read(65536):
            late.put_nowait((loop.time() + delay, data))
        late.put_nowait((loop.time() + delay, b""))

    reader = asyncio.ensure_future(read())
    try:
        while True:
            due, data = await late.get()
            await asyncio.sleep(due - loop.time())
            if not data:
                return
            sink.write(data)
    except OSError:
        return
    finally:
        reader.cancel()
        sink.close()


async def relay(port: int, target: int, delay: float) -> None:
    """Listen on loopback for good."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", target)
        for one in (writer, back):
            one.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.gather(_carry(reader, back, delay), _carry(there, writer, delay))

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    print("ready", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for option, kind in (("--port", int), ("--to", int), ("--delay", float)):
        parser.add_argument(option, type=kind, required=True)
    asked = parser.parse_args()
    asyncio.run(relay(asked.port, asked.to, asked.delay))

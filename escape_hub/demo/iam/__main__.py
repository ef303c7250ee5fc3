"""``python -m escape_hub.demo.iam``: the development IAM as a process of its own."""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import errno
import logging
import os
import signal
import socket
import sys
from pathlib import Path

import tornado.netutil
from tornado.httpserver import HTTPServer

from escape_hub.demo.iam.app import make_app
from escape_hub.demo.iam.config import IamConfig, check_loopback, load_config
from escape_hub.errors import SettingsError

_BANNER = """\
*** DEVELOPMENT ONLY ***  This identity service has published passwords and a control API.
*** It listens on this machine alone. Never give it a real user or a real password.
issuer: {issuer}"""


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m escape_hub.demo.iam",
        description="A development identity service that speaks INDIGO IAM's dialect. "
        "DEVELOPMENT ONLY: loopback, published passwords.",
    )
    parser.add_argument("--port", type=int, help="0 takes a free one (default: 8081)")
    parser.add_argument("--host", help="a loopback address (default: 127.0.0.1)")
    parser.add_argument("--config", type=Path, help="JSON file with the fields of IamConfig")
    parser.add_argument("--state", type=Path, help="file that keeps keys and logins for next time")
    parser.add_argument("--verbose", action="store_true", help="one line a request on stderr")
    return parser.parse_args(argv)


def _configuration(arguments: argparse.Namespace) -> IamConfig:
    config = load_config(arguments.config) if arguments.config else IamConfig()
    given = {"port": arguments.port, "host": arguments.host, "state_file": arguments.state}
    return dataclasses.replace(config, **{k: v for k, v in given.items() if v is not None})


def _bind(config: IamConfig) -> tuple[list[socket.socket], IamConfig]:
    """Listening sockets, and the configuration with the port that they got."""
    check_loopback(config.host)
    try:
        sockets = tornado.netutil.bind_sockets(config.port, config.host)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise SettingsError(
                f"port {config.port} on {config.host} is taken; "
                "stop what listens there or choose another with --port"
            ) from None
        raise SettingsError(
            f"cannot listen on {config.host} port {config.port}: {error.strerror}"
        ) from None
    port = sockets[0].getsockname()[1]
    return sockets, dataclasses.replace(config, port=port)


async def serve(config: IamConfig) -> None:
    """Answer until SIGTERM or SIGINT; prints ``ready`` on stdout once it does."""
    sockets, config = _bind(config)
    server = HTTPServer(make_app(config))
    server.add_sockets(sockets)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    print(_BANNER.format(issuer=config.issuer_url), file=sys.stderr, flush=True)
    print("ready", flush=True)
    await stop.wait()
    server.stop()
    await server.close_all_connections()


def main(argv: list[str] | None = None) -> int:
    """The command; 0 after a clean stop, 1 when it cannot start."""
    os.umask(0o077)
    arguments = _arguments(argv)
    logging.basicConfig(
        level=logging.INFO if arguments.verbose else logging.WARNING,
        format="%(asctime)s development IAM: %(message)s",
    )
    try:
        asyncio.run(serve(_configuration(arguments)))
    except SettingsError as error:
        print(f"development IAM: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

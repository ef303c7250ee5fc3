"""Puts the development IAM together: ``make_app`` for tests, ``serve`` for the process."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import tornado.web

from escape_hub.demo.iam.base import Handler, NotFound
from escape_hub.demo.iam.config import IamConfig
from escape_hub.demo.iam.handlers_dev import CONTROL
from escape_hub.demo.iam.handlers_login import Aup, Authorize, Cancel, Consent, Home, Login
from escape_hub.demo.iam.handlers_logout import EndSession
from escape_hub.demo.iam.handlers_resource import Caught, Discovery, Jwk, Userinfo
from escape_hub.demo.iam.handlers_token import Introspect, Revoke, Token
from escape_hub.demo.iam.service import Iam
from escape_hub.demo.iam.state import SigningKey

_HERE = Path(__file__).parent
_log = logging.getLogger("escape_hub.demo.iam")

_ROUTES: list[tuple[str, type[Handler]]] = [
    ("", Home),
    (r"\.well-known/openid-configuration", Discovery),
    ("authorize", Authorize),
    ("login", Login),
    ("consent", Consent),
    ("aup", Aup),
    ("cancel", Cancel),
    ("token", Token),
    ("userinfo", Userinfo),
    ("jwk", Jwk),
    ("introspect", Introspect),
    ("revoke", Revoke),
    ("caught", Caught),
    ("end_session", EndSession),
    *((f"dev/{path}", handler) for path, handler in CONTROL),
]


class _Style(tornado.web.StaticFileHandler):
    """The style sheet."""


def _log_request(handler: tornado.web.RequestHandler) -> None:
    """One line a request, without its query: that may hold an id_token or a code."""
    request = handler.request
    _log.info("%s %s %s", handler.get_status(), request.method, request.path)


class IamApplication(tornado.web.Application):
    """The web application; ``iam`` is the service behind it."""

    def __init__(self, iam: Iam, **settings: Any) -> None:
        prefix = urlsplit(iam.config.issuer_url).path.rstrip("/")
        routes: list[Any] = [
            (rf"{prefix}/{path}", handler, {"iam": iam}) for path, handler in _ROUTES
        ]
        routes.append((rf"{prefix}/static/(.*)", _Style, {"path": str(_HERE / "static")}))
        super().__init__(routes, **settings)
        self.iam = iam


def make_app(
    config: IamConfig,
    *,
    now: Callable[[], float] = time.time,
    signing_key: SigningKey | None = None,
) -> IamApplication:
    """The application for a configuration; ``now`` gives seconds since the epoch.

    ``signing_key`` spares making one where the state has none, as in many short tests.

    The configuration must know the port that the caller will listen on, or an
    issuer, because both are written into tokens.
    """
    iam = Iam(config, now, signing_key)
    return IamApplication(
        iam,
        template_path=str(_HERE / "templates"),
        default_handler_class=NotFound,
        default_handler_args={"iam": iam},
        log_function=_log_request,
    )

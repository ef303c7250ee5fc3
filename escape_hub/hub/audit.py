"""One line per login, exchange and renewal, for who must answer later what happened when.

Logger ``escape_hub.audit``. A line holds user, audience, outcome and reference
code: never a token, nor anything that the issuer wrote.
"""

from __future__ import annotations

import json
import logging
import math
import re
import traceback
from collections.abc import Callable

LOGGER = "escape_hub.audit"
_PLAIN = re.compile(r"[A-Za-z0-9._@+:/-]+")


def _word(value: str) -> str:
    # Quoted unless harmless: a user name must not be able to forge a line.
    return value if _PLAIN.fullmatch(value) else json.dumps(value)


class Audit:
    """Writes the lines."""

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._log = logger or logging.getLogger(LOGGER)

    def record(
        self, event: str, user: str, outcome: str, *, audience: str = "-", reference: str = "-"
    ) -> None:
        """``event``: ``login``, ``exchange``, ``renewal``, ``forget`` or ``logout``.

        ``forget``: the stored tokens were cleared. ``outcome`` is ``ok`` or the kind of
        failure; ``reference`` its code.
        """
        self._log.info(
            "event=%s user=%s audience=%s outcome=%s reference=%s",
            event,
            _word(user),
            _word(audience),
            _word(outcome),
            _word(reference or "-"),
        )


class Alerts:
    """Tells the operator of a fault, once per ``interval`` seconds for each key."""

    def __init__(self, now: Callable[[], float], interval: float = 300.0) -> None:
        self._now = now
        self._interval = interval
        self._told: dict[str, float] = {}

    def __call__(self, key: str, message: str) -> None:
        """Log ``message`` as an error, unless this ``key`` was told of a moment ago."""
        now = self._now()
        if now - self._told.get(key, -math.inf) >= self._interval:
            self._told[key] = now
            logging.getLogger(f"{__package__}.broker").error(
                "For the operator (%s): %s", key, message
            )


def attach_to(parent: logging.Logger) -> None:
    """Let everything below ``escape_hub`` log through JupyterHub's own handlers.

    JupyterHub does the same for tornado; without it our lines go nowhere.
    """
    logger = logging.getLogger("escape_hub")
    logger.parent = parent
    logger.propagate = True
    logger.setLevel(min(parent.level or logging.INFO, logging.INFO))


def log_unexpected(log: logging.Logger, what: str, error: BaseException) -> None:
    """Log a bug where it happened, without the exception's text: that may quote anything."""
    frames = "".join(traceback.format_tb(error.__traceback__))
    log.error("%s failed unexpectedly: %s\n%s", what, type(error).__name__, frames)

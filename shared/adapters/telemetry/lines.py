"""Log lines on their way out: taken from our loggers, marked with the request they are about.

In Azure the Functions host has a handler on the root logger that sends the same lines to the same Application Insights, without
our request ids. So that no line is there twice, that handler is asked to leave out what is told from here, and only as long as
telling works: when it does not, the host has every line. Nothing else changes: other handlers, such as the local host's on
stderr, see every line, and our loggers propagate as before.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import Final

from shared.adapters.telemetry.happened import LogLine
from shared.tracing import SERVED

LOGGERS: Final = ("switchyard", "shared", "functions", "local")
"""The roots of our loggers' names."""
_OWN: Final = "shared.adapters.telemetry"
"""What telling says about itself is not told: the host must get it, and telling must not feed on itself."""
_HOST: Final = ("azure_functions_worker", "azure_functions_runtime", "proxy_worker")
"""The packages of the Functions worker, by its version: its handler is known by them, as it has no public name."""
_PREFIXES: Final = tuple(f"{name}." for name in LOGGERS)
_MAX_MESSAGE: Final = 8_192
_MAX_STACK: Final = 16_384


def is_told(logger: str) -> bool:
    """Say whether lines of this logger are told."""
    return (logger in LOGGERS or logger.startswith(_PREFIXES)) and not logger.startswith(_OWN)


class LineHandler(logging.Handler):
    """Hands our loggers' lines on. It does not decide what is logged: that stays with the loggers' levels."""

    def __init__(self, tell: Callable[[LogLine], None]) -> None:
        super().__init__()
        self._tell = tell

    def emit(self, record: logging.LogRecord) -> None:
        """Tell one line; what cannot be rendered is handled as the standard library does."""
        if not is_told(record.name):
            return
        try:
            message = record.getMessage()
        except (TypeError, ValueError, KeyError):
            self.handleError(record)
            return
        served = SERVED.get()
        kind, _, frames = record.exc_info or (None, None, None)
        line = LogLine(
            record.created,
            record.levelno,
            record.name,
            message[:_MAX_MESSAGE],
            None if served is None else served.request_id,
            None if served is None else served.trace,
            # never the exception's message: it may quote what a caller or a provider sent
            None if kind is None else kind.__qualname__,
            "" if frames is None else "".join(traceback.format_tb(frames))[-_MAX_STACK:],
        )
        self._tell(line)

    def attach(self) -> None:
        """Take lines from now on."""
        for name in LOGGERS:
            logging.getLogger(name).addHandler(self)

    def detach(self) -> None:
        """Take no more lines."""
        for name in LOGGERS:
            logging.getLogger(name).removeHandler(self)


class HostFilter:
    """Keeps lines that are told from here out of the Functions host's handler, while telling works."""

    def __init__(self, works: Callable[[], bool]) -> None:
        self._works = works
        self._handlers: list[logging.Handler] = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether the host gets the line."""
        return not (is_told(record.name) and self._works())

    def attach(self) -> None:
        """Ask the host's handlers, where there are any."""
        found = [handler for handler in logging.getLogger().handlers if type(handler).__module__.startswith(_HOST)]
        for handler in found:
            handler.addFilter(self)
        self._handlers = found

    def detach(self) -> None:
        """Leave them as they were."""
        for handler in self._handlers:
            handler.removeFilter(self)
        self._handlers = []

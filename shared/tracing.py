"""Which request the running task serves: what logs are marked with, and where spans belong."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from shared.core.telemetry import TraceContext


@dataclass(frozen=True, slots=True)
class Served:
    """A request, and its place in a trace; ``trace`` is None when nothing is told."""

    request_id: str
    trace: TraceContext | None = None


SERVED: Final[ContextVar[Served | None]] = ContextVar("served", default=None)
"""Set by the edge at a request's begin, and by activities; None outside of both."""

"""The null object: telemetry that nobody asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from shared.core.records import RequestRecord
from shared.core.telemetry import Content, Measurement, TraceContext


class Off:
    """Tells nobody anything, at no cost."""

    __slots__ = ()

    content = False

    def trace(self, traceparent: str | None) -> TraceContext | None:
        """Return None: nothing is traced."""
        del traceparent
        return None

    def ended(self, record: RequestRecord, trace: TraceContext | None, content: Content | None = None) -> None:
        """Do nothing."""

    def gauge(self, measurements: Sequence[Measurement]) -> None:
        """Do nothing."""

    async def aclose(self) -> None:
        """Do nothing."""


OFF: Final = Off()

"""What waits to be turned into telemetry."""

from __future__ import annotations

from dataclasses import dataclass

from shared.core.records import RequestRecord
from shared.core.telemetry import Content, TraceContext


@dataclass(frozen=True, slots=True)
class Ended:
    """A request that has ended. ``spared`` is whether its spans are not told because there was no place for them."""

    record: RequestRecord
    trace: TraceContext | None = None
    content: Content | None = None
    spared: bool = False

    @property
    def size(self) -> int:
        """Return how many characters of prompts and answers it holds."""
        return 0 if self.content is None else len(self.content.input) + len(self.content.output)


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line. ``time`` is seconds since the epoch; ``stack`` has the frames of an exception, without its message."""

    time: float
    level: int
    logger: str
    message: str
    request_id: str | None = None
    trace: TraceContext | None = None
    exception: str | None = None
    stack: str = ""

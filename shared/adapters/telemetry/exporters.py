"""What every destination gives: somewhere to send spans, metrics and logs, and how that went."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk._logs import ReadableLogRecord
    from opentelemetry.sdk.metrics.export import MetricExporter, MetricsData
    from opentelemetry.sdk.trace import ReadableSpan


class Fate(StrEnum):
    """What became of a batch."""

    SENT = "sent"
    LATER = "later"
    """Not taken; the same may be taken later."""
    REFUSED = "refused"
    """Not taken, or not whole, and never will be."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A batch's fate. ``why`` is safe to log, and says what to do where that is known; ``wait`` is what was asked for."""

    fate: Fate = Fate.SENT
    why: str = ""
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class Exporters:
    """Each blocks for some seconds at most, and never raises.

    ``metric_exporter`` says which temporality and aggregations its destination prefers. ``delta`` is whether metrics are told
    as what was added since they were last told: what was not taken must then be kept.
    """

    spans: Callable[[Sequence[ReadableSpan]], Sent]
    metrics: Callable[[MetricsData], Sent]
    logs: Callable[[Sequence[ReadableLogRecord]], Sent]
    metric_exporter: MetricExporter
    delta: bool
    close: Callable[[], None]

"""What is told to the world outside, as values: trace contexts, spans, measurements. Making them needs no library.

A request's spans and measurements are made from its `RequestRecord` when it has ended: what is billed, shown and told is then
one and the same. So an exporter may be loaded long after the first request was answered, and a request that nobody exports
costs nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from shared.core.registry import Secret
from shared.core.semconv import SERVICE, Instrument

Attribute = str | int | float | bool


@dataclass(frozen=True, slots=True)
class TraceContext:
    """Where a request stands in a trace (W3C Trace Context).

    Ids are lower-case hexadecimal; ``parent_id`` is the caller's span.
    """

    trace_id: str
    span_id: str
    parent_id: str | None = None
    sampled: bool = True


class SpanKind(StrEnum):
    """OpenTelemetry's kinds that occur here. The Functions host makes the server's."""

    INTERNAL = "internal"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Span:
    """One finished piece of work. Times are seconds since the epoch; ``error`` says why it failed, None when it did not."""

    name: str
    kind: SpanKind
    context: TraceContext
    start: float
    end: float
    attributes: Mapping[str, Attribute] = field(default_factory=dict)
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Measurement:
    """One value of a metric."""

    instrument: Instrument
    value: int | float
    attributes: Mapping[str, Attribute] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Content:
    """What was asked and answered, as JSON texts. Only ever made when the operator opted in."""

    input: str
    output: str = ""


class Destination(StrEnum):
    """Where what is told goes; the values are those of SWITCHYARD_TELEMETRY."""

    OFF = "off"
    CONSOLE = "console"
    OTLP = "otlp"
    AZURE_MONITOR = "azure_monitor"


@dataclass(frozen=True, slots=True)
class TelemetryOptions:
    """What the operator set about telemetry.

    ``connection_string`` is Application Insights', ``endpoint`` an OTLP/HTTP collector's. ``ratio`` is the share of traces that
    are told, from 0 to 1; ``metric_interval`` is seconds. ``content`` is whether prompts and answers may be told.
    """

    destination: Destination = Destination.OFF
    connection_string: Secret | None = None
    endpoint: str = "http://localhost:4318"
    service: str = SERVICE
    ratio: float = 1.0
    metric_interval: float = 60.0
    content: bool = False

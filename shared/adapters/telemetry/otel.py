"""Our values as OpenTelemetry's SDK has them: spans with our own ids, instruments, log records.

Imported in the telemetry's thread only: it is slow to import.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final, Protocol

from opentelemetry import trace as otel_trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Metric, MetricExporter, MetricsData
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from shared.adapters.telemetry.happened import LogLine
from shared.core import semconv
from shared.core.semconv import INSTRUMENTS, Instrument, InstrumentKind
from shared.core.telemetry import Measurement, Span, SpanKind, TraceContext

SCOPE: Final = InstrumentationScope(semconv.SERVICE)
SAMPLE_RATE: Final = "_MS.sampleRate"
"""The share of traces that are told, in percent: Azure Monitor counts a span as 100 / rate."""
ATTRIBUTE_SETS: Final = 10_000
"""Series a metric may have between two exports (many keys times many deployments); what is beyond is counted as one."""
POINTS: Final = 1_000
"""Values of metrics that are sent at once, or a few more: all that many keys make in a minute would be tens of megabytes."""
SECONDS: Final = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Boundaries of the GenAI conventions for durations; twice the last is beyond what a caller can wait for."""
FIRST_CHUNK_SECONDS: Final = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
TOKENS: Final = tuple(float(4**power) for power in range(14))
_BOUNDARIES: Final = {semconv.FIRST_CHUNK.name: FIRST_CHUNK_SECONDS, semconv.TOKENS.name: TOKENS}
_KINDS: Final = {SpanKind.INTERNAL: otel_trace.SpanKind.INTERNAL, SpanKind.CLIENT: otel_trace.SpanKind.CLIENT}
_OK: Final = otel_trace.Status(otel_trace.StatusCode.UNSET)
_SEVERITIES: Final = (
    (logging.CRITICAL, SeverityNumber.FATAL),
    (logging.ERROR, SeverityNumber.ERROR),
    (logging.WARNING, SeverityNumber.WARN),
    (logging.INFO, SeverityNumber.INFO),
)

Gauges = Callable[[Instrument], Iterable[Measurement]]


def resource(service: str, instance: str) -> Resource:
    """Return who tells: Azure Monitor shows them as role and role instance."""
    return Resource({"service.name": service, "service.instance.id": instance})


# ---- spans -----------------------------------------------------------------------------------------------------------


def readable(span: Span, who: Resource, ratio: float) -> ReadableSpan:
    """Return the span as exporters take it."""
    context = span.context
    attributes = dict(span.attributes)
    if ratio < 1:
        attributes[SAMPLE_RATE] = 100 * ratio
    return ReadableSpan(
        name=span.name,
        context=_span_context(context.trace_id, context.span_id, sampled=context.sampled),
        parent=None if context.parent_id is None else _span_context(context.trace_id, context.parent_id, sampled=True),
        resource=who,
        attributes=attributes,
        kind=_KINDS[span.kind],
        status=_OK if span.error is None else otel_trace.Status(otel_trace.StatusCode.ERROR, span.error),
        start_time=_nanoseconds(span.start),
        end_time=_nanoseconds(span.end),
        instrumentation_scope=SCOPE,
    )


def _span_context(trace_id: str, span_id: str, *, sampled: bool) -> otel_trace.SpanContext:
    flags = otel_trace.TraceFlags(otel_trace.TraceFlags.SAMPLED if sampled else otel_trace.TraceFlags.DEFAULT)
    return otel_trace.SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=flags)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e6) * 1_000  # a float of today's epoch has no more than microseconds


# ---- logs ------------------------------------------------------------------------------------------------------------


def log_record(line: LogLine, who: Resource) -> ReadableLogRecord:
    """Return the line as exporters take it, under the span of the request it is about."""
    attributes: dict[str, str] = {} if line.request_id is None else {semconv.REQUEST_ID: line.request_id}
    if line.exception is not None:
        attributes |= {"exception.type": line.exception, "exception.stacktrace": line.stack}
    made = LogRecord(
        timestamp=_nanoseconds(line.time),
        observed_timestamp=_nanoseconds(line.time),
        context=_context(line.trace),
        severity_text=logging.getLevelName(line.level),
        severity_number=next((number for level, number in _SEVERITIES if line.level >= level), SeverityNumber.DEBUG),
        body=line.message,
        attributes=attributes,
    )
    return ReadableLogRecord(made, who, InstrumentationScope(line.logger))


def _context(context: TraceContext | None) -> Context:
    if context is None:
        return Context()
    place = _span_context(context.trace_id, context.span_id, sampled=context.sampled)
    return otel_trace.set_span_in_context(otel_trace.NonRecordingSpan(place), Context())


# ---- metrics ---------------------------------------------------------------------------------------------------------


class _Recorder(Protocol):
    def __call__(self, amount: float, attributes: Mapping[str, str | int | float | bool], /) -> None: ...


class Instruments:
    """Every metric there is, aggregated in memory until it is collected. Any thread may record."""

    def __init__(self, who: Resource, exporter: MetricExporter, gauges: Gauges) -> None:
        limits: dict[type, int] = {Counter: ATTRIBUTE_SETS, Histogram: ATTRIBUTE_SETS}
        self._reader = InMemoryMetricReader(
            # the same as PeriodicExportingMetricReader asks its exporter for
            preferred_temporality=exporter._preferred_temporality,  # noqa: SLF001
            preferred_aggregation=exporter._preferred_aggregation,  # noqa: SLF001
            cardinality_limits=limits,
        )
        self._provider = MeterProvider(
            [self._reader], resource=who, exemplar_filter=AlwaysOffExemplarFilter(), shutdown_on_exit=False
        )
        meter = self._provider.get_meter(semconv.SERVICE)
        self._record: dict[str, _Recorder] = {}
        for instrument in INSTRUMENTS:
            name, unit, description = instrument.name, instrument.unit, instrument.description
            match instrument.kind:
                case InstrumentKind.COUNTER:
                    self._record[name] = meter.create_counter(name, unit, description).add
                case InstrumentKind.HISTOGRAM:
                    bounds = _BOUNDARIES.get(name, SECONDS)
                    made = meter.create_histogram(name, unit, description, explicit_bucket_boundaries_advisory=bounds)
                    self._record[name] = made.record
                case InstrumentKind.GAUGE:
                    meter.create_observable_gauge(name, [partial(_observe, gauges, instrument)], unit, description)

    def record(self, measurement: Measurement) -> None:
        """Add a value; gauges are not recorded but asked for."""
        self._record[measurement.instrument.name](measurement.value, measurement.attributes)

    def collect(self) -> Iterator[MetricsData]:
        """Return what there is to tell now, in parts that may be sent one by one."""
        collected = self._reader.get_metrics_data()
        return iter(()) if collected is None else in_parts(collected)

    def close(self) -> None:
        """Forget everything."""
        self._provider.shutdown()


def in_parts(data: MetricsData) -> Iterator[MetricsData]:
    """Yield the same values, at most twice `POINTS` at a time."""
    for of in data.resource_metrics:
        for scope in of.scope_metrics:
            some: list[Metric] = []
            count = 0
            for metric in _slices(scope.metrics):
                some.append(metric)
                count += len(metric.data.data_points)
                if count >= POINTS:
                    yield MetricsData([replace(of, scope_metrics=[replace(scope, metrics=some)])])
                    some, count = [], 0
            if some:
                yield MetricsData([replace(of, scope_metrics=[replace(scope, metrics=some)])])


def _slices(metrics: Iterable[Metric]) -> Iterator[Metric]:
    for metric in metrics:
        data: Any = metric.data  # of four kinds, alike in this
        for start in range(0, len(data.data_points), POINTS):
            yield replace(metric, data=replace(data, data_points=data.data_points[start : start + POINTS]))


def _observe(gauges: Gauges, instrument: Instrument, _: CallbackOptions) -> Iterable[Observation]:
    return [Observation(measurement.value, dict(measurement.attributes)) for measurement in gauges(instrument)]

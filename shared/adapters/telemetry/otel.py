"""Our values as OpenTelemetry's SDK has them: spans with our own ids, instruments, log records.

Imported in the telemetry's thread only: it is slow to import.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Final

from opentelemetry import trace as otel_trace
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.metrics import Histogram as HistogramOfApi
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    InMemoryMetricReader,
    Metric,
    MetricExporter,
    MetricsData,
    ResourceMetrics,
    ScopeMetrics,
)
from opentelemetry.sdk.metrics.view import Aggregation, ExponentialBucketHistogramAggregation
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from shared.adapters.telemetry.aggregation import ATTRIBUTE_SETS, Tally
from shared.adapters.telemetry.happened import LogLine
from shared.core import semconv
from shared.core.semconv import INSTRUMENTS, Instrument, InstrumentKind
from shared.core.telemetry import Measurement, Span, SpanKind, TraceContext

SCOPE: Final = InstrumentationScope(semconv.SERVICE)
SAMPLE_RATE: Final = "_MS.sampleRate"
"""The share of traces that are told, in percent: Azure Monitor counts a span as 100 / rate."""
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


class Instruments:
    """Every metric there is, aggregated in memory until it is collected. Any thread may record.

    Gauges are the SDK's, and so are histograms where their destination wants buckets that follow the values.
    """

    def __init__(self, who: Resource, exporter: MetricExporter, gauges: Gauges) -> None:
        # the same as PeriodicExportingMetricReader asks its exporter for
        temporality: Mapping[type, AggregationTemporality] = exporter._preferred_temporality or {}  # noqa: SLF001
        aggregation: Mapping[type, Aggregation] = exporter._preferred_aggregation or {}  # noqa: SLF001
        self._reader = InMemoryMetricReader(
            preferred_temporality=dict(temporality),
            preferred_aggregation=dict(aggregation),
            cardinality_limits={Histogram: ATTRIBUTE_SETS},
        )
        self._provider = MeterProvider(
            [self._reader], resource=who, exemplar_filter=AlwaysOffExemplarFilter(), shutdown_on_exit=False
        )
        self._who = who
        self._lock = threading.Lock()
        self._tallies: dict[str, Tally] = {}
        self._theirs: dict[str, HistogramOfApi] = {}
        follows = isinstance(aggregation.get(Histogram), ExponentialBucketHistogramAggregation)
        meter = self._provider.get_meter(semconv.SERVICE)
        for instrument in INSTRUMENTS:
            name, unit, description = instrument.name, instrument.unit, instrument.description
            match instrument.kind:
                case InstrumentKind.COUNTER:
                    self._tallies[name] = Tally(instrument, temporality.get(Counter, AggregationTemporality.CUMULATIVE))
                case InstrumentKind.HISTOGRAM if follows:
                    self._theirs[name] = meter.create_histogram(name, unit, description)
                case InstrumentKind.HISTOGRAM:
                    told = temporality.get(Histogram, AggregationTemporality.CUMULATIVE)
                    self._tallies[name] = Tally(instrument, told, _BOUNDARIES.get(name, SECONDS))
                case InstrumentKind.GAUGE:
                    meter.create_observable_gauge(name, [partial(_observe, gauges, instrument)], unit, description)

    def record(self, measurements: Iterable[Measurement]) -> None:
        """Add values; gauges are not recorded but asked for."""
        tallies = self._tallies
        with self._lock:
            for measurement in measurements:
                name = measurement.instrument.name
                if name in tallies:
                    tallies[name].add(measurement.value, measurement.attributes)
                else:
                    self._theirs[name].record(measurement.value, measurement.attributes)

    def collect(self) -> Iterator[MetricsData]:
        """Return what there is to tell now, in parts that may be sent one by one."""
        with self._lock:
            now = time.time_ns()
            ours = [tally.collect(now) for tally in self._tallies.values()]
        metrics = [metric for metric in ours if metric is not None]
        theirs = self._reader.get_metrics_data()
        for of in () if theirs is None else theirs.resource_metrics:
            for scope in of.scope_metrics:
                metrics += scope.metrics
        return in_parts(metrics, self._who)

    def close(self) -> None:
        """Forget everything."""
        self._provider.shutdown()


def in_parts(metrics: Iterable[Metric], who: Resource) -> Iterator[MetricsData]:
    """Yield the values, at most twice `POINTS` at a time."""
    some: list[Metric] = []
    count = 0
    for metric in _slices(metrics):
        some.append(metric)
        count += len(metric.data.data_points)
        if count >= POINTS:
            yield _data(some, who)
            some, count = [], 0
    if some:
        yield _data(some, who)


def _data(metrics: Sequence[Metric], who: Resource) -> MetricsData:
    return MetricsData([ResourceMetrics(who, [ScopeMetrics(SCOPE, metrics, "")], who.schema_url)])


def _slices(metrics: Iterable[Metric]) -> Iterator[Metric]:
    for metric in metrics:
        data: Any = metric.data  # of four kinds, alike in this
        for start in range(0, len(data.data_points), POINTS):
            yield replace(metric, data=replace(data, data_points=data.data_points[start : start + POINTS]))


def _observe(gauges: Gauges, instrument: Instrument, _: CallbackOptions) -> Iterable[Observation]:
    return [Observation(measurement.value, dict(measurement.attributes)) for measurement in gauges(instrument)]

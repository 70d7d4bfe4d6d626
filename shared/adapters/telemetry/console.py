"""The console: one line of JSON on stderr per span, metric and log line, for a person who wants to see what would be told."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.metrics.export import HistogramDataPoint, MetricExporter, MetricExportResult, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import format_span_id, format_trace_id

from shared.adapters.telemetry.exporters import Exporters, Sent


class _Preferences(MetricExporter):
    """The SDK's defaults: totals since the start."""

    def export(self, metrics_data: MetricsData, timeout_millis: float = 0, **_: Any) -> MetricExportResult:
        """Do nothing: metrics are written elsewhere."""
        del metrics_data, timeout_millis
        return MetricExportResult.SUCCESS

    def force_flush(self, timeout_millis: float = 0) -> bool:
        """Do nothing: nothing is pending."""
        del timeout_millis
        return True

    def shutdown(self, timeout_millis: float = 0, **_: Any) -> None:
        """Do nothing: nothing is open."""


def open_exporters() -> Exporters:
    """Return exporters that write to stderr."""
    return Exporters(
        lambda batch: _write(map(_span, batch)),
        lambda data: _write(_metrics(data)),
        lambda batch: _write(map(_log_line, batch)),
        _Preferences(),
        delta=False,
        close=lambda: None,
    )


def _write(rows: Iterator[Mapping[str, Any]]) -> Sent:
    sys.stderr.writelines(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
    sys.stderr.flush()
    return Sent()


def _span(span: ReadableSpan) -> Mapping[str, Any]:
    start, end, place = span.start_time or 0, span.end_time or 0, span.get_span_context()
    row: dict[str, Any] = {"span": span.name, "kind": span.kind.name.lower(), "time": _time(start), "ms": (end - start) / 1e6}
    if place is not None:
        row |= {"trace_id": format_trace_id(place.trace_id), "span_id": format_span_id(place.span_id)}
    if span.parent is not None:
        row["parent_id"] = format_span_id(span.parent.span_id)
    if span.status.description is not None:
        row["error"] = span.status.description
    return row | {"attributes": dict(span.attributes or {})}


def _metrics(data: MetricsData) -> Iterator[Mapping[str, Any]]:
    for metric in (metric for of in data.resource_metrics for scope in of.scope_metrics for metric in scope.metrics):
        for point in metric.data.data_points:
            row: dict[str, Any] = {"metric": metric.name, "unit": metric.unit, "time": _time(point.time_unix_nano)}
            if isinstance(point, HistogramDataPoint):
                row |= {"count": point.count, "sum": point.sum, "min": point.min, "max": point.max}
            else:
                row["value"] = getattr(point, "value", None)
            yield row | {"attributes": dict(point.attributes or {})}


def _log_line(line: ReadableLogRecord) -> Mapping[str, Any]:
    record = line.log_record
    row: dict[str, Any] = {"log": record.body, "level": record.severity_text, "time": _time(record.timestamp or 0)}
    if record.trace_id:
        row["trace_id"] = format_trace_id(record.trace_id)
    return row | {"attributes": dict(record.attributes or {})}


def _time(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).isoformat(timespec="milliseconds")

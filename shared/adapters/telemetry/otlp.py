"""OTLP over HTTP: any collector, and the many products that speak its protocol. Imported in the telemetry's thread.

Headers and certificates are the exporter's own settings: OTEL_EXPORTER_OTLP_HEADERS and the like.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Final

from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.metrics import Counter
from opentelemetry.sdk.metrics.export import AggregationTemporality, MetricsData
from opentelemetry.sdk.trace import ReadableSpan

from shared.adapters.telemetry.exporters import Exporters, Fate, Sent

TIMEOUT: Final = 5.0
"""Seconds for a batch, the exporter's own tries included."""
_NOT_TAKEN: Final = Sent(Fate.LATER, "the collector at OTEL_EXPORTER_OTLP_ENDPOINT cannot be reached, or did not take them")


def open_exporters(endpoint: str) -> Exporters:
    """Return exporters to a collector at ``endpoint``, its base URL; slow."""
    quiet = logging.getLogger("opentelemetry.exporter")
    if quiet.level == logging.NOTSET:
        quiet.setLevel(logging.CRITICAL + 1)  # every failed try would be a line, with a stack
    spans = OTLPSpanExporter(f"{endpoint}/v1/traces", timeout=TIMEOUT)
    metrics = OTLPMetricExporter(f"{endpoint}/v1/metrics", timeout=TIMEOUT)
    logs = OTLPLogExporter(f"{endpoint}/v1/logs", timeout=TIMEOUT)

    def send_spans(batch: Sequence[ReadableSpan]) -> Sent:
        return _outcome(spans.export(batch))

    def send_metrics(batch: MetricsData) -> Sent:
        return _outcome(metrics.export(batch))

    def send_logs(batch: Sequence[ReadableLogRecord]) -> Sent:
        return _outcome(logs.export(batch))

    def close() -> None:
        for exporter in (spans, metrics, logs):
            exporter.shutdown()

    preferred = metrics._preferred_temporality or {}  # noqa: SLF001 - set by OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE
    delta = preferred.get(Counter) is AggregationTemporality.DELTA
    return Exporters(send_spans, send_metrics, send_logs, metrics, delta=delta, close=close)


def _outcome(result: Any) -> Sent:
    return Sent() if result.name == "SUCCESS" else _NOT_TAKEN

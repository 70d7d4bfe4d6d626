"""Azure Monitor's exporters. The only place that knows them; imported in the telemetry's thread.

The exporter is used without the distribution around it, and as little of it as possible: it keeps no files (we try again from
memory, so a read-only disk is no matter and nothing is left behind), sends no statistics about itself, asks no control plane
for orders, and logs nothing (it would log whole spans).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.monitor.opentelemetry.exporter import AzureMonitorLogExporter, AzureMonitorMetricExporter, AzureMonitorTraceExporter
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.metrics.export import MetricsData
from opentelemetry.sdk.trace import ReadableSpan

from shared.adapters.telemetry.exporters import Exporters, Fate, Sent
from shared.core import semconv

TIMEOUT: Final = 5.0
"""Seconds to connect, and again to be answered. The endpoint is in the same region."""
BREATH: Final = 0.0001
"""Seconds given away before each span: the exporter takes a third of a millisecond for one, in which no request is served."""
LATER: Final = frozenset({401, 403, 408, 429, 500, 502, 503, 504})
_ADVICE: Final = {
    400: "400: the connection string names no Application Insights, or the exporter sent what it does not understand",
    401: "401: give the app's identity the role Monitoring Metrics Publisher on Application Insights",
    402: "402: the daily cap of Application Insights is reached",
    403: "403: give the app's identity the role Monitoring Metrics Publisher on Application Insights",
    404: "404: the connection string's ingestion endpoint does not serve this Application Insights",
    439: "439: the daily cap of Application Insights is reached",
}
_UNREACHED: Final = "no answer: the ingestion endpoint cannot be reached, or the app's identity gets no token"
_SILENT: Final = (
    # Switches that exist as environment variables only. An operator who sets them otherwise is obeyed.
    "APPLICATIONINSIGHTS_STATSBEAT_DISABLED_ALL",
    "APPLICATIONINSIGHTS_SDKSTATS_DISABLED",
    "APPLICATIONINSIGHTS_CONTROLPLANE_DISABLED",
)
_PLACE: Final = frozenset({"ai.operation.id", "ai.operation.parentId"})
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class _Heard:
    """What the endpoint answered last: the exporter itself only says success or failure."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.wait = 0.0

    def forget(self) -> None:
        """Prepare for the next answer."""
        self.status, self.wait = None, 0.0

    def __call__(self, response: Any) -> None:
        """Take an answer."""
        self.status = response.http_response.status_code
        asked = response.http_response.headers.get("retry-after", "")
        self.wait = float(asked) if asked.isascii() and asked.isdigit() else 0.0

    def outcome(self, result: Any) -> Sent:
        """Return what became of the batch whose answer this was."""
        status = self.status
        if result.name == "SUCCESS":
            return Sent()
        if status is None:
            return Sent(Fate.LATER, _UNREACHED)
        why = _ADVICE.get(status, f"{status}: Application Insights did not take it")
        return Sent(Fate.LATER if status in LATER else Fate.REFUSED, why, self.wait)


class _Spans(AzureMonitorTraceExporter):
    """The exporter, with what it leaves out of our spans: ``error.type``, and the status of calls it knows no URL of."""

    def _should_collect_otel_resource_metric(self) -> bool:
        return False  # a paid row per batch that says what every row says anyway

    def _span_to_envelope(self, span: ReadableSpan) -> Any:
        time.sleep(BREATH)
        envelope: Any = super()._span_to_envelope(span)
        # By the names on the wire: the models' attributes copy what they hold at each look.
        data, attributes = envelope["data"]["baseData"], span.attributes or {}
        for name in (semconv.ERROR_TYPE, semconv.STATUS_CODE):
            if name in attributes:
                data["properties"][name] = str(attributes[name])
        if semconv.STATUS_CODE in attributes:
            data["resultCode"] = str(attributes[semconv.STATUS_CODE])
        if semconv.ATTEMPT in attributes:  # what the exporter does for the name this attribute had before
            data["type"] = f"GenAI | {attributes.get(semconv.PROVIDER, '')}"
            data["target"] = str(attributes.get(semconv.DEPLOYMENT, ""))
        return envelope


class _Logs(AzureMonitorLogExporter):
    """The exporter, without its ids of zeros: lines of no request would all seem to be of one."""

    def _log_to_envelope(self, readable_log_record: ReadableLogRecord) -> Any:
        envelope: Any = super()._log_to_envelope(readable_log_record)
        if not readable_log_record.log_record.trace_id:
            envelope.tags = {name: value for name, value in envelope.tags.items() if name not in _PLACE}
        return envelope


def open_exporters(connection_string: str, credential: Callable[[], object] | None) -> Exporters:
    """Return exporters to Application Insights; slow. A loopback endpoint is told without an identity."""
    for name in _SILENT:
        os.environ.setdefault(name, "true")
    quiet = logging.getLogger("azure.monitor.opentelemetry")
    if quiet.level == logging.NOTSET:
        quiet.setLevel(logging.CRITICAL + 1)
    identity = None if credential is None or _is_loopback(connection_string) else credential()
    heard = _Heard()
    given: dict[str, Any] = {
        "connection_string": connection_string,
        "credential": identity,
        "disable_offline_storage": True,
        "timeout": TIMEOUT,
        "read_timeout": TIMEOUT,
        "retry_total": 0,  # we try again ourselves, without standing still meanwhile
        "raw_response_hook": heard,
        "http_logging_policy": SansIOHTTPPolicy(),  # it would log every export
    }
    spans, metrics, logs = _Spans(**given), AzureMonitorMetricExporter(**given), _Logs(**given)

    def send_spans(batch: Sequence[ReadableSpan]) -> Sent:
        heard.forget()
        return heard.outcome(spans.export(batch))

    def send_metrics(batch: MetricsData) -> Sent:
        heard.forget()
        return heard.outcome(metrics.export(batch))

    def send_logs(batch: Sequence[ReadableLogRecord]) -> Sent:
        heard.forget()
        return heard.outcome(logs.export(batch))

    def close() -> None:
        for exporter in (spans, metrics, logs):
            exporter.shutdown()
            exporter.client.close()
        if identity is not None:
            getattr(identity, "close", lambda: None)()

    return Exporters(send_spans, send_metrics, send_logs, metrics, delta=True, close=close)


def _is_loopback(connection_string: str) -> bool:
    parts = dict(part.split("=", 1) for part in connection_string.split(";") if "=" in part)
    endpoint = next((value for name, value in parts.items() if name.strip().lower() == "ingestionendpoint"), "")
    return urlsplit(endpoint.strip()).hostname in _LOOPBACK

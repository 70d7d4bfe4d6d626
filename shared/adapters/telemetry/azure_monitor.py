"""Azure Monitor's exporters. The only place that knows them; imported in the telemetry's thread.

The exporter is used without the distribution around it, and as little of it as possible: it keeps no files (we try again from
memory, so a read-only disk is no matter and nothing is left behind), sends no statistics about itself, asks no control plane
for orders, and logs nothing (it would log whole spans).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.monitor.opentelemetry.exporter import AzureMonitorLogExporter, AzureMonitorMetricExporter, AzureMonitorTraceExporter
from azure.monitor.opentelemetry.exporter.export._base import BaseExporter
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk.metrics.export import HistogramDataPoint, MetricsData
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind

from shared.adapters.telemetry.breath import Breath
from shared.adapters.telemetry.exporters import Exporters, Fate, Sent
from shared.adapters.telemetry.otel import SAMPLE_RATE
from shared.core import semconv

TIMEOUT: Final = 5.0
"""Seconds to connect, and again to be answered. The endpoint is in the same region."""
MAX_NAME: Final = 1_024
MAX_PROPERTY: Final = 8_192
MAX_MESSAGES: Final = 262_144
"""Characters that Application Insights keeps of a name, of a property, and of one that holds messages."""
PARTLY: Final = 206
"""What the endpoint answers when it took some of a batch; it says which it did not take, and why."""
KEPT: Final = 2_000
"""Envelopes that are kept of such a batch, and sent with the next one."""
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
_MESSAGES: Final = frozenset({semconv.INPUT_MESSAGES, semconv.OUTPUT_MESSAGES})
_PLACE: Final = frozenset({"ai.operation.id", "ai.operation.parentId"})
_LOOPBACK: Final = frozenset({"127.0.0.1", "localhost", "::1"})


class _Heard:
    """What the endpoint answered last: the exporter itself only says success or failure."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.wait = 0.0
        self.not_taken: dict[int, int] = {}
        """Of a batch that was taken in part: which of it were not, by their place in it, and each one's status."""

    def forget(self) -> None:
        """Prepare for the next answer."""
        self.status, self.wait, self.not_taken = None, 0.0, {}

    def __call__(self, response: Any) -> None:
        """Take an answer."""
        self.status = response.http_response.status_code
        asked = response.http_response.headers.get("retry-after", "")
        self.wait = float(asked) if asked.isascii() and asked.isdigit() else 0.0
        if self.status == PARTLY:
            self.not_taken = {error["index"]: error["statusCode"] for error in response.http_response.json()["errors"]}

    def outcome(self, result: Any) -> Sent:
        """Return what became of the batch whose answer this was."""
        status = self.status
        if result.name == "SUCCESS":
            return Sent()
        if status is None:
            return Sent(Fate.LATER, _UNREACHED)
        why = _ADVICE.get(status, f"{status}: Application Insights did not take it")
        return Sent(Fate.LATER if status in LATER else Fate.REFUSED, why, self.wait)


class _InParts(BaseExporter):
    """An exporter that sends again what was not taken of a batch, with the next one: by itself it would drop that."""

    def __init__(self, heard: _Heard, **given: Any) -> None:
        super().__init__(**given)
        self._heard = heard
        self._again: list[Any] = []

    def _transmit(self, envelopes: list[Any], *given: Any, **named: Any) -> Any:
        before, self._again = self._again, []
        batch = [*before, *envelopes]
        result = super()._transmit(batch, *given, **named)
        statuses = self._heard.not_taken
        if 0 < len(statuses) <= KEPT and LATER.issuperset(statuses.values()):
            self._again = [envelope for place, envelope in enumerate(batch) if place in statuses]
            return type(result)["SUCCESS"]
        if result.name != "SUCCESS" and self._heard.status in {None, *LATER}:
            self._again = before  # who called tries its own again
        return result


class _Spans(_InParts, AzureMonitorTraceExporter):
    """The exporter, with envelopes of our own making: as it makes them, and with what it leaves out.

    It takes a third of a millisecond for a span, nearly all of it in generated models that its client does not ask for. So the
    first span is converted by it, and what that envelope says of this process is kept for all. A test compares the two.
    """

    def __init__(self, heard: _Heard, **given: Any) -> None:
        super().__init__(heard, **given)
        self._process: dict[str, str] | None = None
        self._breath = Breath()

    def _should_collect_otel_resource_metric(self) -> bool:
        return False  # a paid row per batch that says what every row says anyway

    def _span_to_envelope(self, span: ReadableSpan) -> Any:
        self._breath.take()
        if self._process is None:
            made: Any = super()._span_to_envelope(span)
            self._process = {name: value for name, value in made["tags"].items() if not name.startswith("ai.operation.")}
        place, attributes = span.get_span_context(), span.attributes or {}
        tags = self._process | {"ai.operation.id": f"{place.trace_id:032x}" if place else "", "ai.operation.name": span.name}
        if span.parent is not None:
            tags["ai.operation.parentId"] = f"{span.parent.span_id:016x}"
        envelope: dict[str, Any] = {
            "name": "Microsoft.ApplicationInsights.RemoteDependency",
            "iKey": self._instrumentation_key,
            "time": _time(span.start_time or 0),
            "tags": tags,
            "data": {"baseType": "RemoteDependencyData", "baseData": _dependency(span, attributes)},
        }
        if SAMPLE_RATE in attributes:
            envelope["sampleRate"] = attributes[SAMPLE_RATE]
        return envelope


def _dependency(span: ReadableSpan, attributes: Mapping[str, Any]) -> dict[str, Any]:
    place = span.get_span_context()
    data: dict[str, Any] = {
        "ver": 2,
        "name": span.name[:MAX_NAME],
        "id": f"{place.span_id:016x}" if place else "",
        "resultCode": str(attributes.get(semconv.STATUS_CODE, "0")),
        "duration": _duration((span.end_time or 0) - (span.start_time or 0)),
        "success": span.status.is_ok,
        # error.type and http.response.status_code too, which the exporter leaves out: it has columns for them in other tables
        "properties": {
            name: str(value)[: MAX_MESSAGES if name in _MESSAGES else MAX_PROPERTY]
            for name, value in attributes.items()
            if name != SAMPLE_RATE
        },
        "measurements": {},
        "type": "InProc",
    }
    if span.kind is SpanKind.CLIENT:  # what the exporter does where it finds the name that gen_ai.provider.name had before
        data["type"] = f"GenAI | {attributes.get(semconv.PROVIDER, '')}"
        data["target"] = str(attributes.get(semconv.DEPLOYMENT, ""))
    return data


def _time(nanoseconds: int) -> str:
    return datetime.fromtimestamp(nanoseconds / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _duration(nanoseconds: int) -> str:
    milliseconds = (nanoseconds + 500_000) // 1_000_000
    seconds, minutes, hours = milliseconds // 1_000, milliseconds // 60_000, milliseconds // 3_600_000
    return f"{hours // 24}.{hours % 24:02}:{minutes % 60:02}:{seconds % 60:02}.{milliseconds % 1_000:03}"


class _Metrics(_InParts, AzureMonitorMetricExporter):
    """The exporter, with envelopes of our own making for the same reason, and as it makes them.

    It takes a quarter of a millisecond for a value; many keys at many deployments have thousands of them in a minute.
    """

    def __init__(self, heard: _Heard, **given: Any) -> None:
        super().__init__(heard, **given)
        self._process: dict[str, str] | None = None
        self._namespace: dict[str, str] = {}
        self._breath = Breath()

    def _point_to_envelope(self, point: Any, name: str, resource: Any = None, scope: Any = None) -> Any:
        self._breath.take()
        if self._process is None:
            made: Any = super()._point_to_envelope(point, name, resource, scope)
            if made is None:
                return None  # an operator's setting of the exporter
            said = made.as_dict()
            self._process = said["tags"]
            self._namespace = {key: value for key, value in said["data"]["baseData"]["metrics"][0].items() if key == "ns"}
        metric: dict[str, Any] = {"name": name[:MAX_NAME], **self._namespace, "count": 1}
        if isinstance(point, HistogramDataPoint):
            metric |= {"value": point.sum, "count": point.count, "min": point.min, "max": point.max}
        else:
            metric["value"] = point.value
        properties = {key: str(value)[:MAX_PROPERTY] for key, value in (point.attributes or {}).items()}
        return {
            "name": "Microsoft.ApplicationInsights.Metric",
            "iKey": self._instrumentation_key,
            "time": _time(point.time_unix_nano),
            "tags": self._process,
            "data": {"baseType": "MetricData", "baseData": {"ver": 2, "properties": properties, "metrics": [metric]}},
        }


class _Logs(_InParts, AzureMonitorLogExporter):
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
        "max_envelopes_per_second": 0,  # it would drop what is beyond, and report success
        "retry_total": 0,  # we try again ourselves, without standing still meanwhile
        "raw_response_hook": heard,
        "http_logging_policy": SansIOHTTPPolicy(),  # it would log every export
    }
    spans, metrics, logs = _Spans(heard, **given), _Metrics(heard, **given), _Logs(heard, **given)

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

"""A collector, the console, and nothing at all: what the environment names, and what gets there."""

from __future__ import annotations

import json
import logging
import threading
from importlib import metadata
from typing import Any

import pytest
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from shared import settings
from shared.adapters.clock import SystemClock
from shared.adapters.telemetry import OFF, open_telemetry
from shared.core import semconv
from shared.core.errors import ConfigurationError
from shared.core.telemetry import Destination, TelemetryOptions, TraceContext
from shared.tracing import SERVED, Served
from tests.telemetry.endpoint import Endpoint
from tests.telemetry.scenes import attempt, failed, request, telling

TRACE = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "b7ad6b7169203331")
KEY = "InstrumentationKey=00000000-0000-4000-8000-000000000001"
CONNECTION = f"{KEY};IngestionEndpoint=https://eastus.in.applicationinsights.azure.com/"


async def test_a_collector_gets_spans_metrics_and_lines() -> None:
    """As OTLP has them: totals since the start, ids as bytes, and no rate that only Azure Monitor asks for."""
    with Endpoint() as collector:
        options = TelemetryOptions(Destination.OTLP, endpoint=collector.url, service="yard", ratio=0.99)
        async with telling(options) as telemetry:
            token = SERVED.set(Served("req_1", TRACE))
            logging.getLogger("shared.recovery").warning("a line")
            SERVED.reset(token)
            telemetry.ended(request("req_1", failed(1), attempt(2)), TRACE)
        bodies = {post.path: post.body for post in collector.taken}

    (traced,) = ExportTraceServiceRequest.FromString(bodies["/v1/traces"]).resource_spans
    whole, first, _ = traced.scope_spans[0].spans
    assert {"yard", "instance-1"} == {attribute.value.string_value for attribute in traced.resource.attributes}
    assert (TRACE.trace_id, TRACE.span_id, TRACE.parent_id) == (
        whole.trace_id.hex(),
        whole.span_id.hex(),
        whole.parent_span_id.hex(),
    )
    assert (whole.span_id, 2) == (first.parent_span_id, first.status.code)
    assert 400_000_000 == whole.end_time_unix_nano - whole.start_time_unix_nano
    assert not any(attribute.key.startswith("_MS") for attribute in whole.attributes)
    (told,) = ExportMetricsServiceRequest.FromString(bodies["/v1/metrics"]).resource_metrics
    metrics = {metric.name: metric for metric in told.scope_metrics[0].metrics}
    assert (1_500, 2) == (
        metrics["gateway.cost"].sum.data_points[0].as_int,
        metrics["gateway.cost"].sum.aggregation_temporality,
    )
    assert 14 == len(metrics["gen_ai.client.token.usage"].histogram.data_points[0].explicit_bounds)
    (logged,) = ExportLogsServiceRequest.FromString(bodies["/v1/logs"]).resource_logs
    (line,) = logged.scope_logs[0].log_records
    assert ("a line", TRACE.trace_id) == (line.body.string_value, line.trace_id.hex())


async def test_a_collector_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the start, with what to do."""

    def missing(name: str) -> Any:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "distribution", missing)
    with pytest.raises(ConfigurationError, match=r"pip install -r requirements-local\.txt"):
        open_telemetry(TelemetryOptions(Destination.OTLP), SystemClock(), "i")


async def test_the_console_shows_each_thing_on_a_line(capfd: pytest.CaptureFixture[str]) -> None:
    """What would be told, for a person."""
    async with telling(TelemetryOptions(Destination.CONSOLE)) as telemetry:
        telemetry.ended(request("req_1", failed(1), attempt(2)), TRACE)
        logging.getLogger("switchyard.edge").warning("a line")
    rows = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]

    spans = [row for row in rows if "span" in row]
    assert [(None, 400.0), ("rate_limited", 125.0), (None, 125.0)] == [(row.get("error"), round(row["ms"], 3)) for row in spans]
    assert [TRACE.parent_id, TRACE.span_id, TRACE.span_id] == [row["parent_id"] for row in spans]
    assert [1_500] == [row["value"] for row in rows if row.get("metric") == semconv.COST_SPENT.name]
    assert ["a line"] == [row["log"] for row in rows if "log" in row]


async def test_off_is_nothing() -> None:
    """No thread, no handler, no place in a trace."""
    before = threading.active_count()
    telemetry = open_telemetry(TelemetryOptions(), SystemClock(), "i")
    telemetry.ended(request(), telemetry.trace(None))
    telemetry.gauge([])
    await telemetry.aclose()

    assert telemetry is OFF
    assert telemetry.trace("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01") is None
    assert before == threading.active_count()
    assert not logging.getLogger("switchyard").handlers


@pytest.mark.parametrize(
    ("environment", "destination"),
    [
        ({}, "off"),
        ({"APPLICATIONINSIGHTS_CONNECTION_STRING": CONNECTION}, "azure_monitor"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/"}, "otlp"),
        ({"APPLICATIONINSIGHTS_CONNECTION_STRING": KEY, "OTEL_EXPORTER_OTLP_ENDPOINT": "https://x"}, "azure_monitor"),
        ({"APPLICATIONINSIGHTS_CONNECTION_STRING": CONNECTION, "SWITCHYARD_TELEMETRY": "Console"}, "console"),
        ({"APPLICATIONINSIGHTS_CONNECTION_STRING": "nonsense", "SWITCHYARD_TELEMETRY": "off"}, "off"),
        ({"APPLICATIONINSIGHTS_CONNECTION_STRING": CONNECTION, "OTEL_SDK_DISABLED": "true"}, "off"),
        ({"SWITCHYARD_TELEMETRY": "otlp"}, "otlp"),
    ],
)
def test_the_environment_names_the_destination(environment: dict[str, str], destination: str) -> None:
    """Ours before Azure's before OpenTelemetry's; disabled is disabled."""
    assert destination == settings.load(environment).telemetry.destination


def test_the_rest_is_read_as_opentelemetry_names_it() -> None:
    """Milliseconds become seconds, and the connection string a secret."""
    told = settings.load(
        {
            "APPLICATIONINSIGHTS_CONNECTION_STRING": CONNECTION,
            "OTEL_SERVICE_NAME": "yard",
            "OTEL_TRACES_SAMPLER_ARG": "0.05",
            "OTEL_METRIC_EXPORT_INTERVAL": "15000",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/",
            "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "SPAN_ONLY",
        }
    ).telemetry

    assert ("yard", 0.05, 15.0, "http://collector:4318", True) == (
        told.service,
        told.ratio,
        told.metric_interval,
        told.endpoint,
        told.content,
    )
    assert told.connection_string is not None
    assert CONNECTION == told.connection_string.reveal()
    assert "00000001" not in repr(told)


def test_every_problem_is_reported_and_no_secret() -> None:
    """With what to write instead."""
    with pytest.raises(ConfigurationError) as caught:
        settings.load(
            {
                "SWITCHYARD_TELEMETRY": "azure_monitor",
                "APPLICATIONINSIGHTS_CONNECTION_STRING": "InstrumentationKey=oops",
                "OTEL_TRACES_SAMPLER_ARG": "nan",
                "OTEL_METRIC_EXPORT_INTERVAL": "soon",
                "OTEL_SDK_DISABLED": "perhaps",
                "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "event_only",
            }
        )

    assert 5 == len(caught.value.problems)
    assert "oops" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="off, console, otlp, azure_monitor"):
        settings.load({"SWITCHYARD_TELEMETRY": "jaeger"})
    with pytest.raises(ConfigurationError, match="http://localhost:4318"):
        settings.load({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317"})

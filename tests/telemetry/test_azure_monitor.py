"""What Application Insights gets, from the real exporter."""

from __future__ import annotations

import json
import logging
import os
import threading
from typing import Any

import pytest
from azure.monitor.opentelemetry.exporter import AzureMonitorMetricExporter, AzureMonitorTraceExporter
from azure.monitor.opentelemetry.exporter._generated.exporter._utils.model_base import SdkJSONEncoder
from opentelemetry.sdk.metrics.export import HistogramDataPoint, NumberDataPoint

from shared.adapters.telemetry import azure_monitor, otel
from shared.core import semconv
from shared.core.telemetry import Content, Measurement, Span, SpanKind, TraceContext
from shared.core.traceparent import is_sampled
from shared.tracing import SERVED, Served
from tests.telemetry.endpoint import Answer, Post
from tests.telemetry.ingestion import KEY, Envelope, Ingestion, parse
from tests.telemetry.scenes import attempt, failed, request, telling, to_azure, until

TRACE = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7", "b7ad6b7169203331")


def base(envelope: Envelope) -> dict[str, Any]:
    """Return what the table's columns are made of."""
    data: dict[str, Any] = envelope["data"]["baseData"]
    return data


def metric(ingestion: Ingestion, instrument: semconv.Instrument) -> list[tuple[dict[str, Any], dict[str, str]]]:
    """Return the points of a metric with their properties, in the order they came."""
    told = [base(envelope) for envelope in ingestion.of("MetricData")]
    return [(data["metrics"][0], data["properties"]) for data in told if data["metrics"][0]["name"] == instrument.name]


def total(ingestion: Ingestion, instrument: semconv.Instrument) -> float:
    """Return what a metric adds up to."""
    return sum(float(point["value"]) for point, _ in metric(ingestion, instrument))


async def test_a_request_is_a_dependency_with_its_attempts_under_it() -> None:
    """Ids, times, success and attributes are ours; the kind of a failure is not lost on the way."""
    with Ingestion() as ingestion:
        async with telling(to_azure(ingestion)) as telemetry:
            telemetry.ended(request("req_1", failed(1), attempt(2)), TRACE)
        whole, first, second = ingestion.of("RemoteDependencyData")

    assert (TRACE.trace_id, TRACE.parent_id) == (whole["tags"]["ai.operation.id"], whole["tags"]["ai.operation.parentId"])
    assert (
        TRACE.span_id == base(whole)["id"] == first["tags"]["ai.operation.parentId"] == second["tags"]["ai.operation.parentId"]
    )
    assert ("switchyard", "instance-1") == (whole["tags"]["ai.cloud.role"], whole["tags"]["ai.cloud.roleInstance"])
    assert ("chat gpt-small", "0.00:00:00.400", True) == (base(whole)["name"], base(whole)["duration"], base(whole)["success"])
    assert whole["time"] == "2026-09-21T14:13:20.250000Z"
    assert ("InProc", "2") == (base(whole)["type"], base(whole)["properties"][semconv.ATTEMPTS])
    assert (False, "429", "gpt-small@west") == (base(first)["success"], base(first)["resultCode"], base(first)["target"])
    assert {semconv.ERROR_TYPE: "rate_limited", semconv.STATUS_CODE: "429"}.items() <= base(first)["properties"].items()
    assert ("GenAI | azure.ai.openai", "2") == (base(second)["type"], base(second)["properties"][semconv.ATTEMPT])
    assert "sampleRate" not in whole
    assert "sampleRate" not in base(whole)["properties"]


async def test_metrics_are_what_was_added_since_they_were_last_told() -> None:
    """A counter's rows can be summed up, a histogram's have count, sum, least and most."""
    with Ingestion() as ingestion:
        async with telling(to_azure(ingestion, metric_interval=0.05)) as telemetry:
            telemetry.ended(request("req_1", attempt(1, cost=1_500, duration_ms=100.0)), None)
            await until(lambda: metric(ingestion, semconv.COST_SPENT))
            telemetry.ended(request("req_2", attempt(1, cost=2_500, duration_ms=300.0)), None)
            telemetry.ended(request("req_3", attempt(1, cost=3_000, duration_ms=200.0)), None)
        values = [point["value"] for point, _ in metric(ingestion, semconv.COST_SPENT)]
        durations = [point for point, _ in metric(ingestion, semconv.OPERATION_DURATION)]
        properties = metric(ingestion, semconv.COST_SPENT)[0][1]

    assert 1_500 == values[0]
    assert 7_000 == sum(values)
    assert 3 == sum(point["count"] for point in durations)
    assert 600 == round(1000 * sum(point["value"] for point in durations))
    assert (0.1, 0.3) == (min(point["min"] for point in durations), max(point["max"] for point in durations))
    assert ("shop", "eastus") == (properties[semconv.PROJECT], properties[semconv.REGION])
    assert not ingestion.of("RemoteDependencyData"), "without a place in a trace there are no spans"


async def test_a_sampled_span_says_how_many_it_stands_for_and_metrics_stay_whole() -> None:
    """Of the traces those are told that every other service tells too."""
    with Ingestion() as ingestion:
        async with telling(to_azure(ingestion, ratio=0.25)) as telemetry:
            for number in range(100):
                trace = telemetry.trace(f"00-{number * 0x9E3779B97F4A7C15 % 2**64 + (1 << 64):032x}-00f067aa0ba902b7-00")
                assert trace is not None
                assert trace.sampled is is_sampled(trace.trace_id, 0.25)
                telemetry.ended(request(f"req_{number}"), trace)
        spans = ingestion.of("RemoteDependencyData")

    assert 100 == total(ingestion, semconv.REQUESTS)
    assert all(is_sampled(span["tags"]["ai.operation.id"], 0.25) for span in spans)
    assert 20 < len({span["tags"]["ai.operation.id"] for span in spans}) < 30
    assert {25.0} == {span["sampleRate"] for span in spans}


async def test_a_log_line_names_its_request_and_no_exception_says_what_it_quotes() -> None:
    """Lines of a request stand in its trace; those of none in none."""
    logger = logging.getLogger("switchyard.edge")
    with Ingestion() as ingestion:
        async with telling(to_azure(ingestion)):
            token = SERVED.set(Served("req_1", TRACE))
            logger.warning("a %s fell over", "deployment")
            try:
                int("hello"[:4])  # its message quotes what it was given
            except ValueError:
                logger.exception("unexpected")
            SERVED.reset(token)
            logger.error("of nobody")
            logger.info("not logged here, so not told")
            logging.getLogger("shared.adapters.telemetry.telling").warning("about ourselves")
            logging.getLogger("another.library").warning("theirs")
        line, nobody = ingestion.of("MessageData")
        (broken,) = ingestion.of("ExceptionData")
        told = b"".join(post.body for post in ingestion.taken).decode()

    assert ("a deployment fell over", 2) == (base(line)["message"], base(line)["severityLevel"])
    assert "req_1" == base(line)["properties"][semconv.REQUEST_ID] == base(broken)["properties"][semconv.REQUEST_ID]
    assert (TRACE.trace_id, TRACE.span_id) == (line["tags"]["ai.operation.id"], line["tags"]["ai.operation.parentId"])
    assert ("ValueError", "unexpected") == (
        base(broken)["exceptions"][0]["typeName"],
        base(broken)["exceptions"][0]["message"],
    )
    assert "test_azure_monitor" in base(broken)["exceptions"][0]["stack"]
    assert "'hell'" not in told
    assert "of nobody" == base(nobody)["message"]
    assert "ai.operation.id" not in nobody["tags"]


@pytest.mark.parametrize("opted_in", [False, True])
async def test_prompts_are_told_only_when_the_operator_opted_in(*, opted_in: bool) -> None:
    """Whoever hands them over by mistake hands them over in vain."""
    with Ingestion() as ingestion:
        async with telling(to_azure(ingestion, content=opted_in)) as telemetry:
            telemetry.ended(request(), TRACE, Content('[{"content":"my secret"}]', '[{"content":"my answer"}]'))
        told = b"".join(post.body for post in ingestion.taken).decode()

    assert opted_in is ("my secret" in told) is ("my answer" in told)


async def test_the_latest_value_of_a_gauge_is_told_again_and_again() -> None:
    """One row for each set of attributes and export."""
    with Ingestion() as ingestion:
        async with telling(to_azure(ingestion, metric_interval=0.05)) as telemetry:
            telemetry.gauge([Measurement(semconv.BUDGET_SPENT, 5, {semconv.BUDGET: name}) for name in ("a", "b")])
            telemetry.gauge([Measurement(semconv.BUDGET_SPENT, 2, {semconv.BUDGET: "b"})])
            await until(lambda: len(metric(ingestion, semconv.BUDGET_SPENT)) >= 4)
        points = metric(ingestion, semconv.BUDGET_SPENT)

    assert {("a", 5), ("b", 2)} == {(properties[semconv.BUDGET], point["value"]) for point, properties in points}


async def test_the_exporter_talks_to_the_ingestion_endpoint_and_to_nobody_else() -> None:
    """No statistics about itself, no control plane, no files, no identity for a loopback endpoint, and no thread that stays."""
    before = {thread.name for thread in threading.enumerate()}
    with Ingestion() as ingestion:
        async with telling(to_azure(ingestion), credential=lambda: pytest.fail("an identity was asked for")) as telemetry:
            telemetry.ended(request(), TRACE)
            await until(lambda: ingestion.taken)
            running = {thread.name for thread in threading.enumerate()} - before
        stayed = {thread.name for thread in threading.enumerate() if thread.name.startswith("telemetry")}

    assert {"/v2.1/track"} == {post.path for post in ingestion.posts}
    assert not any("authorization" in post.headers for post in ingestion.posts)
    assert {"telemetry", "telemetry-sending"} <= running
    assert all(name.startswith(("telemetry", "Thread-", "asyncio_")) for name in running), running
    assert not stayed
    assert {"true"} == {os.environ[name] for name in azure_monitor._SILENT}
    assert {"Metric", "RemoteDependency"} == {envelope["name"].rsplit(".", 1)[1] for envelope in ingestion.envelopes}
    assert not [envelope for envelope in ingestion.of("MetricData") if base(envelope)["metrics"][0]["name"].startswith("_")]


@pytest.mark.parametrize(("status", "lost"), [(429, 0), (400, 1)])
async def test_what_is_not_taken_of_a_batch_is_sent_with_the_next(status: int, lost: int) -> None:
    """Each span arrives once when it may be taken later; what never will be is not sent for ever."""
    taken: list[str] = []
    refusals: list[str] = []

    def answer(post: Post) -> Answer:
        found = [base(each)["id"] for each in parse(post.body) if each["data"]["baseType"] == "RemoteDependencyData"]
        refused = found[:1] if len(found) > 1 and not refusals else []
        refusals.extend(refused)
        taken.extend(found[len(refused) :])
        errors = [{"index": place, "statusCode": status, "message": "no"} for place, _ in enumerate(refused)]
        return Answer(206 if errors else 200, json.dumps({"itemsReceived": 9, "itemsAccepted": 9, "errors": errors}).encode())

    with Ingestion() as ingestion:
        ingestion.answer = answer
        async with telling(to_azure(ingestion)) as telemetry:
            telemetry.ended(request("req_1", attempt(1)), telemetry.trace(None))
            await until(lambda: taken)
            telemetry.ended(request("req_2", attempt(1)), telemetry.trace(None))

    assert 4 - lost == len(taken) == len(set(taken))
    assert (lost == 0) == (refusals[0] in taken)


def test_our_envelopes_are_the_exporters_and_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each new version of the exporter is held against ours: we make them only because we are faster."""
    for name in azure_monitor._SILENT:
        monkeypatch.setenv(name, "true")
    who = otel.resource("yard", "instance-1")
    long = {semconv.INPUT_MESSAGES: "q" * 300_000, "gateway.key.name": "k" * 9_000}
    day = 93_784.5678
    values = [
        Span(
            "chat gpt-small",
            SpanKind.INTERNAL,
            TRACE,
            1_790_000_000.25,
            1_790_000_000.65,
            {semconv.ATTEMPTS: 2, "gateway.stream": True},
        ),
        Span("chat (unknown)", SpanKind.INTERNAL, TraceContext("1" * 32, "2" * 16), 1.25, 1.25 + day, long, "deadline"),
        Span(
            "n" * 2_000,
            SpanKind.CLIENT,
            TRACE,
            5.25,
            5.25,
            {semconv.PROVIDER: "openai", semconv.DEPLOYMENT: "d", "gateway.cost": 7},
        ),
        Span(
            "chat a",
            SpanKind.CLIENT,
            TRACE,
            5.25,
            5.35,
            {semconv.PROVIDER: "p", semconv.STATUS_CODE: 429, semconv.ERROR_TYPE: "x"},
            "x",
        ),
    ]
    given = {
        "connection_string": f"InstrumentationKey={KEY};IngestionEndpoint=http://127.0.0.1:9/",
        "disable_offline_storage": True,
    }
    theirs, ours = AzureMonitorTraceExporter(**given), azure_monitor._Spans(azure_monitor._Heard(), **given)
    for value in values:
        span = otel.readable(value, who, 0.25)
        expected: Any = json.loads(json.dumps(theirs._span_to_envelope(span), cls=SdkJSONEncoder, exclude_readonly=True))
        data, attributes = expected["data"]["baseData"], value.attributes
        data["properties"] |= {
            name: str(attributes[name]) for name in (semconv.ERROR_TYPE, semconv.STATUS_CODE) if name in attributes
        }
        data["resultCode"] = str(attributes.get(semconv.STATUS_CODE, 0))
        if value.kind is SpanKind.CLIENT:
            data |= {"type": f"GenAI | {attributes[semconv.PROVIDER]}", "target": str(attributes.get(semconv.DEPLOYMENT, ""))}

        assert expected == json.loads(json.dumps(ours._span_to_envelope(span)))
    theirs.client.close()
    ours.client.close()


@pytest.mark.parametrize("namespace", [False, True])
def test_our_metrics_envelopes_are_the_exporters(monkeypatch: pytest.MonkeyPatch, *, namespace: bool) -> None:
    """Of counters, histograms and gauges; an operator who wants the namespace gets it."""
    for name in azure_monitor._SILENT:
        monkeypatch.setenv(name, "true")
    monkeypatch.setenv("APPLICATIONINSIGHTS_METRIC_NAMESPACE_OPT_IN", str(namespace))
    who, then = otel.resource("yard", "instance-1"), 1_790_000_000_250_000_000
    points: list[NumberDataPoint | HistogramDataPoint] = [
        NumberDataPoint({semconv.PROJECT: "shop", semconv.STREAM: True}, then, then + 10**9, 5),
        NumberDataPoint({}, then, then + 10**10, 0),
        NumberDataPoint({semconv.PROJECT: "p" * 9_000}, 0, then, 0.25),
        HistogramDataPoint({semconv.EXACT: False, semconv.REGION: ""}, then, then, 3, 0.75, (1, 2), (0.1,), 0.05, 0.5),
    ]
    given = {
        "connection_string": f"InstrumentationKey={KEY};IngestionEndpoint=http://127.0.0.1:9/",
        "disable_offline_storage": True,
    }
    theirs, ours = AzureMonitorMetricExporter(**given), azure_monitor._Metrics(azure_monitor._Heard(), **given)
    for point in points:
        made = theirs._point_to_envelope(point, "gateway.cost", who, otel.SCOPE)
        expected = json.loads(json.dumps(made, cls=SdkJSONEncoder, exclude_readonly=True))

        assert expected == json.loads(json.dumps(ours._point_to_envelope(point, "gateway.cost", who, otel.SCOPE)))
        assert namespace is ("ns" in expected["data"]["baseData"]["metrics"][0])
    theirs.client.close()
    ours.client.close()

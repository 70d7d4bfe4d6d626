"""Telemetry that cannot be told: no request notices, nothing is counted twice, and somebody is told why."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

import pytest

from shared.adapters.telemetry import azure_monitor, lanes, otel, pipeline, telling
from shared.adapters.telemetry.happened import Ended
from shared.adapters.telemetry.pipeline import Pace
from shared.core import semconv
from shared.core.registry import Secret
from shared.core.telemetry import Content, Measurement, TraceContext
from tests.fakes import FakeClock
from tests.telemetry import scenes
from tests.telemetry.endpoint import NEVER, Answer, Post
from tests.telemetry.ingestion import Ingestion, parse
from tests.telemetry.scenes import request, to_azure, until
from tests.telemetry.test_azure_monitor import total

TRACE = TraceContext("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nothing pause for seconds, and nothing be given up."""
    monkeypatch.setattr(lanes, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(lanes, "LONGEST_PAUSE", 0.05)
    monkeypatch.setattr(lanes, "TRIES", 1_000_000)
    monkeypatch.setattr(telling, "QUIET", 0.05)


@pytest.mark.parametrize("status", [403, 429, 503])
async def test_what_was_not_taken_is_told_later_and_once(status: int, caplog: pytest.LogCaptureFixture) -> None:
    """Spans, lines and every nano-dollar, also of the time when nothing was taken."""
    with Ingestion() as ingestion:
        ingestion.status = status
        async with scenes.telling(to_azure(ingestion, metric_interval=0.02)) as telemetry:
            telemetry.ended(request("req_1"), TRACE)
            logging.getLogger("switchyard.edge").warning("a line")
            await until(lambda: len({post.body for post in ingestion.posts}) >= 3)
            telemetry.ended(request("req_2"), TraceContext("0" * 31 + "1", "0" * 15 + "1"))
            ingestion.status = 200
            await until(lambda: total(ingestion, semconv.REQUESTS) == 2)
        names = sorted(envelope["tags"]["ai.operation.id"] for envelope in ingestion.of("RemoteDependencyData"))
        lines = ingestion.of("MessageData")

    assert sorted([TRACE.trace_id] * 2 + ["0" * 31 + "1"] * 2) == names
    assert ["a line"] == [line["data"]["baseData"]["message"] for line in lines]
    assert (2, 3_000) == (total(ingestion, semconv.REQUESTS), total(ingestion, semconv.COST_SPENT))
    assert 0 == total(ingestion, semconv.DROPPED)
    said = [record.getMessage() for record in caplog.records if "not taken" in record.getMessage()]
    assert len(said) == len(set(said)) <= 3, "each complaint once"
    assert all(str(status) in line for line in said)


async def test_what_was_refused_for_good_is_not_told_again() -> None:
    """The daily cap is reached: sending the same again would only be counted against it."""
    with Ingestion() as ingestion:
        taken = ingestion.answer
        ingestion.answer = lambda post: Answer(439) if b"RemoteDependency" in post.body else taken(post)
        async with scenes.telling(to_azure(ingestion)) as telemetry:
            telemetry.ended(request("req_1"), TRACE)
            await until(lambda: ingestion.posts)
            ingestion.answer = taken
            telemetry.ended(request("req_2"), None)

    assert not ingestion.of("RemoteDependencyData")
    assert 2 == total(ingestion, semconv.REQUESTS)
    assert 1 == total(ingestion, semconv.DROPPED), "the request whose spans were refused"


async def test_closing_has_an_end_although_the_endpoint_never_answers(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is pending is then lost, and that is said; the threads end by themselves."""
    monkeypatch.setattr(azure_monitor, "TIMEOUT", 0.3)
    with Ingestion() as ingestion:
        ingestion.status = NEVER
        async with asyncio.timeout(60), scenes.telling(to_azure(ingestion), pace=Pace(0.01, 0.01, 0.02, 0.05)) as telemetry:
            telemetry.ended(request("req_1"), TRACE)
            await until(lambda: ingestion.posts)
        await telemetry.aclose()
        telemetry.ended(request("too late"), TRACE)
        thread = telemetry._thread
        assert thread is not None
        await until(lambda: not thread.is_alive())

    assert "could not be told in time" in caplog.text
    assert "Spans were not taken: no answer" in caplog.text
    assert not telemetry._queue


async def test_requests_that_wait_in_too_great_a_number_are_measured_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their spans are dropped, and that is counted; of too many prompts only the requests are told."""
    monkeypatch.setattr(pipeline, "BOUND", 10)
    monkeypatch.setattr(pipeline, "CONTENT_BOUND", 250)
    with Ingestion() as ingestion:
        async with scenes.telling(to_azure(ingestion, content=True), pace=Pace(3600, 0.01, 0.02, 60)) as telemetry:
            for number in range(1, 26):
                trace = TraceContext(f"{number:032x}", f"{number:016x}")
                telemetry.ended(request(f"req_{number}"), trace, Content("q" * 60, "a" * 40))
            logging.getLogger("switchyard.edge").warning("no place for this line")
        spans = ingestion.of("RemoteDependencyData")

    assert 25 == total(ingestion, semconv.REQUESTS)
    assert 15 == total(ingestion, semconv.DROPPED)
    assert 10 == len({span["tags"]["ai.operation.id"] for span in spans})
    assert 2 == sum(semconv.INPUT_MESSAGES in span["data"]["baseData"]["properties"] for span in spans)
    assert not ingestion.of("MessageData")


async def test_an_exporter_that_cannot_be_opened_is_named_without_its_secret(caplog: pytest.LogCaptureFixture) -> None:
    """Requests go on, nothing piles up, and closing is at once."""

    def refuse() -> object:
        raise RuntimeError(ingestion.connection_string)

    with Ingestion() as ingestion:
        elsewhere = Secret(ingestion.connection_string.replace("http://127.0.0.1", "https://ingestion.invalid"))
        options = replace(to_azure(ingestion), connection_string=elsewhere)
        async with scenes.telling(options, credential=refuse) as telemetry:
            telemetry.ended(request("req_1"), TRACE)
            await until(lambda: not telemetry._listening)
            telemetry.ended(request("req_2"), TRACE)

    assert "could not be opened (RuntimeError)" in caplog.text
    assert "InstrumentationKey" not in caplog.text
    assert not telemetry._queue


async def test_one_record_that_cannot_be_told_silences_no_other(caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a record holds, the next is told."""
    with Ingestion() as ingestion:
        async with scenes.telling(to_azure(ingestion)) as telemetry:
            telemetry.ended(request("req_1", started_at="never", duration_ms=None), TRACE)
            telemetry.ended(request("req_2"), None)

        assert 1 <= total(ingestion, semconv.REQUESTS)
    assert "could not be told" in caplog.text


async def test_a_forked_process_tells_its_own_story_only() -> None:
    """What the parent had not told yet is the parent's to tell; the child has a thread of its own."""
    with Ingestion() as ingestion:
        async with scenes.telling(to_azure(ingestion), pace=Pace(3600, 0.01, 0.02, 60)) as telemetry:
            telemetry.ended(request("of the parent"), TRACE)
            parent, telemetry._process = telemetry._thread, -1  # what a child sees: a process id that is not its own
            wake = telemetry._wake
            telemetry.ended(request("of the child", project="child"), TRACE)
            assert telemetry._thread is not parent
            told = [item.record.request_id for item in telemetry._queue if isinstance(item, Ended)]
            wake.set()

    assert ["of the child"] == told


def test_a_gauge_that_nobody_refreshes_is_forgotten() -> None:
    """Another instance may know better by now."""
    clock = FakeClock()
    with Ingestion() as ingestion:
        telemetry = pipeline.Pipeline(
            to_azure(ingestion), clock, "i", open_exporters=pytest.fail, entropy=lambda: 1, pace=Pace(3600, 1, 1, 1)
        )
        telemetry._listening = False
        telemetry.gauge([Measurement(semconv.QUEUE_AGE, 5.0)])
        clock.seconds += pipeline.GAUGE_KEPT
        telemetry.gauge([Measurement(semconv.QUEUE_DEPTH, 2, {semconv.QUEUE_STATE: "queued"})])
        assert [5.0] == [measurement.value for measurement in telemetry._latest(semconv.QUEUE_AGE)]
        clock.seconds += 1
        assert [] == list(telemetry._latest(semconv.QUEUE_AGE))
        assert [2] == [measurement.value for measurement in telemetry._latest(semconv.QUEUE_DEPTH)]
        telemetry.close()


def test_a_breaker_that_was_open_for_a_moment_is_told_once() -> None:
    """It opened and closed between two exports: the first of them says so, the second does not say it again."""
    where = {semconv.DEPLOYMENT: "a"}
    with Ingestion() as ingestion:
        telemetry = pipeline.Pipeline(
            to_azure(ingestion), FakeClock(), "i", open_exporters=pytest.fail, entropy=lambda: 1, pace=Pace(3600, 1, 1, 1)
        )
        telemetry._listening = False
        for state in (0, 2, 1, 0):
            telemetry.gauge([Measurement(semconv.BREAKER, state, where)])
        told = [[measurement.value for measurement in telemetry._latest(semconv.BREAKER)] for _ in range(2)]
        telemetry.close()

    assert [[2], [0]] == told


class HostHandler(logging.Handler):
    """Stands in for the Functions worker's handler, which is known by its module."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the line."""
        self.lines.append(record.getMessage())


HostHandler.__module__ = "azure_functions_worker.dispatcher"


async def test_the_functions_host_gets_every_line_that_we_do_not_tell_ourselves() -> None:
    """Both send to the same Application Insights: no line is there twice, and none is nowhere."""
    host, plain = HostHandler(), logging.getLogger("switchyard.edge")
    logging.getLogger().addHandler(host)
    try:
        with Ingestion() as ingestion:
            async with scenes.telling(to_azure(ingestion)) as telemetry:
                plain.warning("before it is known that telling works")
                await until(telemetry._lines_flow)
                plain.warning("told")
                logging.getLogger("another.library").warning("theirs")
                await until(lambda: len(ingestion.of("MessageData")) == 2)
                ingestion.status = 503
                plain.warning("not taken yet")
                await until(lambda: not telemetry._lines_flow())
                plain.warning("while telling fails")
                ingestion.status = 200
            plain.warning("after the end")
            lines = [line["data"]["baseData"]["message"] for line in ingestion.of("MessageData")]
    finally:
        logging.getLogger().removeHandler(host)

    ours = [line for line in host.lines if "Log lines were not taken" not in line]
    assert ["before it is known that telling works", "theirs", "while telling fails", "after the end"] == ours
    assert ["before it is known that telling works", "told", "not taken yet", "while telling fails"] == lines


async def test_many_series_are_told_in_parts_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many keys make many values a minute: none is left out by the exporter's own limit, and none told again with others."""
    monkeypatch.setattr(otel, "POINTS", 4)
    monkeypatch.setattr("azure.monitor.opentelemetry.exporter.export._base._DEFAULT_MAX_ENVELOPES_PER_SECOND", 3)
    with Ingestion() as ingestion:
        taken = ingestion.answer
        refused: list[Post] = []

        def second_is_refused(post: Post) -> Answer:
            if b"MetricData" in post.body and ingestion.taken and not refused:
                refused.append(post)
                return Answer(503)
            return taken(post)

        ingestion.answer = second_is_refused
        async with scenes.telling(to_azure(ingestion, metric_interval=0.02)) as telemetry:
            for number in range(20):
                telemetry.ended(request(f"req_{number}", project=f"project-{number}"), None)
            await until(lambda: refused and total(ingestion, semconv.COST_SPENT))
        metrics = [post for post in ingestion.taken if b"MetricData" in post.body]

    assert refused
    assert (20, 30_000) == (total(ingestion, semconv.REQUESTS), total(ingestion, semconv.COST_SPENT))
    assert max(len(parse(post.body)) for post in metrics) < 8

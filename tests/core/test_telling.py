"""A request's record as spans and measurements."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from shared.core import semconv
from shared.core.chat import Operation, Usage
from shared.core.records import LOST, SUCCEEDED, AttemptRecord, RequestRecord
from shared.core.telemetry import Content, Measurement, SpanKind, TraceContext
from shared.core.telling import UNKNOWN, child_id, measurements_of, spans_of

BEGAN = 1_795_000_000.0
TRACE = TraceContext("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "00f067aa0ba902b7")
FAILED = AttemptRecord(
    1,
    "east/sol",
    "sol",
    "azure_east",
    BEGAN + 0.5,
    1500.0,
    "rate_limited",
    region="eastus",
    status=429,
    cost=0,
    message="You wrote: my secret prompt",
    semconv_name="azure.ai.openai",
)
ANSWERED = AttemptRecord(
    2,
    "openai/sol",
    "sol",
    "openai",
    BEGAN + 3,
    2000.0,
    SUCCEEDED,
    first_content_ms=250.0,
    usage=Usage(100, 20, cache_read=60, reasoning=5),
    cost=140_001,
    response_model="sol-2026-10",
)
RECORD = RequestRecord(
    "req_1",
    "key_1",
    "shop",
    Operation.CHAT,
    "fast",
    "conversation",
    stream=True,
    started_at=BEGAN,
    duration_ms=5100.0,
    outcome=SUCCEEDED,
    attempts=(FAILED, ANSWERED),
    model="sol",
    deployment="openai/sol",
    first_content_ms=3250.0,
    cost=140_001,
    trace={"requirements": {"model": "fast"}},
)


def values(measurements: tuple[Measurement, ...], instrument: semconv.Instrument) -> list[int | float]:
    """Return a metric's values."""
    return [one.value for one in measurements if one.instrument is instrument]


def test_a_request_is_a_span_and_each_attempt_one_under_it() -> None:
    """The request's is the place it was given; attempts follow from it, with their times: between them it waited."""
    request, first, second = spans_of(RECORD, TRACE)

    assert ("chat sol", SpanKind.INTERNAL, TRACE, None) == (request.name, request.kind, request.context, request.error)
    assert (BEGAN, BEGAN + 5.1) == (request.start, request.end)
    assert ["chat sol", "chat sol"] == [first.name, second.name]
    assert {SpanKind.CLIENT} == {first.kind, second.kind}
    assert [(BEGAN + 0.5, BEGAN + 2.0), (BEGAN + 3.0, BEGAN + 5.0)] == [(one.start, one.end) for one in (first, second)]
    assert ["rate_limited", None] == [first.error, second.error]
    assert {TRACE.span_id} == {one.context.parent_id for one in (first, second)}
    assert 3 == len({one.context.span_id for one in (request, first, second)})
    assert spans_of(RECORD, TRACE) == (request, first, second)
    assert child_id(TRACE.span_id, 2) == second.context.span_id


def test_spans_say_what_the_record_says() -> None:
    """Who, what, how it ended, by which provider in OpenTelemetry's words, and what it used."""
    request, first, second = spans_of(RECORD, TRACE)

    assert {
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "sol",
        "gateway.model.original": "fast",
        "gateway.request.id": "req_1",
        "gateway.project": "shop",
        "gateway.key.id": "key_1",
        "gateway.task": "conversation",
        "gateway.stream": True,
        "gateway.outcome": "succeeded",
        "gateway.deployment": "openai/sol",
        "gateway.attempts": 2,
        "gen_ai.response.time_to_first_chunk": 3.25,
        "gateway.cost": 140_001,
        "gateway.cost.exact": True,
    } == request.attributes
    assert ("azure.ai.openai", "eastus", 429, "rate_limited") == (
        first.attributes[semconv.PROVIDER],
        first.attributes[semconv.REGION],
        first.attributes[semconv.STATUS_CODE],
        first.attributes[semconv.ERROR_TYPE],
    )
    assert ("openai", "sol-2026-10", 100, 20, 60, 5, 140_001, 2) == tuple(
        second.attributes[name]
        for name in (
            semconv.PROVIDER,
            semconv.RESPONSE_MODEL,
            semconv.INPUT_TOKENS,
            semconv.OUTPUT_TOKENS,
            semconv.CACHE_READ_TOKENS,
            semconv.REASONING_TOKENS,
            semconv.COST,
            semconv.ATTEMPT,
        )
    )


def test_nothing_told_holds_what_a_provider_said() -> None:
    """A provider's message may quote the prompt: it is in the record, and nowhere else."""
    told = repr((spans_of(RECORD, TRACE), measurements_of(RECORD)))

    assert "secret prompt" in repr(RECORD)
    assert "secret prompt" not in told


def test_a_chains_span_is_named_so() -> None:
    """A request that ran in the background is its chain."""
    span, *_ = spans_of(replace(RECORD, chain="chain_1"), TRACE)

    assert ("chain chat sol", "chain_1") == (span.name, span.attributes[semconv.CHAIN_ID])


def test_content_is_told_where_it_is_given_and_on_the_request_alone() -> None:
    """Without it there is none."""
    request, *attempts = spans_of(RECORD, TRACE, Content("[in]", "[out]"))

    assert ("[in]", "[out]") == (request.attributes[semconv.INPUT_MESSAGES], request.attributes[semconv.OUTPUT_MESSAGES])
    told = {name for span in (*attempts, *spans_of(RECORD, TRACE)) for name in span.attributes}
    assert not told & {semconv.INPUT_MESSAGES, semconv.OUTPUT_MESSAGES}


def test_what_callers_call_models_is_in_no_name_and_no_metric() -> None:
    """A request that nobody was asked for has no model: whatever a caller sends, series do not multiply."""
    strange = "x" * 500 + "\ud800"
    refused = replace(RECORD, original_model=strange, attempts=(), model=None, deployment=None, outcome="refused", cost=0)
    (span,) = spans_of(refused, TRACE)
    measurements = measurements_of(refused)

    assert f"chat {UNKNOWN}" == span.name
    assert "x" * 128 == span.attributes[semconv.ORIGINAL_MODEL]
    assert "refused" == span.error
    assert all("xx" not in str(value) for one in measurements for value in one.attributes.values())
    assert [1] == values(measurements, semconv.REQUESTS)
    assert {span.attributes[semconv.ERROR_TYPE]} == {
        one.attributes[semconv.ERROR_TYPE] for one in measurements if one.instrument is semconv.REQUESTS
    }


def test_what_is_measured_adds_up_to_the_record() -> None:
    """One request, two attempts, one fallback; its cost to the nano-dollar; tokens by type; seconds."""
    measurements = measurements_of(RECORD)

    assert [1] == values(measurements, semconv.REQUESTS)
    assert [5.1] == values(measurements, semconv.REQUEST_DURATION)
    assert [1, 1] == values(measurements, semconv.ATTEMPTS_MADE)
    assert [1.5, 2.0] == values(measurements, semconv.OPERATION_DURATION)
    assert [0.25] == values(measurements, semconv.FIRST_CHUNK)
    assert RECORD.cost == sum(values(measurements, semconv.COST_SPENT))
    assert {"input": 100, "output": 20} == {
        one.attributes[semconv.TOKEN_TYPE]: one.value for one in measurements if one.instrument is semconv.TOKENS
    }
    (fallback,) = (one for one in measurements if one.instrument is semconv.FALLBACKS)
    assert ("east/sol", "openai/sol", "rate_limited") == (
        fallback.attributes[semconv.DEPLOYMENT_FROM],
        fallback.attributes[semconv.DEPLOYMENT_TO],
        fallback.attributes[semconv.ERROR_TYPE],
    )


def test_a_retry_is_no_fallback() -> None:
    """The same deployment again."""
    again = replace(RECORD, attempts=(FAILED, replace(ANSWERED, deployment="east/sol")))

    assert [] == values(measurements_of(again), semconv.FALLBACKS)


def test_what_is_not_known_is_not_measured() -> None:
    """An unknown cost is not zero; a dead process's times are not known; a clock that was set back measures nothing."""
    unknown = measurements_of(replace(RECORD, attempts=(replace(ANSWERED, cost=None, usage=None),), cost=None))
    lost = measurements_of(replace(RECORD, attempts=(replace(ANSWERED, outcome=LOST, duration_ms=0.0),), recovered=True))
    odd = replace(
        RECORD, started_at=math.nan, duration_ms=-5.0, attempts=(replace(ANSWERED, started_at=math.nan, duration_ms=math.nan),)
    )

    assert [] == values(unknown, semconv.COST_SPENT)
    assert [] == values(unknown, semconv.TOKENS)
    assert [140_001] == values(lost, semconv.COST_SPENT)
    assert [] == values(lost, semconv.REQUEST_DURATION) + values(lost, semconv.OPERATION_DURATION)
    assert [] == values(measurements_of(odd), semconv.REQUEST_DURATION)
    assert all(math.isfinite(span.start) and span.end >= span.start for span in spans_of(odd, TRACE))


def test_embeddings_have_no_output_tokens() -> None:
    """Their type would be told with zeros only."""
    measurements = measurements_of(replace(RECORD, operation=Operation.EMBEDDINGS))

    assert ["input"] == [one.attributes[semconv.TOKEN_TYPE] for one in measurements if one.instrument is semconv.TOKENS]


@pytest.mark.parametrize(
    "record", [RECORD, replace(RECORD, attempts=(), outcome="refused", model=None), replace(RECORD, recovered=True)]
)
def test_metrics_are_told_with_the_attributes_they_have(record: RequestRecord) -> None:
    """`shared.core.semconv` says what there is: tables in the docs and queries rely on it."""
    for one in measurements_of(record):
        assert set(one.attributes) <= set(one.instrument.attributes), one.instrument.name
        assert one.instrument in semconv.INSTRUMENTS


def test_spans_say_what_they_are_documented_to_say() -> None:
    """`shared.core.semconv` has each attribute that a span may have, and no other."""
    used = replace(ANSWERED, usage=Usage(9, 9, cache_read=1, cache_creation=1, reasoning=1), region="eastus")
    all_of_it = replace(RECORD, attempts=(FAILED, used), chain="chain_1", outcome="cancelled", simulated=True, recovered=True)
    request, *attempts = spans_of(all_of_it, TRACE, Content("in", "out"))

    assert {one.name for one in semconv.SPAN_ATTRIBUTES if one.request} == set(request.attributes)
    assert {one.name for one in semconv.SPAN_ATTRIBUTES if one.attempt} == {name for one in attempts for name in one.attributes}

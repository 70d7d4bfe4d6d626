"""What is told of a request that has ended: its record as spans and as measurements.

A request is a span, and each of its attempts is one under it: what lies between them is waiting. A chain is the request that
began it, and is named so. Ids of attempts' spans follow from the request's, so that telling twice says the same twice. Metrics
carry names of the catalog only, and so do spans' names: what a caller called a model is told as an attribute of spans alone.
Providers' messages are never told: they may quote the prompt.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from hashlib import sha256
from itertools import pairwise
from typing import Final

from shared.core import semconv
from shared.core.chat import Operation, Usage
from shared.core.records import LOST, SUCCEEDED, AttemptRecord, RequestRecord
from shared.core.telemetry import Attribute, Content, Measurement, Span, SpanKind, TraceContext

UNKNOWN: Final = "(unknown)"
"""Stands for the model of a request that no deployment was asked for."""
NAME_LENGTH: Final = 128
"""Characters kept of a name that somebody outside chose: a caller's model, a provider's."""

_Attributes = dict[str, Attribute]


# ---- spans -----------------------------------------------------------------------------------------------------------


def spans_of(record: RequestRecord, trace: TraceContext, content: Content | None = None) -> tuple[Span, ...]:
    """Return a request's span, which is ``trace`` itself, and those of its attempts under it, in order."""
    start = _moment(record.started_at)
    attributes = _request_attributes(record)
    if content is not None:
        attributes[semconv.INPUT_MESSAGES] = content.input
        if content.output:
            attributes[semconv.OUTPUT_MESSAGES] = content.output
    what = f"{record.operation.value} {_model(record)}"
    name = what if record.chain is None else f"chain {what}"
    end = start + _seconds(record.duration_ms)
    span = Span(name, SpanKind.INTERNAL, trace, start, end, attributes, _error(record.outcome))
    return (span, *(_attempt_span(record, attempt, trace) for attempt in record.attempts))


def _attempt_span(record: RequestRecord, attempt: AttemptRecord, trace: TraceContext) -> Span:
    start = _moment(attempt.started_at, record.started_at)
    return Span(
        f"{record.operation.value} {attempt.model}",
        SpanKind.CLIENT,
        TraceContext(trace.trace_id, child_id(trace.span_id, attempt.number), trace.span_id, trace.sampled),
        start,
        start + _seconds(attempt.duration_ms),
        _attempt_attributes(record, attempt),
        _error(attempt.outcome),
    )


def child_id(span_id: str, number: int) -> str:
    """Return the span id of a request's attempt."""
    return sha256(f"{span_id}/{number}".encode()).hexdigest()[:16]


def _request_attributes(record: RequestRecord) -> _Attributes:
    return _present(
        {
            semconv.OPERATION: record.operation.value,
            semconv.REQUEST_MODEL: _model(record),
            semconv.ORIGINAL_MODEL: _name(record.original_model),
            semconv.REQUEST_ID: record.request_id,
            semconv.CHAIN_ID: record.chain,
            semconv.PROJECT: record.project,
            semconv.KEY_ID: record.key_id,
            semconv.TASK: record.task,
            semconv.STREAM: record.stream,
            semconv.OUTCOME: record.outcome,
            semconv.ERROR_TYPE: _error(record.outcome),
            semconv.DEPLOYMENT: record.deployment,
            semconv.ATTEMPTS: len(record.attempts),
            semconv.TIME_TO_FIRST_CHUNK: _measured(record.first_content_ms),
            semconv.COST: record.cost,
            semconv.EXACT: record.exact,
            semconv.SIMULATED: record.simulated or None,
            semconv.RECOVERED: record.recovered or None,
        }
    )


def _attempt_attributes(record: RequestRecord, attempt: AttemptRecord) -> _Attributes:
    return _present(
        {
            **_where(record.operation, attempt),
            **_used(attempt.usage),
            semconv.RESPONSE_MODEL: _name(attempt.response_model or ""),
            semconv.STATUS_CODE: attempt.status,
            semconv.REQUEST_ID: record.request_id,
            semconv.PROJECT: record.project,
            semconv.KEY_ID: record.key_id,
            semconv.STREAM: record.stream,
            semconv.ATTEMPT: attempt.number,
            semconv.OUTCOME: attempt.outcome,
            semconv.ERROR_TYPE: _error(attempt.outcome),
            semconv.TIME_TO_FIRST_CHUNK: _measured(attempt.first_content_ms),
            semconv.COST: attempt.cost,
            semconv.EXACT: attempt.exact,
            semconv.SIMULATED: record.simulated or None,
        }
    )


def _used(usage: Usage | None) -> dict[str, Attribute | None]:
    if usage is None:
        return {}
    return {
        semconv.INPUT_TOKENS: usage.input_tokens,
        semconv.OUTPUT_TOKENS: usage.output_tokens,
        semconv.CACHE_READ_TOKENS: usage.cache_read or None,
        semconv.CACHE_CREATION_TOKENS: usage.cache_creation or None,
        semconv.REASONING_TOKENS: usage.reasoning or None,
    }


# ---- measurements ----------------------------------------------------------------------------------------------------


def measurements_of(record: RequestRecord) -> tuple[Measurement, ...]:
    """Return what a request counts for. Costs add up to the record's, whenever that is known."""
    return tuple(_measurements(record))


def _measurements(record: RequestRecord) -> Iterator[Measurement]:
    operation, model, error = record.operation.value, _model(record), _error(record.outcome)
    request: _Attributes = {
        semconv.OPERATION: operation,
        semconv.REQUEST_MODEL: model,
        semconv.PROJECT: record.project,
        semconv.STREAM: record.stream,
        semconv.OUTCOME: record.outcome,
    }
    yield Measurement(semconv.REQUESTS, 1, _present({**request, semconv.KEY_ID: record.key_id, semconv.ERROR_TYPE: error}))
    duration = _measured(record.duration_ms)
    if duration is not None and not record.recovered:  # how long a dead process took is not known
        yield Measurement(semconv.REQUEST_DURATION, duration, request)
    for attempt in record.attempts:
        yield from _attempt_measurements(record, attempt)
    for before, after in pairwise(record.attempts):
        if before.outcome != SUCCEEDED and before.deployment != after.deployment:
            fell = {
                semconv.DEPLOYMENT_FROM: before.deployment,
                semconv.DEPLOYMENT_TO: after.deployment,
                semconv.ERROR_TYPE: before.outcome,
            }
            yield Measurement(semconv.FALLBACKS, 1, fell)


def _attempt_measurements(record: RequestRecord, attempt: AttemptRecord) -> Iterator[Measurement]:
    where = _present(_where(record.operation, attempt))
    failed: _Attributes = {} if attempt.outcome == SUCCEEDED else {semconv.ERROR_TYPE: attempt.outcome}
    who: _Attributes = {semconv.PROJECT: record.project, semconv.KEY_ID: record.key_id}
    yield Measurement(semconv.ATTEMPTS_MADE, 1, {**where, semconv.OUTCOME: attempt.outcome, **failed})
    if attempt.cost is not None:
        yield Measurement(semconv.COST_SPENT, attempt.cost, {**where, **who, semconv.EXACT: attempt.exact})
    if attempt.usage is not None:
        tokens = {"input": attempt.usage.input_tokens, "output": attempt.usage.output_tokens}
        for kind, count in tokens.items():
            if kind == "input" or record.operation is not Operation.EMBEDDINGS:
                yield Measurement(semconv.TOKENS, count, {**where, **who, semconv.TOKEN_TYPE: kind})
    duration = _measured(attempt.duration_ms)
    if duration is not None and not record.recovered and attempt.outcome != LOST:
        yield Measurement(semconv.OPERATION_DURATION, duration, {**where, **failed})
    first = _measured(attempt.first_content_ms)
    if first is not None:
        yield Measurement(semconv.FIRST_CHUNK, first, where)


# ---- both ------------------------------------------------------------------------------------------------------------


def _where(operation: Operation, attempt: AttemptRecord) -> dict[str, Attribute | None]:
    return {
        semconv.OPERATION: operation.value,
        semconv.REQUEST_MODEL: attempt.model,
        semconv.PROVIDER: attempt.semconv_name or attempt.provider,
        semconv.DEPLOYMENT: attempt.deployment,
        semconv.REGION: attempt.region,
    }


def _model(record: RequestRecord) -> str:
    """Return the catalog's name of the model that answered, else of the first that was asked."""
    return record.model or (record.attempts[0].model if record.attempts else UNKNOWN)


def _error(outcome: str) -> str | None:
    return None if outcome == SUCCEEDED else outcome


def _name(text: str) -> str | None:
    return text[:NAME_LENGTH].encode("utf-8", "replace").decode() or None


def _moment(*moments: float) -> float:
    """Return the first that is known; rows without it are read as NaN."""
    return next((moment for moment in moments if math.isfinite(moment)), 0.0)


def _seconds(milliseconds: float) -> float:
    return _measured(milliseconds) or 0.0


def _measured(milliseconds: float | None) -> float | None:
    """Return seconds; None for what was not measured, or by a clock that was set back meanwhile."""
    return milliseconds / 1000 if milliseconds is not None and 0 <= milliseconds < math.inf else None


def _present(attributes: Mapping[str, Attribute | None]) -> _Attributes:
    return {name: value for name, value in attributes.items() if value is not None}

"""What is measured adds up as OpenTelemetry's SDK would add it up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import pytest
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, Counter, Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    ExponentialHistogram,
    InMemoryMetricReader,
    MetricsData,
)
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation

from shared.adapters.telemetry import aggregation, otel
from shared.adapters.telemetry.console import _Preferences
from shared.core import semconv
from shared.core.chat import Usage
from shared.core.semconv import INSTRUMENTS, InstrumentKind
from shared.core.telemetry import Measurement
from shared.core.telling import measurements_of
from tests.telemetry.scenes import attempt, failed, request

WHO = otel.resource("yard", "instance-1")
TOTALS: Mapping[type, AggregationTemporality] = {}
ADDED: Mapping[type, AggregationTemporality] = {
    Counter: AggregationTemporality.DELTA,
    Histogram: AggregationTemporality.DELTA,
}
TIMES = ("start_time_unix_nano", "time_unix_nano")


class Sdk:
    """The SDK's own counters and histograms, of the same names, units and buckets."""

    def __init__(self, **preferred: Any) -> None:
        limits: dict[type, int] = {Counter: aggregation.ATTRIBUTE_SETS, Histogram: aggregation.ATTRIBUTE_SETS}
        self.reader = InMemoryMetricReader(**preferred, cardinality_limits=limits)
        self.provider = MeterProvider([self.reader], WHO, exemplar_filter=AlwaysOffExemplarFilter(), shutdown_on_exit=False)
        meter = self.provider.get_meter(semconv.SERVICE)
        self.instruments: dict[str, Any] = {}
        for one in INSTRUMENTS:
            about = (one.name, one.unit, one.description)
            if one.kind is InstrumentKind.COUNTER:
                self.instruments[one.name] = meter.create_counter(*about)
            elif one.kind is InstrumentKind.HISTOGRAM:
                bounds = otel._BOUNDARIES.get(one.name, otel.SECONDS)
                self.instruments[one.name] = meter.create_histogram(*about, explicit_bucket_boundaries_advisory=bounds)

    def record(self, measurements: Iterable[Measurement]) -> None:
        """Take values, one by one."""
        for one in measurements:
            instrument = self.instruments[one.instrument.name]
            take = instrument.add if one.instrument.kind is InstrumentKind.COUNTER else instrument.record
            take(one.value, one.attributes)

    def collect(self) -> list[MetricsData]:
        """Return what there is to tell."""
        collected = self.reader.get_metrics_data()
        return [] if collected is None else [collected]


def told(parts: Iterable[MetricsData]) -> dict[str, Any]:
    """Return the values by metric, and all there is to them but when they were counted."""
    found: dict[str, Any] = {}
    for of in (of for part in parts for of in part.resource_metrics):
        for metric in (metric for scope in of.scope_metrics for metric in scope.metrics):
            rest = {name: value for name, value in vars(metric.data).items() if name != "data_points"}
            points = [
                {name: value for name, value in vars(point).items() if name not in TIMES} for point in metric.data.data_points
            ]
            scope = (of.resource, of.schema_url, of.scope_metrics[0].scope.name, of.scope_metrics[0].schema_url)
            found[metric.name] = (type(metric.data), metric.unit, metric.description, rest, points, scope)
    return found


def measured(numbers: Iterable[int]) -> list[Measurement]:
    """Return what requests count for: of several projects and deployments, failed and not, streams and not.

    Seconds are eighths and the like, tokens powers of 4, as the boundaries of buckets are: sums are the same in any order.
    """
    found: list[Measurement] = []
    for number in numbers:
        attempts = [failed(1)] if number % 3 == 0 else []
        made = {"duration_ms": 125 * 2.0 ** (number - 3), "usage": Usage(4**number, 0), "first_content_ms": 125.0 * number}
        attempts.append(attempt(len(attempts) + 1, deployment=f"gpt-small@{number % 2}", **made))
        of = {"project": f"project-{number % 4}", "stream": number % 2 == 0, "duration_ms": 125 * 2.0 ** (number - 4)}
        found += measurements_of(request(f"req_{number}", *attempts, **of))
    return found


@pytest.mark.parametrize("limit", [10_000, 2])
@pytest.mark.parametrize(
    "preferred",
    [
        {"preferred_temporality": TOTALS},
        {"preferred_temporality": ADDED},
        {"preferred_temporality": {Histogram: AggregationTemporality.DELTA}},
        {"preferred_temporality": ADDED, "preferred_aggregation": {Histogram: ExponentialBucketHistogramAggregation()}},
    ],
)
def test_it_is_what_the_sdk_would_tell(monkeypatch: pytest.MonkeyPatch, preferred: dict[str, Any], limit: int) -> None:
    """Each time it is asked: of what is new, of what goes on, of what stopped, and of what is too much."""
    monkeypatch.setattr(aggregation, "ATTRIBUTE_SETS", limit)
    monkeypatch.setattr(otel, "ATTRIBUTE_SETS", limit)
    theirs, ours = Sdk(**preferred), otel.Instruments(WHO, _Preferences(**preferred), lambda _: ())

    rounds = 0
    for numbers in (range(0), range(12), range(3, 9), range(0), range(8, 15)):
        measurements = measured(numbers)
        theirs.record(measurements)
        ours.record(measurements)
        expected = told(theirs.collect())
        rounds += bool(expected)
        assert expected == told(ours.collect())
        assert not numbers or set(expected) > {semconv.COST_SPENT.name, semconv.FIRST_CHUNK.name, semconv.FALLBACKS.name}
        if "preferred_aggregation" in preferred and expected:
            assert ExponentialHistogram is expected[semconv.TOKENS.name][0]
    assert rounds in {3, 4}
    theirs.provider.shutdown()
    ours.close()


@pytest.mark.parametrize("temporality", [TOTALS, ADDED])
def test_values_say_from_when_to_when(temporality: dict[type, AggregationTemporality]) -> None:
    """Totals from their first value on; what was added since the last time it was told."""
    ours = otel.Instruments(WHO, _Preferences(preferred_temporality=temporality), lambda _: ())
    spans: list[tuple[int, int]] = []
    for _ in range(3):
        ours.record(measured([1]))
        (part,) = ours.collect()
        points = [point for metric in part.resource_metrics[0].scope_metrics[0].metrics for point in metric.data.data_points]
        assert 1 == len({point.time_unix_nano for point in points})
        spans.append((max(point.start_time_unix_nano or 0 for point in points), points[0].time_unix_nano))
    ours.close()

    (began, first), (second_began, second), (third_began, third) = spans
    assert 0 < began <= first <= second <= third
    assert (second_began, third_began) == ((began, began) if temporality is TOTALS else (first, second))


def test_what_no_counter_can_have_is_left_out_and_said(caplog: pytest.LogCaptureFixture) -> None:
    """It must not take away from what is right."""
    ours = otel.Instruments(WHO, _Preferences(), lambda _: ())
    ours.record([Measurement(semconv.DROPPED, value) for value in (5, -3, math.inf, math.nan, 2)])
    (part,) = ours.collect()
    ours.close()

    (metric,) = part.resource_metrics[0].scope_metrics[0].metrics
    assert [7] == [point.value for point in metric.data.data_points if hasattr(point, "value")]
    assert 3 == sum(semconv.DROPPED.name in line for line in caplog.messages)

"""What was measured, added up until it is told.

The SDK's counters and histograms do the same, but take 9 µs of processor time for a value, and a request has seven: they check,
copy, sort and hash its attributes each time. This takes 1 µs. What comes out is the SDK's data; a test holds the two against
each other.
"""

from __future__ import annotations

import logging
import math
import time
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from typing import Final

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Histogram,
    HistogramDataPoint,
    Metric,
    NumberDataPoint,
    Sum,
)

from shared.core.semconv import Instrument
from shared.core.telemetry import Attribute

_log = logging.getLogger(__name__)

ATTRIBUTE_SETS: Final = 10_000
"""Series a metric may have between two exports (many keys times many deployments); what is beyond is counted as one."""
OVERFLOW: Final[Mapping[str, Attribute]] = {"otel.metric.overflow": True}
"""The attributes of that one: OpenTelemetry's."""


class _Series:
    """What the values of one set of attributes add up to."""

    __slots__ = ("attributes", "counts", "least", "most", "since", "total")

    def __init__(self, attributes: Mapping[str, Attribute], since: int, buckets: int) -> None:
        self.attributes = attributes
        self.since = since
        self.counts = [0] * buckets
        self.total: int | float = 0
        self.least = math.inf
        self.most = -math.inf


class Tally:
    """One metric: a histogram if it has ``bounds``, else a counter. Not to be used by two threads at once."""

    def __init__(
        self, instrument: Instrument, temporality: AggregationTemporality, bounds: Sequence[float] | None = None
    ) -> None:
        self._instrument = instrument
        self._names = instrument.attributes
        self._temporality = temporality
        self._bounds = bounds
        self._series: dict[tuple[Attribute | None, ...] | None, _Series] = {}
        self._told_at: int | None = None

    def add(self, value: float, attributes: Mapping[str, Attribute]) -> None:
        """Add a value; what no counter and no histogram can have is left out."""
        if not 0 <= value < math.inf:
            _log.warning("A value of %s is left out: %s is negative, or no finite number.", self._instrument.name, value)
            return
        key = tuple(map(attributes.get, self._names))
        series = self._series.get(key) or self._begin(key, attributes)
        series.total += value
        if self._bounds is not None:
            series.counts[bisect_left(self._bounds, value)] += 1
            if value < series.least:  # noqa: PLR1730 - a call takes as long as all the rest
                series.least = value
            if value > series.most:  # noqa: PLR1730 - as above
                series.most = value

    def collect(self, now: int) -> Metric | None:
        """Return what there is to tell at ``now``, in nanoseconds since the epoch: what was added since, or totals."""
        told = self._series.values()
        if self._temporality is AggregationTemporality.DELTA:
            self._series, self._told_at = {}, now
        if not told:
            return None
        data: Sum | Histogram
        if self._bounds is None:
            data = Sum([_number(series, now) for series in told], self._temporality, is_monotonic=True)
        else:
            data = Histogram([_distribution(series, now, self._bounds) for series in told], self._temporality)
        return Metric(self._instrument.name, self._instrument.description, self._instrument.unit, data)

    def _begin(self, key: tuple[Attribute | None, ...] | None, attributes: Mapping[str, Attribute]) -> _Series:
        if len(self._series) >= ATTRIBUTE_SETS:
            key, attributes = None, OVERFLOW
            if key in self._series:
                return self._series[key]
        since = time.time_ns() if self._told_at is None else self._told_at
        buckets = 0 if self._bounds is None else len(self._bounds) + 1
        series = self._series[key] = _Series(dict(attributes), since, buckets)
        return series


def _number(series: _Series, now: int) -> NumberDataPoint:
    return NumberDataPoint(series.attributes, series.since, now, series.total)


def _distribution(series: _Series, now: int, bounds: Sequence[float]) -> HistogramDataPoint:
    counts = tuple(series.counts)
    return HistogramDataPoint(
        series.attributes, series.since, now, sum(counts), series.total, counts, bounds, series.least, series.most
    )

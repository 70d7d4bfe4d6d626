"""Sums of one minute (or any span) of requests: counted, merged, written as plain values, summed up."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from shared.core.fields import Fields
from shared.core.records import SUCCEEDED, AttemptRecord, RequestRecord
from shared.core.sketch import Sketch


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Milliseconds within 1%; None when nothing was measured."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    mean: float | None = None
    count: int = 0


@dataclass(frozen=True, slots=True)
class Summary:
    """What happened in a span of time.

    ``errors`` are requests that failed and ``attempt_errors`` attempts that did, by kind. ``fallbacks`` are attempts on another
    deployment than the one before. ``cost`` is nano-USD over attempts whose cost is known, ``cost_unknown`` counts the others.
    ``latency`` is of requests that succeeded, ``first_content`` of streams. Rates are per second.
    """

    requests: int = 0
    attempts: int = 0
    fallbacks: int = 0
    errors: Mapping[str, int] = field(default_factory=dict)
    attempt_errors: Mapping[str, int] = field(default_factory=dict)
    input_tokens: int = 0
    output_tokens: int = 0
    cost: int = 0
    cost_unknown: int = 0
    error_rate: float = 0.0
    requests_per_second: float = 0.0
    tokens_per_second: float = 0.0
    latency: Quantiles = field(default_factory=Quantiles)
    first_content: Quantiles = field(default_factory=Quantiles)


_COUNTS: Final = (
    "requests",
    "attempts",
    "fallbacks",
    "input_tokens",
    "output_tokens",
    "cost",
    "cost_unknown",
)


class Cell:
    """A mutable sum. Requests count under the model that answered, attempts under the one they called."""

    __slots__ = ("attempt_errors", "counts", "errors", "first_content", "latency")

    def __init__(self) -> None:
        self.counts = dict.fromkeys(_COUNTS, 0)
        self.errors: Counter[str] = Counter()
        self.attempt_errors: Counter[str] = Counter()
        self.latency = Sketch()
        self.first_content = Sketch()

    def add_request(self, record: RequestRecord) -> None:
        """Count a request (not its attempts)."""
        self.counts["requests"] += 1
        if record.outcome == SUCCEEDED:
            _measure(self.latency, record.duration_ms)
        else:
            self.errors[record.outcome] += 1
        _measure(self.first_content, record.first_content_ms)

    def add_attempt(self, attempt: AttemptRecord, *, fallback: bool) -> None:
        """Count an attempt."""
        counts = self.counts
        counts["attempts"] += 1
        counts["fallbacks"] += fallback
        if attempt.usage is not None:
            counts["input_tokens"] += attempt.usage.input_tokens
            counts["output_tokens"] += attempt.usage.output_tokens
        if attempt.cost is None:
            counts["cost_unknown"] += 1
        else:
            counts["cost"] += attempt.cost
        if attempt.outcome != SUCCEEDED:
            self.attempt_errors[attempt.outcome] += 1

    def merge(self, other: Cell) -> None:
        """Count everything the other one counted."""
        for name, count in other.counts.items():
            self.counts[name] += count
        self.errors.update(other.errors)
        self.attempt_errors.update(other.attempt_errors)
        self.latency.merge(other.latency)
        self.first_content.merge(other.first_content)

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            **self.counts,
            "errors": dict(self.errors),
            "attempt_errors": dict(self.attempt_errors),
            "latency": self.latency.to_plain(),
            "first_content": self.first_content.to_plain(),
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Cell:
        """Return the cell of `to_plain`; raise `ValueError` for anything else."""
        cell = cls()
        row = Fields(plain)
        cell.counts = {name: row.whole(name) for name in _COUNTS}
        cell.errors = _counter(plain, "errors")
        cell.attempt_errors = _counter(plain, "attempt_errors")
        cell.latency = Sketch.from_plain(_object(plain, "latency"))
        cell.first_content = Sketch.from_plain(_object(plain, "first_content"))
        return cell

    def summary(self, seconds: float) -> Summary:
        """Sum up, with rates over that many seconds."""
        counts = self.counts
        over = max(seconds, 1.0)
        return Summary(
            **counts,
            errors=dict(sorted(self.errors.items())),
            attempt_errors=dict(sorted(self.attempt_errors.items())),
            error_rate=self.errors.total() / counts["requests"] if counts["requests"] else 0.0,
            requests_per_second=counts["requests"] / over,
            tokens_per_second=(counts["input_tokens"] + counts["output_tokens"]) / over,
            latency=_quantiles(self.latency),
            first_content=_quantiles(self.first_content),
        )


def _measure(sketch: Sketch, value: float | None) -> None:
    if value is not None and 0 <= value < math.inf:  # a clock set back measures less than nothing
        sketch.add(value)


def _quantiles(sketch: Sketch) -> Quantiles:
    p50, p95, p99 = (sketch.quantile(share) for share in (0.5, 0.95, 0.99))
    return Quantiles(p50, p95, p99, sketch.mean, sketch.count)


def _object(plain: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = plain.get(name)
    if not isinstance(found, dict):
        message = f"{name} is not an object"
        raise ValueError(message)  # noqa: TRY004 - the row is wrong, not a caller's type
    return found


def _counter(plain: Mapping[str, Any], name: str) -> Counter[str]:
    found = Fields(_object(plain, name))
    return Counter({kind: found.whole(kind) for kind in _object(plain, name)})

"""The aggregates that queries here use: name → what it gives of the values of its arguments, row by row.

Nulls are left out. An aggregate of nothing is what the documentation of ``summarize`` says: counts and sums 0, lists empty,
all else null. A percentile is the nearest-rank one, which Kusto estimates (and gives exactly for small groups).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from tests.kusto.values import Value, compare, group_key

Columns = Sequence[Sequence[Value]]
"""An argument's value in each row, for each argument; the one value of an argument that is a constant."""


def _known(values: Sequence[Value]) -> list[Value]:
    return [value for value in values if value is not None]


def _if(values: Sequence[Value], conditions: Sequence[Value]) -> list[Value]:
    return [value for value, holds in zip(values, conditions, strict=True) if holds and value is not None]


def _unique(values: Sequence[Value]) -> list[Value]:
    return list({group_key(value): value for value in reversed(values)}.values())[::-1]


def _mean(values: Sequence[Value]) -> Value:
    return sum(values[1:], start=values[0]) / len(values) if values else None


def percentile(values: Sequence[Value], percent: float, weights: Sequence[int] | None = None) -> Value:
    """Return the least value that at least so many per cent of all are not above; each counted as often as it weighs."""
    counted = [
        (value, weight)
        for value, weight in zip(values, weights or [1] * len(values), strict=True)
        if value is not None and weight
    ]
    counted.sort(key=lambda item: item[0])
    rank = math.ceil(percent / 100 * sum(weight for _, weight in counted))
    reached = 0
    for value, weight in counted:
        reached += weight
        if reached >= rank:
            return value
    return None


def _percentiles(columns: Columns) -> list[Value]:
    return [percentile(columns[0], percent) for (percent,) in columns[1:]]


def _weighted(columns: Columns) -> list[Value]:
    return [percentile(columns[0], percent, columns[1]) for (percent,) in columns[2:]]


ONE: Final[Mapping[str, Callable[[Columns], Value]]] = {
    "avg": lambda given: _mean(_known(given[0])),
    "avgif": lambda given: _mean(_if(*given)),
    "count_distinct": lambda given: len(_unique(_known(given[0]))),
    "countif": lambda given: sum(1 for holds in given[0] if holds),
    "dcount": lambda given: len(_unique(_known(given[0]))),
    "dcountif": lambda given: len(_unique(_if(given[0], given[1]))),
    "make_list": lambda given: _known(given[0]),
    "make_set": lambda given: _unique(_known(given[0])),
    "max": lambda given: max(_known(given[0]), default=None),
    "maxif": lambda given: max(_if(*given), default=None),
    "min": lambda given: min(_known(given[0]), default=None),
    "minif": lambda given: min(_if(*given), default=None),
    "percentile": lambda given: _percentiles(given)[0],
    "percentilew": lambda given: _weighted(given)[0],
    "stdev": lambda given: statistics.stdev(_known(given[0])) if len(_known(given[0])) > 1 else 0.0,
    "sum": lambda given: sum(_known(given[0])),
    "sumif": lambda given: sum(_if(*given)),
    "take_any": lambda given: next(iter(_known(given[0])), None),
}
"""Aggregates of one value."""

MANY: Final[Mapping[str, Callable[[Columns], list[Value]]]] = {"percentiles": _percentiles, "percentilesw": _weighted}
"""Aggregates of several values at once."""

OF_ROWS: Final = {"percentile": 1, "percentiles": 1, "percentilew": 2, "percentilesw": 2, "make_list": 1, "make_set": 1}
"""How many of an aggregate's arguments differ from row to row, where some don't."""

PICKING: Final = {"arg_max": 1, "arg_min": -1}
"""Aggregates that give a row: the sign of what they look for."""

NAMES: Final = frozenset({"count", *ONE, *MANY, *PICKING})


def picked(name: str, values: Sequence[Value]) -> int | None:
    """Return which row `arg_max` or `arg_min` takes: the first that none beats; None of no row with a value."""
    best: int | None = None
    for at, value in enumerate(values):
        if value is not None and (best is None or (compare(value, values[best]) or 0) * PICKING[name] > 0):
            best = at
    return best

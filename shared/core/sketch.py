"""A quantile sketch: how long things took, in a few hundred numbers, within 1% and mergeable without loss.

Values fall into buckets whose bounds grow by 2% (the DDSketch scheme), so that a bucket's middle is within 1% of everything
in it. Sketches of different instances and minutes are merged by adding counts: the order does not matter, and the result is
the sketch of all values together, exactly.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, NoReturn

RELATIVE_ERROR: Final = 0.01
LEAST: Final = 1e-3
MOST: Final = 1e9
"""A value over `MOST` counts as `MOST`, one under `LEAST` as 0: there are 1,400 buckets at most, whatever is counted."""

_GAMMA: Final = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
_FACTOR: Final = 1 / math.log(_GAMMA)
_MIDDLE: Final = 2 / (1 + _GAMMA)
_LOWEST_KEY: Final = math.ceil(math.log(LEAST) * _FACTOR)
_HIGHEST_KEY: Final = math.ceil(math.log(MOST) * _FACTOR)
_UNIT: Final = 1000
"""The sum is kept in whole thousandths, because adding floats depends on the order."""


class Sketch:
    """Counts of non-negative values (milliseconds, mostly). Mutable, for one task; equal if it counts the same."""

    __slots__ = ("_buckets", "_high", "_low", "_total", "_zeros", "count")

    def __init__(self) -> None:
        self.count = 0
        self._zeros = 0
        self._buckets: dict[int, int] = {}
        self._total = 0
        self._low = math.inf
        self._high = 0.0

    def add(self, value: float) -> None:
        """Count a value; raise `ValueError` for one that is negative or not a finite number."""
        if not 0 <= value < math.inf:
            message = "A sketch counts finite values from 0."
            raise ValueError(message)
        bounded = min(value, MOST)
        if bounded < LEAST:
            self._zeros += 1
        else:
            key = math.ceil(math.log(bounded) * _FACTOR)
            self._buckets[key] = self._buckets.get(key, 0) + 1
        self.count += 1
        self._total += round(bounded * _UNIT)
        self._low = min(self._low, bounded)
        self._high = max(self._high, bounded)

    def merge(self, other: Sketch) -> None:
        """Count everything the other one counted."""
        for key, count in other._buckets.items():
            self._buckets[key] = self._buckets.get(key, 0) + count
        self.count += other.count
        self._zeros += other._zeros
        self._total += other._total
        self._low = min(self._low, other._low)
        self._high = max(self._high, other._high)

    def quantile(self, share: float) -> float | None:
        """Return the value that this share (0 to 1) of all values do not exceed, within 1%; None when nothing was counted."""
        if not 0 <= share <= 1:
            message = "A quantile is asked for by a share from 0 to 1."
            raise ValueError(message)
        if not self.count:
            return None
        rank = max(0, math.ceil(share * self.count) - 1)
        seen = self._zeros
        if rank < seen:
            return 0.0
        for key in sorted(self._buckets):
            seen += self._buckets[key]
            if rank < seen:
                return min(max(_MIDDLE * _GAMMA**key, self._low), self._high)
        return self._high

    def counts(self, bounds: Sequence[float]) -> list[int]:
        """Return how many values do not exceed each bound (ascending): those within 1% of one may fall on either side."""
        found, seen, at = [], self._zeros, 0
        keys = sorted(self._buckets)
        for bound in bounds:
            while at < len(keys) and _MIDDLE * _GAMMA ** keys[at] <= bound:
                seen += self._buckets[keys[at]]
                at += 1
            found.append(seen)
        return found

    @property
    def total(self) -> float:
        """The sum, exact to a thousandth."""
        return self._total / _UNIT

    @property
    def mean(self) -> float | None:
        """The mean, exact to a thousandth; None when nothing was counted."""
        return self._total / _UNIT / self.count if self.count else None

    def to_plain(self) -> dict[str, Any]:
        """Return plain JSON values: bucket keys as steps from the one before, which are small numbers."""
        if not self.count:
            return {}
        keys = sorted(self._buckets)
        steps = [key - before for key, before in zip(keys, [0, *keys], strict=False)]
        return {
            "steps": steps,
            "counts": [self._buckets[key] for key in keys],
            "zeros": self._zeros,
            "total": self._total,
            "low": self._low,
            "high": self._high,
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Sketch:
        """Return the sketch of `to_plain`; raise `ValueError` for anything else."""
        sketch = cls()
        if not plain:
            return sketch
        steps, counts = _whole_numbers(plain, "steps"), _whole_numbers(plain, "counts")
        sketch._zeros, sketch._total = _whole_numbers(plain, "zeros", "total")
        sketch._low, sketch._high = (_number(plain, name) for name in ("low", "high"))
        key = 0
        for step, count in zip(steps, counts, strict=True):
            key += step
            if not _LOWEST_KEY <= key <= _HIGHEST_KEY or count < 1 or key in sketch._buckets:
                _refuse("buckets")
            sketch._buckets[key] = count
        sketch.count = sketch._zeros + sum(counts)
        if min(sketch._zeros, sketch._total) < 0 or not sketch.count:
            _refuse("counts")
        return sketch

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sketch) and self.to_plain() == other.to_plain()

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Sketch(count={self.count}, median={self.quantile(0.5)})"


def _whole_numbers(plain: Mapping[str, Any], *names: str) -> Sequence[int]:
    found = plain.get(names[0]) if len(names) == 1 else [plain.get(name) for name in names]
    if not isinstance(found, list) or not all(type(number) is int for number in found):
        _refuse(names[0])
    return found


def _number(plain: Mapping[str, Any], name: str) -> float:
    found = plain.get(name)
    if type(found) not in {int, float} or not 0 <= found <= MOST:  # type: ignore[operator]
        _refuse(name)
    return float(found)  # type: ignore[arg-type]


def _refuse(what: str) -> NoReturn:
    message = f"Not a sketch: {what}."
    raise ValueError(message)

"""Quantiles from a sketch are within 1% of the exact ones, and merging loses nothing."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.sketch import LEAST, MOST, RELATIVE_ERROR, Sketch

MEASURES = st.one_of(st.just(0.0), st.floats(min_value=LEAST, max_value=MOST), st.integers(1, 100_000).map(float))
MANY = st.lists(MEASURES, max_size=60)
SHARES = st.floats(min_value=0, max_value=1)


def sketch_of(values: Iterable[float]) -> Sketch:
    """Return a sketch that has counted these."""
    sketch = Sketch()
    for value in values:
        sketch.add(value)
    return sketch


@given(st.lists(MEASURES, min_size=1, max_size=200), SHARES)
def test_a_quantile_is_within_one_percent(values: list[float], share: float) -> None:
    """Against the exact quantile (the value of the nearest rank), over fifteen orders of magnitude."""
    exact = sorted(values)[max(0, math.ceil(share * len(values)) - 1)]

    found = sketch_of(values).quantile(share)

    assert found is not None
    assert abs(found - exact) <= RELATIVE_ERROR * exact * (1 + 1e-9)


def test_a_high_quantile_of_few_values_is_the_highest() -> None:
    """The 99th percentile of five answers is the slowest of them, not the second slowest."""
    assert sketch_of([1.0, 1.0, 1.0, 1.0, 9.0]).quantile(0.99) == pytest.approx(9.0, rel=RELATIVE_ERROR)


@given(MANY, MANY, MANY)
def test_merging_is_counting_everything_in_any_order(one: list[float], two: list[float], three: list[float]) -> None:
    """(a+b)+c = a+(b+c) = c+(b+a) = the sketch of all values together: exactly, not nearly."""
    left = sketch_of(one)
    left.merge(sketch_of(two))
    left.merge(sketch_of(three))
    tail = sketch_of(two)
    tail.merge(sketch_of(three))
    right = sketch_of(one)
    right.merge(tail)
    turned = sketch_of(three)
    turned.merge(sketch_of(two))
    turned.merge(sketch_of(one))

    assert left == sketch_of([*one, *two, *three])
    assert left == right
    assert left == turned


@given(MANY)
def test_a_sketch_survives_being_written(values: list[float]) -> None:
    """Through JSON and back it is the same sketch."""
    sketch = sketch_of(values)

    back = Sketch.from_plain(json.loads(json.dumps(sketch.to_plain())))

    assert back == sketch
    assert back.count == len(values)
    assert back.quantile(0.9) == sketch.quantile(0.9)


@given(st.lists(MEASURES, min_size=1, max_size=60))
def test_the_mean_is_exact_to_a_thousandth(values: list[float]) -> None:
    """The sum is kept beside the buckets."""
    assert sketch_of(values).mean == pytest.approx(math.fsum(values) / len(values), rel=1e-9, abs=0.0006)


def test_an_empty_sketch_has_no_quantile() -> None:
    """Nothing counted is None, not 0."""
    assert Sketch().quantile(0.5) is None
    assert Sketch().mean is None
    assert Sketch.from_plain({}) == Sketch()


def test_the_buckets_are_bounded() -> None:
    """Whatever is counted, what is kept stays under 1,500 numbers; values beyond the bounds count as the bounds."""
    sketch = sketch_of(10 ** (power / 100) for power in range(-2000, 3000))

    assert len(sketch.to_plain()["counts"]) < 1_500
    assert sketch.quantile(0) == 0
    assert sketch.quantile(1) == pytest.approx(MOST, rel=RELATIVE_ERROR)


@pytest.mark.parametrize("value", [-1.0, math.nan, math.inf, -math.inf])
def test_what_can_not_be_measured_is_refused(value: float) -> None:
    """A negative duration is a caller's mistake."""
    with pytest.raises(ValueError, match="finite"):
        Sketch().add(value)


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_share_is_from_0_to_1(share: float) -> None:
    """95 is not a share."""
    with pytest.raises(ValueError, match="share"):
        Sketch().quantile(share)


PLAIN = sketch_of([1.0, 2.0, 300.0]).to_plain()


@pytest.mark.parametrize(
    "change",
    [
        {"steps": None},
        {"steps": [1]},
        {"counts": [1, 1, 0]},
        {"counts": [1, 1, -5]},
        {"counts": [1, 1, 1.5]},
        {"counts": [True, 1, 1]},
        {"steps": [0, 0, 5]},
        {"steps": [0, 5, 10**9]},
        {"zeros": -1},
        {"zeros": None},
        {"total": -1},
        {"low": math.nan},
        {"high": "1"},
    ],
)
def test_what_is_no_sketch_is_refused(change: dict[str, Any]) -> None:
    """A damaged row is an error, not other quantiles."""
    with pytest.raises(ValueError, match=r"sketch|argument"):
        Sketch.from_plain({**PLAIN, **change})

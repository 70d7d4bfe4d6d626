"""Request ids tell their time and sort by it."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core import ids

MOMENTS = st.floats(min_value=0, max_value=2**48 / 1000 - 1)
DRAWS = st.integers(min_value=0, max_value=2**80 - 1)


def test_an_id_is_a_ulid() -> None:
    """The example of the ULID specification: its milliseconds and its randomness, in Crockford's letters."""
    assert ids.request_id(1469918176.385, 0) == "req_01ARYZ6S410000000000000000"
    assert ids.request_id(0, 2**80 - 1) == "req_0000000000ZZZZZZZZZZZZZZZZ"
    assert ids.request_id(0, 31) == "req_0000000000000000000000000Z"
    assert ids.request_id((2**48 - 1) / 1000, 2**80 - 1) == "req_7ZZZZZZZZZZZZZZZZZZZZZZZZZ"


@given(MOMENTS, DRAWS)
def test_the_time_comes_back(moment: float, draw: int) -> None:
    """Every id has the one form, and tells its time to the millisecond."""
    made = ids.request_id(moment, draw)

    assert re.fullmatch("req_[0-7][0-9A-HJKMNP-TV-Z]{25}", made)
    # Half a millisecond, and what a float can tell apart so far from 1970.
    assert abs(ids.time_of(made) - moment) <= 0.000_5 + moment * 2.0**-50


@given(MOMENTS, MOMENTS, DRAWS, DRAWS)
def test_ids_sort_by_time(one: float, other: float, first: int, second: int) -> None:
    """Of two ids made at least a millisecond apart the earlier one sorts first, whatever was drawn."""
    early, late = sorted([one, other])
    if late - early > 0.0011:
        assert ids.request_id(early, first) < ids.request_id(late, second)


@given(MOMENTS, DRAWS, DRAWS)
def test_another_draw_is_another_id(moment: float, first: int, second: int) -> None:
    """No bit of the draw is lost."""
    assert (ids.request_id(moment, first) == ids.request_id(moment, second)) == (first == second)


@given(MOMENTS, DRAWS)
def test_the_lowest_id_of_a_moment_bounds_it(moment: float, draw: int) -> None:
    """A range from the lowest id of a moment holds every id made then."""
    assert ids.lowest(moment) <= ids.request_id(moment, draw)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "req_",
        "req_1",
        "01ARYZ6S410000000000000000",
        "req_01ARYZ6S41000000000000000",
        "req_01ARYZ6S4100000000000000000",
        "req_81ARYZ6S410000000000000000",
        "req_01aryz6s410000000000000000",
        "req_01ARYZ6S41000000000000000U",
        "req_01ARYZ6S4100000000000000/0",
        "req_\u06601ARYZ6S410000000000000000",
        "key_01ARYZ6S410000000000000000",
    ],
)
def test_a_text_that_is_no_id_is_refused(text: str) -> None:
    """Only what `request_id` makes is read."""
    with pytest.raises(ValueError, match="request id"):
        ids.time_of(text)


@pytest.mark.parametrize("moment", [-1.0, float("nan"), float("inf"), 2**48 / 1000])
def test_a_time_that_does_not_fit_is_refused(moment: float) -> None:
    """A clock gone wild is an error, not an id of another time."""
    with pytest.raises(ValueError, match="time"):
        ids.request_id(moment, 0)


@pytest.mark.parametrize("draw", [-1, 2**80])
def test_a_draw_that_does_not_fit_is_refused(draw: int) -> None:
    """The draw is 80 bits."""
    with pytest.raises(ValueError, match="80 bits"):
        ids.request_id(0, draw)

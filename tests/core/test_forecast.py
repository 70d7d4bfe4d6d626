"""Forecasts: never below zero, never surer than the history allows, and not led astray by one day."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.core.forecast import COVERAGE, forecast

AMOUNTS = st.lists(st.integers(0, 10**18), max_size=90)


@given(daily=AMOUNTS, share=st.floats(0, 1), left=st.floats(0, 400), spent=st.integers(0, 10**18))
def test_a_forecast_lies_in_its_interval_and_above_zero(daily: list[int], share: float, left: float, spent: int) -> None:
    """Whatever the history, 0 <= spent <= low <= expected <= high, as far as they are known; shares are shares."""
    found = forecast(daily, elapsed_share=share, days_left=left, spent=spent)

    assert 0 <= spent <= found.low
    assert found.high is None or found.low <= found.high
    if found.expected is not None:
        assert found.low <= found.expected <= (found.expected if found.high is None else found.high)
    if found.backtest is not None:
        assert 0 <= found.backtest.within <= 1
        assert found.backtest_error is None or found.backtest_error >= 0


def test_even_days_are_foretold_exactly() -> None:
    """When each day costs the same, so will the rest, and the interval is as narrow as can be."""
    found = forecast([100] * 20 + [50], elapsed_share=0.5, days_left=10.5, spent=1_050)

    assert found.expected == 1_050 + 50 + 1_000
    assert (found.low, found.high) == (found.expected, found.expected)
    assert found.backtest is not None
    assert (found.backtest.within, found.backtest_error) == (1.0, 0.0)


def test_one_spike_changes_nothing() -> None:
    """A day a hundred times as dear as the others is not expected again."""
    quiet = [100] * 30
    spiked = [*quiet[:20], 10_000, *quiet[21:]]

    calm, found = (forecast([*days, 0], elapsed_share=0, days_left=10) for days in (quiet, spiked))

    assert found.expected == calm.expected == 1_000


def test_weekends_are_told_from_working_days() -> None:
    """With two weeks of history, the days to come are expected to go as their weekdays do."""
    week = [100, 100, 100, 100, 100, 10, 10]

    friday_evening = forecast([*week * 3, *week[:4], 100], elapsed_share=1, days_left=3)
    sooner = forecast([*week, *week[:5], 0], elapsed_share=0, days_left=3)

    assert friday_evening.expected == 10 + 10 + 100
    assert sooner.expected == 300  # too little to know weekdays by: the middle of all days


def test_today_counts_by_how_much_of_it_is_over() -> None:
    """Early in the day the usual day is expected, late the day as it went."""
    usual = [100] * 20

    early, late = (forecast([*usual, now], elapsed_share=share, days_left=1 - share) for now, share in ((10, 0.01), (900, 0.9)))

    assert early.expected == round(109 * 0.99)
    assert late.expected == round(910 * 0.1)


@pytest.mark.parametrize("daily", [[], [5], [5, 5], [5, 5, 5]])
def test_too_little_history_is_said(daily: list[int]) -> None:
    """With fewer than three whole days nothing is foretold but that what is spent is spent."""
    found = forecast(daily, elapsed_share=0.5, days_left=9, spent=15)

    assert (found.expected, found.low, found.high, found.backtest) == (None, 15, None, None)


def test_little_history_makes_a_wide_interval() -> None:
    """Few replays can't support a narrow interval: it is twice the worst miss."""
    found = forecast([100, 200, 100, 200, 150, 0], elapsed_share=0, days_left=1)

    assert found.expected is not None
    assert found.high is not None
    assert found.high - found.expected >= found.expected * 0.5


def test_a_period_that_is_over_is_known() -> None:
    """With no days left the forecast is what was spent."""
    found = forecast([1, 2, 3], elapsed_share=1, days_left=0, spent=6)

    assert (found.expected, found.low, found.high) == (6, 6, 6)


@pytest.mark.parametrize(("share", "left"), [(-0.1, 1), (1.1, 1), (0.5, -1), (0.5, float("inf")), (float("nan"), 1)])
def test_a_question_that_makes_no_sense_is_refused(share: float, left: float) -> None:
    """A share of today is from 0 to 1, and what is left is neither negative nor without end."""
    with pytest.raises(ValueError, match="share of today"):
        forecast([1, 2, 3, 4], elapsed_share=share, days_left=left)


@pytest.mark.parametrize("horizon", [1, 5])
def test_the_interval_holds_as_often_as_it_says(horizon: int) -> None:
    """On days of noisy spend with a weekly pattern, the stated share of intervals holds, within what chance allows."""
    draw = random.Random(7)
    held = 0
    for _ in range(400):
        days = [round(1_000_000 * (1.0 if day % 7 < 5 else 0.3) * draw.lognormvariate(0, 0.3)) for day in range(60 + horizon)]
        found = forecast([*days[:60], 0], elapsed_share=0, days_left=horizon)
        assert found.high is not None
        held += found.low <= sum(days[60:]) <= found.high

    assert COVERAGE - 0.08 <= held / 400 <= COVERAGE + 0.12

"""Budgets as values: periods without gap or overlap in every zone, and slices that keep to what is left."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.budgets import period_named
from shared.core.budgets import Balance, Budget, Cycle, Scope, ScopeKind, account_of, period_of, slice_of

HOUR = 3_600.0
ZONES = (
    *("UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "Asia/Kathmandu", "Australia/Lord_Howe", "Pacific/Apia"),
    *("Africa/Cairo", "Asia/Beirut", "Pacific/Kiritimati", "Etc/GMT+12", "America/St_Johns", "Antarctica/Troll", "Asia/Tehran"),
)
CYCLES = (Cycle.DAY, Cycle.WEEK, Cycle.MONTH)
MOMENTS = st.integers(0, 4_102_444_800_000).map(lambda milliseconds: milliseconds / 1000)  # 1970 to 2099; dates round to µs


def at(text: str) -> float:
    """Return a moment."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("cycle", "zone", "moment", "key", "start", "end"),
    [
        (Cycle.DAY, "UTC", "2026-11-23T00:00:00", "2026-11-23", "2026-11-23T00:00:00", "2026-11-24T00:00:00"),
        (Cycle.DAY, "UTC", "2026-11-22T23:59:59.999", "2026-11-22", "2026-11-22T00:00:00", "2026-11-23T00:00:00"),
        (Cycle.DAY, "Asia/Kathmandu", "2026-11-22T18:15:00", "2026-11-23", "2026-11-22T18:15:00", "2026-11-23T18:15:00"),
        (Cycle.DAY, "Pacific/Kiritimati", "2026-12-31T10:00:00", "2027-01-01", "2026-12-31T10:00:00", "2027-01-01T10:00:00"),
        # the day the clock goes forward has 23 hours, the day it goes back 25
        (Cycle.DAY, "Europe/Berlin", "2026-03-29T12:00:00", "2026-03-29", "2026-03-28T23:00:00", "2026-03-29T22:00:00"),
        (Cycle.DAY, "Europe/Berlin", "2026-10-25T12:00:00", "2026-10-25", "2026-10-24T22:00:00", "2026-10-25T23:00:00"),
        # the hour that comes twice is the same day both times
        (Cycle.DAY, "Europe/Berlin", "2026-10-25T00:30:00", "2026-10-25", "2026-10-24T22:00:00", "2026-10-25T23:00:00"),
        (Cycle.DAY, "Europe/Berlin", "2026-10-25T01:30:00", "2026-10-25", "2026-10-24T22:00:00", "2026-10-25T23:00:00"),
        # midnight is skipped: the day begins at one o'clock
        (Cycle.DAY, "America/Sao_Paulo", "2018-11-04T12:00:00", "2018-11-04", "2018-11-04T03:00:00", "2018-11-05T02:00:00"),
        # midnight comes twice: the day begins at the first
        (Cycle.DAY, "Asia/Beirut", "2026-10-24T21:30:00", "2026-10-24", "2026-10-23T21:00:00", "2026-10-24T22:00:00"),
        # a day that never was lies between these two
        (Cycle.DAY, "Pacific/Apia", "2011-12-30T09:59:59", "2011-12-29", "2011-12-29T10:00:00", "2011-12-30T10:00:00"),
        (Cycle.DAY, "Pacific/Apia", "2011-12-30T10:00:00", "2011-12-31", "2011-12-30T10:00:00", "2011-12-31T10:00:00"),
        # half an hour of daylight saving
        (Cycle.DAY, "Australia/Lord_Howe", "2026-10-04T00:00:00", "2026-10-04", "2026-10-03T13:30:00", "2026-10-04T13:00:00"),
        (Cycle.WEEK, "UTC", "2026-11-22T23:59:59", "2026-W47", "2026-11-16T00:00:00", "2026-11-23T00:00:00"),
        (Cycle.WEEK, "UTC", "2026-11-23T00:00:00", "2026-W48", "2026-11-23T00:00:00", "2026-11-30T00:00:00"),
        # a week belongs to the year of its Thursday
        (Cycle.WEEK, "UTC", "2027-01-02T12:00:00", "2026-W53", "2026-12-28T00:00:00", "2027-01-04T00:00:00"),
        (Cycle.WEEK, "UTC", "2024-12-31T12:00:00", "2025-W01", "2024-12-30T00:00:00", "2025-01-06T00:00:00"),
        (Cycle.WEEK, "Europe/Berlin", "2026-10-25T23:30:00", "2026-W44", "2026-10-25T23:00:00", "2026-11-01T23:00:00"),
        (Cycle.MONTH, "UTC", "2028-02-29T23:59:59", "2028-02", "2028-02-01T00:00:00", "2028-03-01T00:00:00"),
        (Cycle.MONTH, "UTC", "2027-02-28T23:59:59", "2027-02", "2027-02-01T00:00:00", "2027-03-01T00:00:00"),
        (Cycle.MONTH, "UTC", "2026-12-31T23:59:59.999", "2026-12", "2026-12-01T00:00:00", "2027-01-01T00:00:00"),
        (Cycle.MONTH, "America/New_York", "2027-01-01T04:59:59", "2026-12", "2026-12-01T05:00:00", "2027-01-01T05:00:00"),
        (Cycle.MONTH, "Europe/Berlin", "2026-03-31T22:00:00", "2026-04", "2026-03-31T22:00:00", "2026-04-30T22:00:00"),
    ],
)
def test_a_period_begins_and_ends_where_its_zone_says(
    cycle: Cycle, zone: str, moment: str, key: str, start: str, end: str
) -> None:
    """Also where a day has 23, 24.5 or 25 hours, no midnight or two, and where years and weeks disagree."""
    period = period_of(cycle, zone, at(moment))
    assert (key, at(start), at(end)) == (period.key, period.start, period.end)


def test_a_total_has_no_end() -> None:
    """It is one period for ever."""
    period = period_of(Cycle.TOTAL, "UTC", 0.0)
    assert ("total", None, None) == (period.key, period.start, period.end)
    assert period == period_of(Cycle.TOTAL, "Mars/Olympus", 4e9)


def test_a_zone_that_does_not_exist_is_an_error() -> None:
    """Nothing is guessed."""
    with pytest.raises(zoneinfo.ZoneInfoNotFoundError):
        period_of(Cycle.DAY, "Mars/Olympus", 0.0)


@given(st.sampled_from(CYCLES), st.sampled_from(ZONES), MOMENTS)
def test_every_moment_is_in_exactly_one_period(cycle: Cycle, zone: str, moment: float) -> None:
    """Its own: periods meet without gap or overlap, and their keys sort as they follow each other."""
    period = period_of(cycle, zone, moment)
    assert period.start is not None
    assert period.end is not None
    assert period.start <= moment < period.end
    assert period == period_of(cycle, zone, period.start)
    before, after = period_of(cycle, zone, period.start - 1e-3), period_of(cycle, zone, period.end)
    assert (before.end, after.start) == (period.start, period.end)
    assert before.key < period.key < after.key


@given(st.sampled_from([*CYCLES, Cycle.TOTAL]), st.sampled_from(ZONES), MOMENTS)
def test_a_period_is_found_by_its_key(cycle: Cycle, zone: str, moment: float) -> None:
    """What a moment's period is called is enough to show it again."""
    period = period_of(cycle, zone, moment)
    assert period == period_named(cycle, zone, period.key)


@given(st.sampled_from(list(Cycle)), st.text(alphabet="0123456789-Wtoal", max_size=12))
def test_a_key_names_its_own_period_or_none(cycle: Cycle, key: str) -> None:
    """Whatever is asked for, nothing breaks and no other period is shown."""
    period = period_named(cycle, "Europe/Berlin", key)
    assert period is None or period.key == key


@pytest.mark.parametrize(
    ("cycle", "zone", "key"),
    [
        (Cycle.DAY, "UTC", "2026-02-30"),
        (Cycle.DAY, "UTC", "2026-02-29"),
        (Cycle.DAY, "Pacific/Apia", "2011-12-30"),  # the day Samoa skipped
        (Cycle.WEEK, "UTC", "2025-W53"),
        (Cycle.WEEK, "UTC", "2025-W00"),
        (Cycle.MONTH, "UTC", "2026-13"),
        (Cycle.MONTH, "UTC", "2026-00"),
        (Cycle.MONTH, "UTC", "0000-01"),
        (Cycle.MONTH, "UTC", "9999-12"),
        (Cycle.MONTH, "UTC", "2026-1"),
        (Cycle.TOTAL, "UTC", "2026-10"),
        (Cycle.MONTH, "UTC", "total"),
    ],
)
def test_a_key_that_no_period_has_names_none(cycle: Cycle, zone: str, key: str) -> None:
    """Days that were skipped, weeks a year does not have, another cycle's keys."""
    assert period_named(cycle, zone, key) is None


def test_an_account_is_a_budget_in_a_period() -> None:
    """Its id and period are what money is kept under; its limit is the budget's."""
    budget = Budget("b", "b", Scope(ScopeKind.BOUND), 5, Cycle.MONTH, hard=False, time_zone="America/New_York")
    account = account_of(budget, at("2027-01-01T04:59:59"))
    assert ("b", "2026-12", 5, False) == (account.budget, account.period, account.limit, account.hard)


AMOUNTS = st.integers(min_value=0, max_value=10**18)


@given(AMOUNTS, AMOUNTS, st.floats(min_value=0, max_value=1e15, allow_nan=False), st.integers(min_value=0, max_value=1_000))
def test_a_slice_is_between_what_is_needed_and_what_is_left(need: int, left: int, rate: float, leases: int) -> None:
    """Never more than is left; never less than is needed where that is there; otherwise no more than its part."""
    taken = slice_of(need, left=left, rate=rate, open_leases=leases)

    assert isinstance(taken, int)
    assert 0 <= taken <= left
    assert taken >= min(need, left)
    if taken > need:
        assert taken <= left * 0.25 / (leases + 1) + 1
        assert taken <= rate * 2 + 1


@given(AMOUNTS, st.integers(min_value=1, max_value=50), st.integers(min_value=1, max_value=10**9))
def test_slices_never_add_up_to_more_than_there_was(left: int, leases: int, need: int) -> None:
    """However many leases take theirs one after the other."""
    total = 0
    for lease in range(leases):
        total += slice_of(need, left=left - total, rate=1e12, open_leases=lease)
    assert total <= left


@pytest.mark.parametrize(
    ("left", "share", "limit", "spent", "held"),
    [(6, 0.4, 10, 3, 1), (0, 1.2, 10, 12, 0), (0, 1.0, 10, 0, 10), (0, 1.0, 0, 0, 0), (10, 0.0, 10, 0, 0)],
)
def test_a_balance_says_what_is_left(left: int, share: float, limit: int, spent: int, held: int) -> None:
    """Never below zero, also when a soft budget or a late bill went beyond."""
    balance = Balance(limit, spent, held)
    assert left == balance.left
    assert share == balance.share


def test_values_are_frozen() -> None:
    """A budget is replaced, not changed."""
    budget: Any = Budget("b", "b", Scope(ScopeKind.BOUND), 1, Cycle.DAY)
    with pytest.raises(AttributeError):
        budget.limit = 2

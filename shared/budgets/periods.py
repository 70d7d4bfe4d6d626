"""The period that a key such as ``2026-10`` names. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date, datetime, time
from typing import Final
from zoneinfo import ZoneInfo

from shared.core.budgets import Cycle, Period, period_of

_FIRST_YEAR: Final = 1969  # where the epoch began, west of Greenwich
_LAST_YEAR: Final = 9998


def period_named(cycle: Cycle, time_zone: str, key: str) -> Period | None:
    """Return the period of that key, None when the cycle has none (``2026-02-30``, ``2025-W53``, a day its zone skipped)."""
    if cycle is Cycle.TOTAL:
        return period_of(cycle, time_zone, 0.0) if key == "total" else None
    form, day_in = _FORMS[cycle]
    found = form.fullmatch(key)
    if found is None or not _FIRST_YEAR <= int(found[1]) <= _LAST_YEAR:
        return None
    try:
        day = day_in(found)
    except ValueError:
        return None
    noon = datetime.combine(day, time(12), ZoneInfo(time_zone)).timestamp()
    period = period_of(cycle, time_zone, noon)
    return period if period.key == key else None


def _day(found: re.Match[str]) -> date:
    return date(int(found[1]), int(found[2]), int(found[3]))


def _week(found: re.Match[str]) -> date:
    return date.fromisocalendar(int(found[1]), int(found[2]), 4)


def _month(found: re.Match[str]) -> date:
    return date(int(found[1]), int(found[2]), 15)


_FORMS: Final[dict[Cycle, tuple[re.Pattern[str], Callable[[re.Match[str]], date]]]] = {
    Cycle.DAY: (re.compile(r"(\d{4})-(\d{2})-(\d{2})", re.ASCII), _day),
    Cycle.WEEK: (re.compile(r"(\d{4})-W(\d{2})", re.ASCII), _week),
    Cycle.MONTH: (re.compile(r"(\d{4})-(\d{2})", re.ASCII), _month),
}

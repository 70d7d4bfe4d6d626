"""Budgets as values: whom they cover, for which stretch of time, how much is left, and what happens at the end.

Amounts are integer nano-USD. A budget's period is part of the key its money is kept under, so nothing is ever reset: a new
month is a new row, and a request settles in the period it was admitted in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from functools import lru_cache
from typing import Final
from zoneinfo import ZoneInfo

MAX_LIMIT: Final = 10**18
"""Nano-USD: a billion dollars. Sums of limits stay well within 64 bits."""
MAX_ACCOUNTS: Final = 16
"""Budgets that one call may be charged to."""


class ScopeKind(StrEnum):
    """What a budget covers."""

    ORGANIZATION = "organization"  # every call
    PROJECT = "project"
    KEY = "key"
    MODEL = "model"
    BOUND = "bound"  # only the keys that name the budget, and budgets below it


@dataclass(frozen=True, slots=True)
class Scope:
    """Whom a budget covers: every call of this project, key or model. ``name`` is "" for organization and bound."""

    kind: ScopeKind
    name: str = ""


class Cycle(StrEnum):
    """How long a budget's limit is for."""

    DAY = "day"
    WEEK = "week"  # from Monday
    MONTH = "month"
    TOTAL = "total"


class AtEnd(StrEnum):
    """What happens when the money runs out."""

    REJECT = "reject"
    DOWNGRADE = "downgrade"  # cheaper routes from `downgrade_at` on, then reject
    CLAMP = "clamp"  # answers as long as what is left affords, down to `floor_tokens`, then reject


@dataclass(frozen=True, slots=True)
class Budget:
    """A limit on what a scope may cost in each period.

    ``limit`` is nano-USD. A ``hard`` budget is never exceeded; a soft one only tells. ``parent`` names a budget whose limit
    covers this one's calls as well. ``thresholds`` are shares of the limit (0..1] that raise an alert once a period;
    ``downgrade_at`` is the share from which the router prefers cheap. ``webhook`` is told of alerts.
    """

    id: str
    name: str
    scope: Scope
    limit: int
    cycle: Cycle
    hard: bool = True
    time_zone: str = "UTC"
    parent: str | None = None
    thresholds: tuple[float, ...] = (0.5, 0.8, 1.0)
    at_end: AtEnd = AtEnd.REJECT
    downgrade_at: float = 0.8
    floor_tokens: int = 64
    webhook: str | None = field(default=None, repr=False)  # such a URL may hold a token
    enabled: bool = True
    created_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Period:
    """One stretch of a cycle: its key, sortable within a cycle, and its bounds in seconds since the epoch (None: unbounded)."""

    key: str
    start: float | None
    end: float | None


@dataclass(frozen=True, slots=True)
class Account:
    """A budget in one period: what a call is charged to. ``limit`` is nano-USD."""

    budget: str
    period: str
    limit: int
    hard: bool


@dataclass(frozen=True, slots=True)
class Balance:
    """What has happened to an account so far, in nano-USD: ``spent`` is settled, ``held`` may yet be."""

    limit: int
    spent: int = 0
    held: int = 0

    @property
    def left(self) -> int:
        """What could still be held; never below 0."""
        return max(0, self.limit - self.spent - self.held)

    @property
    def share(self) -> float:
        """The part of the limit that is spent or held."""
        return (self.spent + self.held) / self.limit if self.limit > 0 else 1.0


def period_of(cycle: Cycle, time_zone: str, moment: float) -> Period:
    """Return the period a moment (seconds since the epoch) belongs to; raise `zoneinfo.ZoneInfoNotFoundError`."""
    if cycle is Cycle.TOTAL:
        return Period("total", None, None)
    zone = ZoneInfo(time_zone)
    day = datetime.fromtimestamp(moment, zone).date()
    return _period(cycle, time_zone, day)


def account_of(budget: Budget, moment: float) -> Account:
    """Return the account a call that begins at this moment is charged to."""
    return Account(budget.id, period_of(budget.cycle, budget.time_zone, moment).key, budget.limit, budget.hard)


def slice_of(need: int, *, left: int, rate: float, open_leases: int, horizon: float = 2.0, share: float = 0.25) -> int:
    """Return how much of ``left`` a lease takes at once: what it will need soon, but only its part of what is left.

    ``rate`` is nano-USD a second. Never below ``need`` (the caller has checked that it is there), so near the end a lease
    holds exactly what one call needs.
    """
    wanted = min(int(rate * horizon), int(left * share / (open_leases + 1)))
    return min(left, max(need, wanted))


@lru_cache(maxsize=512)
def _period(cycle: Cycle, time_zone: str, day: date) -> Period:
    first, beyond, key = _BOUNDS[cycle](day)
    return Period(key, _midnight(first, time_zone), _midnight(beyond, time_zone))


def _midnight(day: date, time_zone: str) -> float:
    """Return when a day begins there. Where the clock skips midnight, that is the first moment after it."""
    return datetime.combine(day, time.min, ZoneInfo(time_zone)).astimezone(UTC).timestamp()


def _day(day: date) -> tuple[date, date, str]:
    return day, day + timedelta(days=1), day.isoformat()


def _week(day: date) -> tuple[date, date, str]:
    year, week, weekday = day.isocalendar()
    first = day - timedelta(days=weekday - 1)
    return first, first + timedelta(days=7), f"{year:04}-W{week:02}"


def _month(day: date) -> tuple[date, date, str]:
    first = day.replace(day=1)
    return first, (first + timedelta(days=32)).replace(day=1), f"{day.year:04}-{day.month:02}"


_BOUNDS: Final = {Cycle.DAY: _day, Cycle.WEEK: _week, Cycle.MONTH: _month}

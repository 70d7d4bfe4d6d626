"""What will have been spent at a period's end, from what was spent on each day: a number, an interval, and how well it did.

The expected day is the median of the days before, by the weekday once there are two whole weeks: a median does not follow one
spike. The interval holds in 8 of 10 cases, as far as days resemble each other: its width comes from how far the same method
missed on this very history (the back-test), never from an assumption about its distribution. Pure: integers in, integers out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

COVERAGE: Final = 0.8
"""The share of cases in which the interval is meant to hold."""
WEEK: Final = 7
MIN_DAYS: Final = 3
"""Whole days without which nothing is foretold."""
_MAX_DAYS: Final = 56
"""Days looked at: what was two months ago says little about tomorrow."""
_MAX_REPLAYS: Final = 42
_LITTLE: Final = 8
"""Replays without which the interval is as wide as the worst of them, twice."""


@dataclass(frozen=True, slots=True)
class BackTest:
    """How the method did on this history: ``replays`` periods foretold from the days before them.

    ``within`` is the share of them that ended inside their interval, ``error`` the mean distance from what came, as a share of
    it (None when nothing was ever spent).
    """

    replays: int
    within: float
    error: float | None


@dataclass(frozen=True, slots=True)
class Forecast:
    """Nano-USD at the period's end: 0 <= low <= expected <= high. ``high`` None means that there is no telling how much.

    ``days`` is how many whole days it is made from; ``backtest_error`` None when there are too few to replay.
    """

    expected: int | None
    low: int
    high: int | None
    coverage: float
    days: int
    backtest: BackTest | None

    @property
    def backtest_error(self) -> float | None:
        """The mean error of the back-test as a share."""
        return None if self.backtest is None else self.backtest.error


def forecast(
    daily: Sequence[int], *, elapsed_share: float, days_left: float, spent: int = 0, coverage: float = COVERAGE
) -> Forecast:
    """Foretell what a period will have cost.

    ``daily`` is the spend of each day, oldest first, the last one today's so far; ``elapsed_share`` is how much of today is
    over (0..1), ``days_left`` how many days of the period come after now, today's rest included. ``spent`` is what the period
    has cost so far, today included; without it the answer is what is to come. Raise `ValueError` for a share or a number of
    days that is none.
    """
    if not 0 <= elapsed_share <= 1 or not 0 <= days_left < math.inf:
        message = "A forecast needs a share of today from 0 to 1, and a number of days left."
        raise ValueError(message)
    days = [max(0, amount) for amount in daily]
    history, today = days[:-1][-_MAX_DAYS:], days[-1] if days else 0
    so_far = max(0, spent)
    if days_left == 0:
        return Forecast(so_far, so_far, so_far, coverage, len(history), None)
    if len(history) < MIN_DAYS:
        return Forecast(None, so_far, None, coverage, len(history), None)
    rest = _rest(history, today, elapsed_share=elapsed_share, days_left=days_left)
    horizon = max(1, math.ceil(days_left))
    misses = _misses(history, horizon)
    if not misses:
        return Forecast(so_far + rest, so_far, None, coverage, len(history), None)
    below, above = _margins(misses, coverage)
    low, high = max(0, rest - _scaled(below, rest)), rest + _scaled(above, rest)
    return Forecast(so_far + rest, so_far + low, so_far + high, coverage, len(history), _back_test(misses, coverage))


def _rest(history: list[int], today: int, *, elapsed_share: float, days_left: float) -> int:
    """Return what is to come: the rest of today, as today goes, and the days after it."""
    rest_of_today = min(1.0 - elapsed_share, days_left)
    ahead = days_left - rest_of_today
    whole, part = int(ahead), ahead - int(ahead)
    coming = _expected_days(history, whole + 2)
    # Today goes as its weekday does, and the more of it is over, as it has gone so far.
    a_day_like_today = coming[0] * (1 - elapsed_share) + today
    return round(a_day_like_today * rest_of_today) + round(sum(coming[1 : whole + 1]) + coming[whole + 1] * part)


def _expected_days(history: list[int], days: int) -> list[float]:
    """Return what each of the days after a history is expected to cost: today, tomorrow and so on."""
    level = float(median(history[-WEEK * 2 :]))
    if len(history) < 2 * WEEK:
        return [level] * days
    # The day that comes next is as the same weekday was, a week and more ago; the last four of it are enough.
    weekdays = [float(median(history[-WEEK + at :: -WEEK][:4])) for at in range(WEEK)]
    return [weekdays[day % WEEK] for day in range(days)]


def _misses(history: list[int], horizon: int) -> list[tuple[int, int]]:
    """Replay: return what was foretold and what came, for each stretch of that many days the history has room for."""
    stretch = min(horizon, max(1, len(history) - MIN_DAYS), 2 * WEEK)
    first = max(MIN_DAYS, len(history) - stretch - _MAX_REPLAYS + 1)
    return [
        (round(sum(_expected_days(history[:at], stretch))), sum(history[at : at + stretch]))
        for at in range(first, len(history) - stretch + 1)
    ]


def _margins(misses: Sequence[tuple[int, int]], coverage: float) -> tuple[float, float]:
    """Return how far below and above what was foretold an amount may come, as shares of it, in that share of cases."""
    shares = sorted((came - told) / max(told, 1) for told, came in misses)
    tail = (1 - coverage) / 2
    if len(shares) < _LITTLE:
        return max(0.0, -2 * shares[0]), max(0.0, 2 * shares[-1])
    # With n replays the next case is beyond the k-th smallest in k of n + 1 cases.
    place = max(0, math.floor(tail * (len(shares) + 1)) - 1)
    return max(0.0, -shares[place]), max(0.0, shares[-1 - place])


def _back_test(misses: list[tuple[int, int]], coverage: float) -> BackTest | None:
    """Return how each replay did with margins from the others: none is judged by itself."""
    if len(misses) < 2:  # noqa: PLR2004 - one has no others
        return None
    within = 0
    for at, (told, came) in enumerate(misses):
        below, above = _margins(misses[:at] + misses[at + 1 :], coverage)
        within += told - _scaled(below, told) <= came <= told + _scaled(above, told)
    spent = [(told, came) for told, came in misses if came > 0]
    error = sum(abs(told - came) / came for told, came in spent) / len(spent) if spent else None
    return BackTest(len(misses), within / len(misses), error)


def _scaled(share: float, amount: int) -> int:
    return math.ceil(share * max(amount, 1))

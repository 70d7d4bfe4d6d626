"""Timer schedules as the Functions host writes them: six fields, seconds first. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Final

_RANGES: Final = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6))


@dataclass(frozen=True, slots=True)
class Schedule:
    """The seconds, minutes, hours, days, months and weekdays (Sunday is 0) at which a timer fires."""

    fields: tuple[frozenset[int], ...]

    def due(self, moment: datetime) -> bool:
        """Say whether the timer fires in this second."""
        now = (moment.second, moment.minute, moment.hour, moment.day, moment.month, moment.isoweekday() % 7)
        return all(value in field for value, field in zip(now, self.fields, strict=True))


def parse_schedule(text: str) -> Schedule:
    """Read a schedule such as ``*/30 * * * * *``; raise `ValueError` for one it does not understand."""
    parts = text.split()
    if len(parts) != len(_RANGES):
        message = f"A schedule has six fields, seconds first: {text!r}"
        raise ValueError(message)
    return Schedule(tuple(_field(part, *bounds) for part, bounds in zip(parts, _RANGES, strict=True)))


def _field(text: str, low: int, high: int) -> frozenset[int]:
    found: set[int] = set()
    for part in text.split(","):
        span, _, step = part.partition("/")
        first, _, last = span.partition("-")
        begin = low if first == "*" else int(first)
        end = high if first == "*" or (step and not last) else int(last or first)
        if not low <= begin <= end <= high:
            message = f"Not between {low} and {high}: {part!r}"
            raise ValueError(message)
        found.update(range(begin, end + 1, int(step or 1)))
    return frozenset(found)

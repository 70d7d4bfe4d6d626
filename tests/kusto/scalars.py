"""The scalar functions that queries here use: name → what it gives of its arguments' values.

Null gives null unless the documentation of a function says otherwise.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final

from tests.kusto import values
from tests.kusto.values import UnsupportedError, Value

DATE_PARTS: Final[Mapping[str, Callable[[datetime], int]]] = {
    "year": lambda time: time.year,
    "quarter": lambda time: time.year * 4 + (time.month - 1) // 3,
    "month": lambda time: time.year * 12 + time.month,
    "week": lambda time: (time - values.EPOCH + timedelta(days=1)) // timedelta(days=7),
    "day": lambda time: (time - values.EPOCH) // timedelta(days=1),
    "hour": lambda time: (time - values.EPOCH) // timedelta(hours=1),
    "minute": lambda time: (time - values.EPOCH) // timedelta(minutes=1),
    "second": lambda time: (time - values.EPOCH) // timedelta(seconds=1),
    "millisecond": lambda time: (time - values.EPOCH) // timedelta(milliseconds=1),
}
"""What `datetime_diff` counts: boundaries that lie between two times."""
_FORMATS: Final = {
    "yyyy": "%Y",
    "yy": "%y",
    "MM": "%m",
    "dd": "%d",
    "HH": "%H",
    "hh": "%I",
    "mm": "%M",
    "ss": "%S",
    "tt": "%p",
}
_TICK: Final = timedelta(microseconds=1)
"""Kusto's is 100 ns; the end of a period is one before the next period's begin."""


def month_of(time: datetime, offset: int = 0) -> datetime:
    """Return the begin of a time's month, or of one some months off."""
    months = time.year * 12 + time.month - 1 + offset
    return datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC)


def day_of(time: datetime, offset: int = 0) -> datetime:
    """Return the begin of a time's day, or of one some days off."""
    return time.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=offset)


def week_of(time: datetime, offset: int = 0) -> datetime:
    """Return the begin of a time's week, a Sunday."""
    return day_of(time, offset * 7 - (time.weekday() + 1) % 7)


def date_add(part: str, amount: int, time: datetime) -> datetime:
    """Return ``datetime_add``."""
    if part in {"month", "year"}:
        begin = month_of(time, amount * (12 if part == "year" else 1))
        last = (month_of(begin, 1) - begin).days
        return begin + timedelta(days=min(time.day, last) - 1) + (time - day_of(time))
    return time + amount * timedelta(**{f"{part}s": 1})


def date_diff(part: str, left: datetime, right: datetime) -> int:
    """Return ``datetime_diff``: how many begins of the part lie between."""
    count = DATE_PARTS[part]
    return count(left) - count(right)


def format_datetime(time: datetime, form: str) -> str:
    """Return a time in .NET's letters."""
    pieces = re.findall(r"[A-Za-z]+|[^A-Za-z]+", form)
    unknown = [piece for piece in pieces if piece[0].isalpha() and piece not in _FORMATS]
    if unknown:
        message = f"format_datetime with {unknown[0]!r}"
        raise UnsupportedError(message)
    return "".join(time.strftime(_FORMATS[piece]) if piece in _FORMATS else piece for piece in pieces)


def rounded(value: float, digits: int = 0) -> float:
    """Return ``round``: of the decimal digits the number is written with."""
    if not math.isfinite(value):
        return value
    return float(Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), ROUND_HALF_EVEN))


def extract(pattern: str, group: int, text: str) -> str:
    """Return a group of a pattern's first match, "" when there is none."""
    found = re.search(pattern, text)
    return "" if found is None else found[group]


def split(text: str, by: str, index: int | None = None) -> list[str]:
    """Return a text's pieces, or one of them in a list."""
    pieces = text.split(by)
    return pieces if index is None else pieces[index : index + 1]


def array_index_of(array: list[Value], sought: Value) -> int:
    """Return where a value stands first, -1 when nowhere."""
    return array.index(sought) if sought in array else -1


STRICT: Final[Mapping[str, Callable[..., Value]]] = {
    "abs": abs,
    "array_index_of": array_index_of,
    "array_length": len,
    "array_sum": sum,
    "bag_keys": list,
    "bin": values.floor_to,
    "bin_at": lambda value, size, fixed: fixed + (value - fixed) // size * size,
    "ceiling": lambda value: float(math.ceil(value)),
    "datetime_add": date_add,
    "datetime_diff": date_diff,
    "dayofmonth": lambda time: time.day,
    "dayofweek": lambda time: timedelta(days=(time.weekday() + 1) % 7),
    "endofday": lambda time, offset=0: day_of(time, offset + 1) - _TICK,
    "endofmonth": lambda time, offset=0: month_of(time, offset + 1) - _TICK,
    "extract": extract,
    "floor": values.floor_to,
    "format_datetime": format_datetime,
    "getmonth": lambda time: time.month,
    "getyear": lambda time: time.year,
    "hourofday": lambda time: time.hour,
    "indexof": lambda text, sought: text.find(sought),
    "isfinite": math.isfinite,
    "isinf": math.isinf,
    "isnan": math.isnan,
    "make_timespan": lambda hours, minutes, seconds=0: timedelta(hours=hours, minutes=minutes, seconds=seconds),
    "monthofyear": lambda time: time.month,
    "not": lambda value: not value,
    "pow": lambda base, exponent: float(base) ** exponent,
    "replace_string": lambda text, old, new: text.replace(old, new),
    "round": rounded,
    "sign": lambda value: (value > 0) - (value < 0),
    "split": split,
    "sqrt": math.sqrt,
    "startofday": day_of,
    "startofmonth": month_of,
    "startofweek": week_of,
    "strlen": len,
    "substring": lambda text, start, length=None: text[start:] if length is None else text[start : start + length],
    "tolower": str.lower,
    "toupper": str.upper,
    "unixtime_seconds_todatetime": lambda seconds: datetime.fromtimestamp(seconds, UTC),
    "trim": lambda pattern, text: re.sub(rf"^(?:{pattern})|(?:{pattern})$", "", text),
}
"""Functions that give null when any argument is null."""

NULLABLE: Final[Mapping[str, Callable[..., Value]]] = {
    "isempty": lambda value: value is None or value == "",
    "isnotempty": lambda value: value not in {None, ""} if not isinstance(value, dict | list) else True,
    "isnotnull": lambda value: value is not None,
    "isnull": lambda value: value is None,
    "max_of": lambda *given: max((value for value in given if value is not None), default=None),
    "min_of": lambda *given: min((value for value in given if value is not None), default=None),
    "notempty": lambda value: value not in {None, ""},
    "pack_array": lambda *given: list(given),
    "parse_json": values.to_dynamic,
    "strcat": lambda *given: "".join(values.to_string(value) for value in given),
    "tobool": values.to_bool,
    "todatetime": values.to_datetime,
    "todouble": values.to_real,
    "todynamic": values.to_dynamic,
    "toint": values.to_long,
    "tolong": values.to_long,
    "toreal": values.to_real,
    "tostring": values.to_string,
    "totimespan": values.to_timespan,
}
"""Functions that say themselves what null gives."""


def pack(*given: Value) -> dict[str, Value]:
    """Return ``bag_pack``: names and values in turn."""
    return dict(zip(given[::2], given[1::2], strict=True))


def call(name: str, arguments: list[Value]) -> Value:
    """Return what a function gives; raise `UnsupportedError` for one that is not here."""
    if name in {"pack", "bag_pack"}:
        return pack(*arguments)
    if name in NULLABLE:
        return NULLABLE[name](*arguments)
    if name not in STRICT:
        message = f"the function {name}()"
        raise UnsupportedError(message)
    return None if any(value is None for value in arguments) else STRICT[name](*arguments)

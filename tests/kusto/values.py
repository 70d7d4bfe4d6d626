"""Kusto's scalar values, as Python's, and what comparing, adding and converting them gives.

=========  ============================================
Kusto      here
=========  ============================================
string     str; there is no null string, only ""
long, int  int
real       float
bool       bool
datetime   datetime in UTC (to the microsecond: Kusto keeps 100 ns)
timespan   timedelta
dynamic    what `json.loads` gives
null       None
=========  ============================================

Source of the rules: Microsoft, Kusto Query Language reference (null values, scalar data types, operators). What is not written
there, or is not needed here, raises `UnsupportedError`: a guess would prove nothing.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

Value = Any
Row = Mapping[str, Value]

EPOCH: Final = datetime(1, 1, 1, tzinfo=UTC)
"""Where bins of times begin."""
_UNITS: Final = {
    "d": timedelta(days=1),
    "h": timedelta(hours=1),
    "m": timedelta(minutes=1),
    "s": timedelta(seconds=1),
    "ms": timedelta(milliseconds=1),
    "microsecond": timedelta(microseconds=1),
    "day": timedelta(days=1),
    "days": timedelta(days=1),
    "hour": timedelta(hours=1),
    "hours": timedelta(hours=1),
    "minute": timedelta(minutes=1),
    "minutes": timedelta(minutes=1),
    "second": timedelta(seconds=1),
    "seconds": timedelta(seconds=1),
}


class UnsupportedError(Exception):
    """A query uses what this evaluator does not know: teach it, with a test of what Microsoft's documentation says."""


def absent(kind: str) -> Value:
    """Return what stands where nothing is: strings have no null."""
    return "" if kind == "string" else None


# ---- comparing -----------------------------------------------------------------------------------------------------------


def equal(left: Value, right: Value) -> bool | None:
    """Return ``==``: null of two nulls, False of one."""
    if left is None or right is None:
        return None if left is right else False
    return bool(_plain(left) == _plain(right))


def compare(left: Value, right: Value) -> int | None:
    """Return -1, 0 or 1, and None when either is null."""
    if left is None or right is None:
        return None
    return int(left > right) - int(left < right)


def sort_key(value: Value) -> tuple[int, Value]:
    """Return what values sort by, ascending: nulls come first."""
    if value is None:
        return (0, 0)
    return (1, json.dumps(value) if isinstance(value, dict | list) else value)


def group_key(value: Value) -> Value:
    """Return something hashable that two values share when they are of one group."""
    if isinstance(value, dict | list):
        return json.dumps(value, sort_keys=True)
    return (isinstance(value, bool), value)


def _plain(value: Value) -> Value:
    return int(value) if isinstance(value, bool) else value


# ---- arithmetic ----------------------------------------------------------------------------------------------------------


def add(left: Value, right: Value) -> Value:
    """Return ``+``."""
    return None if left is None or right is None else left + right


def subtract(left: Value, right: Value) -> Value:
    """Return ``-``."""
    return None if left is None or right is None else left - right


def multiply(left: Value, right: Value) -> Value:
    """Return ``*``."""
    return None if left is None or right is None else left * right


def divide(left: Value, right: Value) -> Value:
    """Return ``/``: whole numbers give a whole number, cut off; reals may give infinity."""
    if left is None or right is None:
        return None
    if isinstance(left, int) and isinstance(right, int):
        return None if right == 0 else int(math.copysign(abs(left) // abs(right), left * right))
    if right in {0, timedelta(0)}:
        if isinstance(left, timedelta):
            return None
        return math.nan if left == 0 or math.isnan(left) else math.copysign(math.inf, left)
    return left / right


def modulo(left: Value, right: Value) -> Value:
    """Return ``%`` of whole numbers: never negative."""
    return None if left is None or right in {None, 0} else left % abs(right)


def floor_to(value: Value, size: Value) -> Value:
    """Return ``bin``: the greatest multiple of a size that is not above the value."""
    if value is None or not size:
        return None
    if isinstance(value, datetime):
        return EPOCH + (value - EPOCH) // size * size
    return value // size * size


# ---- converting ----------------------------------------------------------------------------------------------------------


def to_string(value: Value) -> str:
    """Return ``tostring``: "" of null."""
    match value:
        case None:
            return ""
        case str():
            return value
        case int() | float() if not isinstance(value, bool):
            return str(value)
        case datetime():
            return value.strftime("%Y-%m-%dT%H:%M:%S.%f") + "0Z"
        case dict() | list():
            return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    message = f"tostring of {type(value).__name__}"
    raise UnsupportedError(message)


def to_long(value: Value) -> int | None:
    """Return ``tolong`` or ``toint``: null of a text that is no whole number."""
    if isinstance(value, str):
        return int(value) if re.fullmatch(r"\s*[+-]?\d+\s*", value) else None
    return None if value is None or (isinstance(value, float) and not math.isfinite(value)) else int(value)


def to_real(value: Value) -> float | None:
    """Return ``todouble`` or ``toreal``: null of a text that is no number."""
    if isinstance(value, str):
        return float(value) if re.fullmatch(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", value) else None
    return None if value is None else float(value)


def to_bool(value: Value) -> bool | None:
    """Return ``tobool``: of the words true and false in any case, and of numbers."""
    if isinstance(value, str):
        return {"true": True, "false": False, "1": True, "0": False}.get(value.strip().lower())
    return None if value is None else bool(value)


def to_datetime(value: Value) -> datetime | None:
    """Return ``todatetime`` of an ISO 8601 text; UTC when it names no zone."""
    if isinstance(value, datetime) or value is None:
        return value
    text = re.sub(r"(\.\d{6})\d+", r"\1", str(value).strip())
    try:
        read = datetime.fromisoformat(text)
    except ValueError:
        return None
    return read.replace(tzinfo=UTC) if read.tzinfo is None else read.astimezone(UTC)


def to_timespan(value: Value) -> timedelta | None:
    """Return ``totimespan`` of ``1d``, ``[-][d.]hh:mm[:ss[.fffffff]]`` or a bare number of days."""
    if isinstance(value, timedelta) or value is None:
        return value
    text = str(value).strip()
    if (unit := re.fullmatch(r"(-?\d+(?:\.\d+)?)\s*([a-z]+)", text)) and unit[2] in _UNITS:
        return float(unit[1]) * _UNITS[unit[2]]
    if re.fullmatch(r"-?\d+", text):
        return timedelta(days=int(text))
    clock = re.fullmatch(r"(-?)(?:(\d+)\.)?(\d{1,2}):(\d{2})(?::(\d{2})(?:\.(\d{1,7}))?)?", text)
    if clock is None:
        return None
    fraction = int((clock[6] or "0").ljust(7, "0")) / 10
    span = timedelta(
        days=int(clock[2] or 0), hours=int(clock[3]), minutes=int(clock[4]), seconds=int(clock[5] or 0), microseconds=fraction
    )
    return -span if clock[1] else span


def to_dynamic(value: Value) -> Value:
    """Return ``parse_json``: the text itself when it is no JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value or None


def to_kind(value: Value, kind: str) -> Value:
    """Return a dynamic value as a scalar of a type."""
    return CONVERSIONS[kind](value)


CONVERSIONS: Final = {
    "string": to_string,
    "long": to_long,
    "int": to_long,
    "real": to_real,
    "double": to_real,
    "bool": to_bool,
    "datetime": to_datetime,
    "timespan": to_timespan,
    "dynamic": to_dynamic,
}
"""Type → what makes one of anything."""

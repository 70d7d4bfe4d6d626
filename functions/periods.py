"""Times as callers write them in a query: ISO dates and moments, and spans such as ``90m`` or ``7d``. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

from shared.core.errors import InvalidRequestError

DAY: Final = 86_400
MAX_SPAN: Final = 400 * DAY
LATEST: Final = 253_402_300_799.0
"""The end of the year 9999; moments outside of 1970 to then are taken for the nearer end."""

_UNITS: Final = {"s": 1, "m": 60, "h": 3_600, "d": DAY, "w": 7 * DAY}
_SPAN: Final = re.compile(r"([1-9][0-9]{0,5})([smhdw])")


def span(text: str | None, *, name: str, default: str) -> float:
    """Return a span in seconds; raise `InvalidRequestError` naming the query parameter."""
    found = _SPAN.fullmatch(text or default)
    seconds = int(found[1]) * _UNITS[found[2]] if found else 0
    if not 0 < seconds <= MAX_SPAN:
        message = f"`{name}` must be a span up to 400 days, such as 15m, 1h or 7d."
        raise InvalidRequestError(message, param=name, code="invalid_value")
    return float(seconds)


def moment(text: str | None, *, name: str, default: float) -> float:
    """Return a moment in seconds since the epoch; a date is its midnight in UTC, a moment without zone is UTC."""
    if text is None:
        return default
    try:
        parsed = datetime.fromisoformat(text)
        seconds = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        message = f"`{name}` must be a date such as 2026-11-22, or a moment such as 2026-11-22T10:00:00Z."
        raise InvalidRequestError(message, param=name, code="invalid_value") from None
    return min(max(seconds, 0.0), LATEST)


def iso(seconds: float) -> str:
    """Return a moment as ISO 8601 in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")

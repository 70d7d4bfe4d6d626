"""When a provider wants us back, from whatever it sends: milliseconds, seconds, a date, or its rate-limit headers."""

from __future__ import annotations

import math
import re
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final

from shared.adapters.providers.reply import Reply, as_utc

MAX_RETRY_AFTER: Final = 86_400.0
"""Seconds; more than a day is taken as a day."""

_DURATION: Final = re.compile(
    r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m(?!s))?(?:(\d{1,9}(?:\.\d{1,9})?)s)?(?:(\d{1,9}(?:\.\d{1,9})?)ms)?"
)
_UNITS: Final = (86_400.0, 3_600.0, 60.0, 1.0, 0.001)
_LIMITS: Final = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    *(
        (f"anthropic-ratelimit-{of}-remaining", f"anthropic-ratelimit-{of}-reset")
        for of in ("requests", "tokens", "input-tokens", "output-tokens")
    ),
)


def retry_after(reply: Reply, *, limits: bool = True) -> float | None:
    """Return the seconds the provider asks us to wait, None when it does not say so in a way that makes sense.

    ``retry-after-ms`` goes before ``retry-after`` (seconds or an HTTP date), that before the reset times of the limits that are
    used up. Those are looked at only if ``limits``: they come with every reply, also with failures they have no part in. Zero,
    negative, infinite and unreadable values count as not said (Azure sends -1 and 0).
    """
    headers = reply.headers
    milliseconds = _number(headers.get("retry-after-ms", ""))
    return (
        _sane(milliseconds / 1000 if milliseconds is not None else None)
        or _sane(_number(headers.get("retry-after", "")))
        or _sane(_until_http_date(headers.get("retry-after", ""), reply))
        or (_sane(_reset(reply)) if limits else None)
    )


def _sane(seconds: float | None) -> float | None:
    if seconds is None or not math.isfinite(seconds) or seconds <= 0:
        return None
    return min(seconds, MAX_RETRY_AFTER)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _until_http_date(text: str, reply: Reply) -> float | None:
    try:
        return as_utc(parsedate_to_datetime(text)).timestamp() - reply.sent_at
    except (ValueError, OverflowError):
        return None


def _reset(reply: Reply) -> float | None:
    """Return the longest reset among the limits with nothing left; without such a limit, the shortest there is."""
    exhausted: list[float] = []
    others: list[float] = []
    for remaining_name, reset_name in _LIMITS:
        text = reply.headers.get(reset_name)
        seconds = _sane(_duration(text, reply)) if text else None
        if seconds is not None:
            left = _number(reply.headers.get(remaining_name, ""))
            (exhausted if left is not None and left <= 0 else others).append(seconds)
    if exhausted:
        return max(exhausted)
    return min(others, default=None)


def _duration(text: str, reply: Reply) -> float | None:
    """Read ``1s``, ``6m0s``, ``120ms``, plain seconds, or an RFC 3339 time."""
    text = text.strip()
    number = _number(text)
    if number is not None:
        return number
    match = _DURATION.fullmatch(text)
    if match is not None and text:
        return sum(float(part) * unit for part, unit in zip(match.groups(), _UNITS, strict=True) if part)
    try:
        return as_utc(datetime.fromisoformat(text)).timestamp() - reply.sent_at
    except (ValueError, OverflowError):
        return None

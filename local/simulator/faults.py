"""The faults a script can name, and a fault with its settings. The table of all of them is in the package's docstring."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Final


class FaultKind(StrEnum):
    """What goes wrong with one request; ``ok`` is a place in the queue where nothing does."""

    OK = "ok"
    RATE_LIMITED_S = "rate_limited_s"
    RATE_LIMITED_MS = "rate_limited_ms"
    RATE_LIMITED_DATE = "rate_limited_date"
    RATE_LIMITED_NONE = "rate_limited_none"
    INSUFFICIENT_QUOTA = "insufficient_quota"
    SERVER_ERROR = "server_error"
    BAD_GATEWAY_HTML = "bad_gateway_html"
    UNAVAILABLE = "unavailable"
    GATEWAY_TIMEOUT = "gateway_timeout"
    OVERLOADED = "overloaded"
    REQUEST_TIMEOUT = "request_timeout"
    UNAUTHORIZED = "unauthorized"
    FORBIDDEN = "forbidden"
    DEPLOYMENT_NOT_FOUND = "deployment_not_found"
    GONE = "gone"
    INVALID_REQUEST = "invalid_request"
    CONTEXT_LENGTH = "context_length_exceeded"
    CONTENT_FILTER = "content_filter"
    REDIRECT = "redirect"
    HANG_BEFORE_HEADERS = "hang_before_headers"
    HANG_AFTER_HEADERS = "hang_after_headers"
    HANG_MID_STREAM = "hang_mid_stream"
    RESET_BEFORE_HEADERS = "reset_before_headers"
    CLOSE_BEFORE_HEADERS = "close_before_headers"
    RESET_MID_STREAM = "reset_mid_stream"
    CUT_MID_STREAM = "cut_mid_stream"
    ENDS_MID_STREAM = "ends_mid_stream"
    GARBAGE = "garbage"
    WRONG_CONTENT_TYPE = "wrong_content_type"
    TRUNCATED_JSON = "truncated_json"
    ERROR_IN_BODY = "error_in_body"
    ERROR_FIRST_EVENT = "error_first_event"
    ERROR_MID_STREAM = "error_mid_stream"
    NO_DONE = "no_done"
    EMPTY_CHOICES = "empty_choices"
    HUGE_BODY = "huge_body"
    FILTERED_OUTPUT = "filtered_output"
    USAGE_MISSING = "usage_missing"
    SLOW = "slow"
    SLOW_DRIP = "slow_drip"
    EMOJI_SPLIT = "emoji_split"
    SPLIT_EVERY_BYTE = "split_every_byte"
    SSE_ODD = "sse_odd"
    ASYNC_FILTER = "async_filter"


_K = FaultKind

REFUSED: Final = (_K.UNAUTHORIZED, _K.FORBIDDEN, _K.DEPLOYMENT_NOT_FOUND, _K.GONE, _K.INSUFFICIENT_QUOTA)
"""The provider will not serve this account; another provider can."""

CALLERS: Final = (_K.INVALID_REQUEST, _K.CONTEXT_LENGTH, _K.CONTENT_FILTER)
"""The provider blames the request."""

BEFORE_CONTENT: Final = (
    _K.RATE_LIMITED_S, _K.RATE_LIMITED_MS, _K.RATE_LIMITED_DATE, _K.RATE_LIMITED_NONE,
    _K.SERVER_ERROR, _K.BAD_GATEWAY_HTML, _K.UNAVAILABLE, _K.GATEWAY_TIMEOUT, _K.OVERLOADED, _K.REQUEST_TIMEOUT,
    _K.REDIRECT, _K.HANG_BEFORE_HEADERS, _K.HANG_AFTER_HEADERS, _K.RESET_BEFORE_HEADERS, _K.CLOSE_BEFORE_HEADERS,
    _K.GARBAGE, _K.WRONG_CONTENT_TYPE, _K.ERROR_IN_BODY, _K.ERROR_FIRST_EVENT, _K.EMPTY_CHOICES, _K.HUGE_BODY,
)  # fmt: skip
"""Fails before anything useful was sent, whole or streamed: a second candidate can hide it from the caller."""

AFTER_CONTENT: Final = (
    _K.HANG_MID_STREAM, _K.RESET_MID_STREAM, _K.CUT_MID_STREAM, _K.ENDS_MID_STREAM,
    _K.TRUNCATED_JSON, _K.ERROR_MID_STREAM, _K.NO_DONE,
)  # fmt: skip
"""Breaks a stream that already carried content. A whole answer with one of these is unusable, and can be hidden."""

HARMLESS: Final = (
    _K.FILTERED_OUTPUT, _K.USAGE_MISSING, _K.SLOW, _K.SLOW_DRIP, _K.EMOJI_SPLIT, _K.SPLIT_EVERY_BYTE, _K.SSE_ODD,
    _K.ASYNC_FILTER,
)  # fmt: skip
"""Odd, and still a complete answer that a correct client reads."""

GROUPS: Final[Mapping[str, tuple[FaultKind, ...]]] = {
    "before_content": BEFORE_CONTENT,
    "after_content": AFTER_CONTENT,
    "refused": REFUSED,
    "callers": CALLERS,
    "harmless": HARMLESS,
}
"""Names that stand for several faults in ``rates``: their rate is shared out evenly."""


class ScriptError(ValueError):
    """A script that cannot be obeyed; the message names the field and what it may be."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault and its settings. A setting that the kind has no use for is ignored.

    ``times`` is how often it stands in the queue; ``retry_after_s`` feeds the rate-limit headers and those of 503 and 529;
    ``after_events`` is how many content events a stream sends before it breaks; ``delay_ms`` is the pause of ``slow``, between
    the bytes of ``slow_drip``, and before a reset, so that what went before can be read; ``size_bytes`` is the huge body's
    size; ``message`` replaces the text of an error.
    """

    kind: FaultKind
    times: int = 1
    retry_after_s: float = 1.0
    after_events: int = 3
    delay_ms: float = 20.0
    size_bytes: int = 32 * 1024 * 1024
    message: str | None = None


_MOST: Final = 2**31
_NUMBERS: Final = frozenset({"retry_after_s", "delay_ms"})
_COUNTS: Final = frozenset({"times", "after_events", "size_bytes"})
_FIELDS: Final = frozenset(field.name for field in fields(Fault))


def fault_kind(name: object) -> FaultKind:
    """Return the kind of that name; None means ``ok``. Raise `ScriptError` for any other name."""
    try:
        return FaultKind.OK if name is None else FaultKind(str(name))
    except ValueError:
        known = ", ".join(FaultKind)
        message = f"unknown fault {name!r}; it must be one of: {known}"
        raise ScriptError(message) from None


def parse_fault(value: object) -> Fault:
    """Read a fault as scripts write it: its name, None for ``ok``, or an object with ``kind`` and settings."""
    if isinstance(value, Fault):
        return value
    if not isinstance(value, Mapping):
        return Fault(fault_kind(value))
    settings: dict[str, Any] = dict(value)
    kind = fault_kind(settings.pop("kind", "(no kind)"))
    for name, given in settings.items():
        _check_setting(name, given)
    return Fault(kind, **settings)


def _check_setting(name: str, given: object) -> None:
    number = isinstance(given, int | float) and not isinstance(given, bool) and 0 <= given <= _MOST
    good = {
        "message": given is None or isinstance(given, str),
        **dict.fromkeys(_NUMBERS, number),
        **dict.fromkeys(_COUNTS, number and isinstance(given, int)),
    }
    if name not in good or name not in _FIELDS:
        message = f"unknown fault setting {name!r}; settings are: {', '.join(sorted(good))}"
        raise ScriptError(message)
    if not good[name]:
        message = f"fault setting {name!r} must be {'text' if name == 'message' else f'a number from 0 to {_MOST}'}"
        raise ScriptError(message)

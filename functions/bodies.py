"""Reading a request's body: never more than the cap, never longer than a minute, and JSON that is what it says it is."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

import orjson

from functions.clients import ClientGoneError
from shared.core.errors import InvalidRequestError, PayloadTooLargeError

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

MAX_EXPLAINED: Final = 256 * 1024
"""Bytes of a broken body that are read a second time to say which field is wrong."""
BODY_SECONDS: Final = 60.0
"""How long a body may take to arrive; slower clients hold a place others could use."""


async def read_body(receive: Receive, *, declared: bytes | None, limit: int) -> bytes:
    """Return the body; raise `PayloadTooLargeError` as soon as it is known to be over ``limit`` bytes.

    ``declared`` is the Content-Length header; a body sent in chunks has none and is counted as it comes.
    """
    if declared is not None and declared.isdigit() and int(declared[:20]) > limit:
        raise _too_large(limit)
    deadline = _Deadline()
    try:
        return await _collect(receive, limit)
    except asyncio.CancelledError:
        if not deadline.passed:
            raise
        message = f"The request's body did not arrive within {BODY_SECONDS:.0f} seconds."
        raise InvalidRequestError(message, code="body_timeout") from None
    finally:
        deadline.end()


class _Deadline:
    """Cancels the current task when the body is late: a third of what `asyncio.timeout` costs, once per request."""

    __slots__ = ("_task", "_timer", "passed")

    def __init__(self) -> None:
        self.passed = False
        self._task = asyncio.current_task()
        self._timer = asyncio.get_running_loop().call_later(BODY_SECONDS, self._pass)

    def _pass(self) -> None:
        if self._task is not None:
            self.passed = True
            self._task.cancel()

    def end(self) -> None:
        """Stop the clock, and take back the cancellation if it was this clock's."""
        self._timer.cancel()
        if self.passed and self._task is not None:
            self._task.uncancel()
        self._task = None


async def _collect(receive: Receive, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        part: bytes = message.get("body", b"")
        size += len(part)
        if size > limit:
            raise _too_large(limit)
        if not message.get("more_body", False):
            return b"".join((*parts, part)) if parts else part
        parts.append(part)


def _too_large(limit: int) -> PayloadTooLargeError:
    return PayloadTooLargeError(f"The request's body is larger than the {limit} bytes this gateway accepts.")


def parse_object(body: bytes) -> dict[str, Any]:
    """Return the JSON object in a body; raise `InvalidRequestError` saying what is wrong and where."""
    if not body:
        message = "The request has no body. Send a JSON object with content-type application/json."
        raise InvalidRequestError(message, code="invalid_json")
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise _not_json(body, error) from None
    if not isinstance(value, dict):
        message = "The request's body must be a JSON object."
        raise InvalidRequestError(message, code="invalid_json")
    return value


def _not_json(body: bytes, error: orjson.JSONDecodeError) -> InvalidRequestError:
    """Say what is wrong: the field, where a number that JSON does not have stands, else the place in the text."""
    field = _field_without_number(body)
    if field is not None:
        message = f"`{field}` must be a finite number: NaN and infinities are not JSON."
        return InvalidRequestError(message, param=field, code="invalid_value")
    try:
        body.decode()
    except UnicodeDecodeError as wrong:
        message = f"The request's body is not UTF-8: byte {wrong.start} can't be read."
        return InvalidRequestError(message, code="invalid_json")
    return InvalidRequestError(f"The request's body is not valid JSON: {error}.", code="invalid_json")


def _field_without_number(body: bytes) -> str | None:
    """Return the path of the first NaN or infinity in what is otherwise JSON. Only refused bodies come here."""
    if len(body) > MAX_EXPLAINED:
        return None
    try:
        value = json.loads(body)  # the standard library takes NaN, Infinity and 1e999 for numbers
    except (ValueError, RecursionError):
        return None
    waiting: list[tuple[str, object]] = [("", value)]
    while waiting:
        path, found = waiting.pop()
        if isinstance(found, float) and not math.isfinite(found):
            return path or None
        if isinstance(found, dict):
            waiting += [(f"{path}.{name}" if path else str(name), inner) for name, inner in reversed(found.items())]
        elif isinstance(found, list):
            waiting += [(f"{path}[{at}]", inner) for at, inner in reversed(list(enumerate(found)))]
    return None

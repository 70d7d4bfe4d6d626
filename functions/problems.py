"""The one table that says what an error looks like from outside: HTTP status, OpenAI's ``type`` and ``code``, log level.

Every error is rendered as OpenAI's object ``{"error": {"message", "type", "param", "code"}}``. Messages come from the error and
are written for people; the few whose messages are meant for the operator are replaced here.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any, Final

from shared.core import errors
from shared.idempotency import InFlightError

INVALID_REQUEST: Final = "invalid_request_error"
SERVER_ERROR: Final = "server_error"
UNAUTHORIZED: Final = 401


@dataclass(frozen=True, slots=True)
class Row:
    """How one class of error is shown.

    ``spent`` says that asking again at once is pointless, because our own chain of attempts (or the state) already decided:
    OpenAI's SDKs then do not retry. ``public`` replaces the error's message where that one is the operator's business.
    """

    status: int
    type: str
    code: str | None
    level: int
    spent: bool = False
    public: str | None = None


TABLE: Final[dict[type[BaseException], Row]] = {
    errors.GatewayError: Row(500, SERVER_ERROR, "internal_error", logging.ERROR),
    errors.InvalidRequestError: Row(400, INVALID_REQUEST, None, logging.INFO),
    errors.PayloadTooLargeError: Row(413, INVALID_REQUEST, "request_too_large", logging.INFO),
    errors.AuthenticationError: Row(401, INVALID_REQUEST, "invalid_api_key", logging.INFO),
    errors.PermissionDeniedError: Row(403, "permission_error", "permission_denied", logging.WARNING),
    errors.ModelNotFoundError: Row(404, INVALID_REQUEST, "model_not_found", logging.INFO),
    errors.NotFoundError: Row(404, INVALID_REQUEST, "not_found", logging.INFO),
    errors.ConflictError: Row(409, INVALID_REQUEST, "conflict", logging.INFO, spent=True),
    InFlightError: Row(409, INVALID_REQUEST, "idempotency_in_progress", logging.INFO),
    errors.RateLimitError: Row(429, "rate_limit_error", "rate_limit_exceeded", logging.WARNING),
    errors.BudgetExceededError: Row(429, "insufficient_quota", "insufficient_quota", logging.WARNING, spent=True),
    errors.AllAttemptsFailedError: Row(503, SERVER_ERROR, "all_attempts_failed", logging.ERROR, spent=True),
    errors.DeadlineExceededError: Row(504, SERVER_ERROR, "deadline_exceeded", logging.ERROR, spent=True),
    errors.StreamInterruptedError: Row(502, SERVER_ERROR, "stream_interrupted", logging.WARNING),
    errors.OverloadedError: Row(503, SERVER_ERROR, "overloaded", logging.WARNING),
    errors.StorageUnavailableError: Row(503, SERVER_ERROR, "storage_unavailable", logging.ERROR),
    errors.ConfigurationError: Row(
        500,
        SERVER_ERROR,
        "configuration_error",
        logging.CRITICAL,
        spent=True,
        public="The gateway's configuration is wrong. Its operator finds every problem in the log.",
    ),
}

QUOTING: Final = (
    errors.InvalidRequestError,
    errors.ModelNotFoundError,
    errors.NotFoundError,
    errors.StreamInterruptedError,
)
"""Errors that may say what was in the path or the body, or what a provider said about it."""

UNEXPECTED: Final = Row(500, SERVER_ERROR, "internal_error", logging.ERROR)
"""What an exception that is no `GatewayError` looks like: a bug of ours, whose text nobody outside sees."""


@dataclass(frozen=True, slots=True)
class Problem:
    """An error ready to be rendered."""

    status: int
    body: dict[str, Any]
    headers: tuple[tuple[bytes, bytes], ...]
    level: int


def row_of(kind: type[BaseException]) -> Row:
    """Return the row of an error class: its own, or that of the nearest class above it."""
    for ancestor in kind.__mro__:
        if (row := TABLE.get(ancestor)) is not None:
            return row
    return UNEXPECTED


def problem_of(error: errors.GatewayError) -> Problem:
    """Return what the caller gets to see of an error."""
    row = row_of(type(error))
    body = error_body(row.public or error.message, kind=row.type, param=error.param, code=error.code or row.code)
    headers = _headers(row, error.retry_after)
    if isinstance(error, errors.RateLimitError):
        headers += tuple((name.encode(), value.encode()) for name, value in error.headers)
    return Problem(row.status, body, headers, row.level)


def logged(error: errors.GatewayError) -> str:
    """Return an error as the log has it: its code for a message that may quote what a caller or a provider sent."""
    if not isinstance(error, QUOTING):
        return f"{type(error).__name__}: {error.message}"
    code = error.code or row_of(type(error)).code or "refused"
    return f"{type(error).__name__}: {code}" + (f" at {error.param}" if error.param else "")


def unexpected_problem(request_id: str) -> Problem:
    """Return what the caller gets to see of a bug: the request id to report it with, nothing else."""
    message = f"Something went wrong inside the gateway. Report it with the request id {request_id}."
    body = error_body(message, kind=UNEXPECTED.type, param=None, code=UNEXPECTED.code)
    return Problem(UNEXPECTED.status, body, (), UNEXPECTED.level)


def error_body(message: str, *, kind: str, param: str | None, code: str | None) -> dict[str, Any]:
    """Return OpenAI's error object."""
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _headers(row: Row, retry_after: float | None) -> tuple[tuple[bytes, bytes], ...]:
    headers: list[tuple[bytes, bytes]] = []
    if row.spent:
        headers.append((b"x-should-retry", b"false"))
    if row.status == UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    if retry_after is not None and math.isfinite(retry_after):
        wait = max(0.0, retry_after)
        headers.append((b"retry-after", str(math.ceil(wait)).encode()))
        headers.append((b"retry-after-ms", str(math.ceil(wait * 1000)).encode()))
    return tuple(headers)

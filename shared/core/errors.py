"""What can go wrong for a caller, as one tree, named as OpenAI's SDK does where the meaning is the same.

    GatewayError
    ├── InvalidRequestError          the request can't be understood or can't be served as asked; ``param`` names the field
    │   └── PayloadTooLargeError     the body is over the limit
    ├── AuthenticationError          no key, or one that is not known
    ├── PermissionDeniedError        known, but not allowed to do this
    ├── ModelNotFoundError           no model or alias of that name
    ├── NotFoundError                no such request, key, response …
    ├── ConflictError                the state moved on: a version or name that is taken
    ├── RateLimitError               too many requests; ``retry_after`` says when to come back
    ├── BudgetExceededError          a hard budget does not cover the request; ``budget`` names it
    ├── AllAttemptsFailedError       every allowed candidate was tried or is cooling down; carries the attempts
    ├── DeadlineExceededError        the request's own deadline passed first
    ├── StreamInterruptedError       a stream broke after content had been passed on; nothing is retried
    ├── OverloadedError              this instance sheds load
    ├── StorageUnavailableError      the store did not answer
    └── ConfigurationError           the operator's settings or catalog are wrong; carries every problem found

A provider's failure during failover is a value (`shared.core.failures.Failed`), not an exception. Which HTTP status and which
OpenAI ``type`` and ``code`` an error gets is decided by one table at the edge (`functions.problems`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from shared.core.failures import Failed


class GatewayError(Exception):
    """Base of all. ``message`` tells a person what to do and never holds a secret; ``param`` names the field at fault."""

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.retry_after = retry_after


class InvalidRequestError(GatewayError):
    """The request can't be understood, or no candidate can serve it as asked."""


class PayloadTooLargeError(InvalidRequestError):
    """The body is over the configured limit."""


class AuthenticationError(GatewayError):
    """No key was sent, or one that is not known."""


class PermissionDeniedError(GatewayError):
    """The caller is known but not allowed to do this."""


class ModelNotFoundError(GatewayError):
    """No model or alias of that name is in the registry."""


class NotFoundError(GatewayError):
    """What the path names does not exist."""


class ConflictError(GatewayError):
    """The stored state is not what the caller thought: a name that is taken, a version that moved on."""


class RateLimitError(GatewayError):
    """Too many requests: the caller's own limit, or every candidate throttled by its provider.

    ``retry_after`` is the soonest it makes sense to come back; ``headers`` are the ``x-ratelimit-…`` headers that say why;
    ``by_providers`` tells the second from the first.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        retry_after: float | None = None,
        headers: Sequence[tuple[str, str]] = (),
        by_providers: bool = False,
    ) -> None:
        super().__init__(message, code=code, retry_after=retry_after)
        self.headers = tuple(headers)
        self.by_providers = by_providers


class BudgetExceededError(GatewayError):
    """What a hard budget has left does not cover the request. ``budget`` is its id, ``resets_at`` its period's end (epoch)."""

    def __init__(self, message: str, *, budget: str, resets_at: float | None = None) -> None:
        super().__init__(message, code="insufficient_quota")
        self.budget = budget
        self.resets_at = resets_at


class AllAttemptsFailedError(GatewayError):
    """Every allowed candidate failed or is cooling down. ``failures`` are theirs, in the order of the attempts."""

    def __init__(
        self,
        message: str,
        *,
        failures: Sequence[Failed] = (),
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.failures = tuple(failures)


class DeadlineExceededError(AllAttemptsFailedError):
    """The request's deadline passed before any candidate answered."""


class StreamInterruptedError(GatewayError):
    """A stream broke after content had been passed on; what came before stands, and nothing is retried."""


class OverloadedError(GatewayError):
    """This instance has as many requests as it can carry."""


class StorageUnavailableError(GatewayError):
    """The store did not answer; what was asked may or may not have happened."""


class ConfigurationError(GatewayError):
    """The operator's settings or catalog are wrong. ``problems`` lists every one, each with its place."""

    def __init__(self, message: str, *, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)

"""A provider's failure as a value, and the tables that say what each kind means.

During failover a failure is not an exception: the flow is *sent* ``Failed(kind, …)`` and decides. Every kind has one row in
``RULES``; a test proves the table complete.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class FailureKind(StrEnum):
    """What went wrong with one attempt; the values are our ``error.type``."""

    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    SERVER_ERROR = "server_error"
    TIMEOUT = "timeout"
    CONNECTION = "connection"
    DISCONNECTED = "disconnected"
    TLS = "tls"
    BAD_RESPONSE = "bad_response"
    EMPTY_RESPONSE = "empty_response"
    RESPONSE_TOO_LARGE = "response_too_large"
    INTERRUPTED = "interrupted"
    INVALID_REQUEST = "invalid_request"
    CONTEXT_LENGTH = "context_length"
    CONTENT_FILTER = "content_filter"
    UNAUTHORIZED = "unauthorized"
    QUOTA_EXHAUSTED = "quota_exhausted"
    DEPLOYMENT_NOT_FOUND = "deployment_not_found"
    GONE = "gone"
    NOT_ADMITTED = "not_admitted"
    OVER_BUDGET = "over_budget"
    CANCELLED = "cancelled"


class Remedy(StrEnum):
    """What failover does next."""

    RETRY = "retry"
    FALL_BACK = "fall_back"
    GIVE_UP = "give_up"


class Skip(StrEnum):
    """Which of the remaining candidates the failure makes pointless."""

    NOTHING = "nothing"
    DEPLOYMENT = "deployment"
    MODEL = "model"
    PROVIDER = "provider"
    SMALLER_CONTEXT = "smaller_context"


class BreakerEffect(StrEnum):
    """What the deployment's breaker learns."""

    NONE = "none"
    FAILURE = "failure"
    COOL_DOWN = "cool_down"
    DISABLE = "disable"


class Billing(StrEnum):
    """Whether the provider may have charged for the attempt."""

    VOID = "void"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Rule:
    """One row: the remedy, what else it rules out, what the breaker learns, and who pays.

    ``again`` says that the same deployment may be asked once more later in the chain, when all others have failed.
    """

    remedy: Remedy
    skip: Skip
    breaker: BreakerEffect
    billing: Billing
    again: bool = False


RULES: Final[dict[FailureKind, Rule]] = {
    FailureKind.RATE_LIMITED: Rule(Remedy.FALL_BACK, Skip.NOTHING, BreakerEffect.COOL_DOWN, Billing.VOID, again=True),
    FailureKind.OVERLOADED: Rule(Remedy.FALL_BACK, Skip.NOTHING, BreakerEffect.FAILURE, Billing.VOID, again=True),
    FailureKind.SERVER_ERROR: Rule(Remedy.FALL_BACK, Skip.NOTHING, BreakerEffect.FAILURE, Billing.VOID, again=True),
    FailureKind.TIMEOUT: Rule(Remedy.FALL_BACK, Skip.NOTHING, BreakerEffect.FAILURE, Billing.UNKNOWN, again=True),
    FailureKind.CONNECTION: Rule(  # never sent: name not resolved, refused, no route
        Remedy.FALL_BACK, Skip.NOTHING, BreakerEffect.FAILURE, Billing.VOID, again=True
    ),
    FailureKind.DISCONNECTED: Rule(  # sent, then the connection was lost before any content
        Remedy.FALL_BACK, Skip.NOTHING, BreakerEffect.FAILURE, Billing.UNKNOWN, again=True
    ),
    FailureKind.TLS: Rule(Remedy.FALL_BACK, Skip.DEPLOYMENT, BreakerEffect.FAILURE, Billing.VOID),
    FailureKind.BAD_RESPONSE: Rule(Remedy.FALL_BACK, Skip.NOTHING, BreakerEffect.FAILURE, Billing.UNKNOWN, again=True),
    FailureKind.EMPTY_RESPONSE: Rule(Remedy.RETRY, Skip.NOTHING, BreakerEffect.FAILURE, Billing.UNKNOWN, again=True),
    FailureKind.RESPONSE_TOO_LARGE: Rule(Remedy.FALL_BACK, Skip.DEPLOYMENT, BreakerEffect.NONE, Billing.UNKNOWN),
    FailureKind.INTERRUPTED: Rule(Remedy.GIVE_UP, Skip.NOTHING, BreakerEffect.FAILURE, Billing.UNKNOWN),
    FailureKind.INVALID_REQUEST: Rule(Remedy.FALL_BACK, Skip.MODEL, BreakerEffect.NONE, Billing.VOID),
    FailureKind.CONTEXT_LENGTH: Rule(Remedy.FALL_BACK, Skip.SMALLER_CONTEXT, BreakerEffect.NONE, Billing.VOID),
    FailureKind.CONTENT_FILTER: Rule(Remedy.FALL_BACK, Skip.PROVIDER, BreakerEffect.NONE, Billing.UNKNOWN),
    FailureKind.UNAUTHORIZED: Rule(Remedy.FALL_BACK, Skip.PROVIDER, BreakerEffect.DISABLE, Billing.VOID),
    FailureKind.QUOTA_EXHAUSTED: Rule(Remedy.FALL_BACK, Skip.PROVIDER, BreakerEffect.COOL_DOWN, Billing.VOID),
    FailureKind.DEPLOYMENT_NOT_FOUND: Rule(Remedy.FALL_BACK, Skip.DEPLOYMENT, BreakerEffect.DISABLE, Billing.VOID),
    FailureKind.GONE: Rule(Remedy.FALL_BACK, Skip.PROVIDER, BreakerEffect.DISABLE, Billing.VOID),
    FailureKind.NOT_ADMITTED: Rule(Remedy.FALL_BACK, Skip.NOTHING, BreakerEffect.NONE, Billing.VOID, again=True),
    FailureKind.OVER_BUDGET: Rule(  # never sent: a hard budget does not cover it, though perhaps a cheaper candidate
        Remedy.FALL_BACK, Skip.NOTHING, BreakerEffect.NONE, Billing.VOID
    ),
    FailureKind.CANCELLED: Rule(Remedy.GIVE_UP, Skip.NOTHING, BreakerEffect.NONE, Billing.UNKNOWN),
}


@dataclass(frozen=True, slots=True)
class Failed:
    """How one attempt failed.

    ``message`` is safe to show a caller: the provider's own message only for the caller's mistakes (kinds that answer 400),
    otherwise our words; never a raw body, a URL with credentials or a key. ``code`` and ``param`` are the provider's for those
    kinds. ``retry_after`` is in seconds, as the provider asked. ``status`` is the HTTP status, None when there was none.
    """

    kind: FailureKind
    message: str
    status: int | None = None
    code: str | None = None
    param: str | None = None
    retry_after: float | None = None
    provider_request_id: str | None = None


CALLERS_FAULT: Final = frozenset({FailureKind.INVALID_REQUEST, FailureKind.CONTEXT_LENGTH, FailureKind.CONTENT_FILTER})
"""Kinds that reach the caller as 400 with the provider's code, once no allowed candidate can take the request."""

"""What is written down about a request: who asked, every attempt with its tokens, cost and outcome, and the decision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from shared.core.chat import Operation, Usage

SUCCEEDED: Final = "succeeded"
"""The outcome of what worked; every other outcome is a `FailureKind` value (attempts) or an error code (requests)."""
LOST: Final = "process_lost"
"""The outcome of an attempt, and of a request, whose process died before it knew."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls and who pays. ``key_id`` is public (it appears in usage), never the key itself.

    ``models`` are the model names this key may ask for; None is all. ``budgets`` are the ids of budgets the key is bound to,
    beside those whose scope covers it. ``requests_per_minute`` and ``tokens_per_minute`` are the key's own limits, None for
    none; ``tags`` (such as a cost centre) are written down with its usage.
    """

    key_id: str
    project: str
    admin: bool = False
    name: str = ""
    models: frozenset[str] | None = None
    budgets: tuple[str, ...] = ()
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One call to one deployment, numbered from 1 within its request.

    ``started_at`` is seconds since the epoch, durations are milliseconds. ``usage`` None means the provider charged nothing or
    nothing is known; ``cost`` is integer nano-USD, None when the price or the usage is not known. ``exact`` is False when the
    amounts are an underestimate: a cut stream, a dead client, a provider that never reported. ``semconv_name`` is what
    OpenTelemetry calls the provider (``azure.ai.openai``); rows from before it was written down have none.
    """

    number: int
    deployment: str
    model: str
    provider: str
    started_at: float
    duration_ms: float
    outcome: str
    region: str | None = None
    status: int | None = None
    first_content_ms: float | None = None
    usage: Usage | None = None
    cost: int | None = None
    exact: bool = True
    response_model: str | None = None
    provider_request_id: str | None = None
    message: str | None = None
    semconv_name: str | None = None


@dataclass(frozen=True, slots=True)
class RequestRecord:
    """One request with all its attempts. ``cost`` is the sum over billed attempts; None when one of them is unknown.

    ``billed`` is what the logical request costs its caller: the attempt that answered, without those that failed before it.
    ``trace`` is the decision as plain JSON values: the inputs `shared.core.router.replay` needs, and the route it gave.
    ``tags`` are the key's. ``chain`` is the id of the chain that the request ran as, None when its caller waited.
    ``recovered`` marks a record made from the ledger because the process that served the request died.
    """

    request_id: str
    key_id: str
    project: str
    operation: Operation
    original_model: str
    task: str
    stream: bool
    started_at: float
    duration_ms: float
    outcome: str
    attempts: tuple[AttemptRecord, ...] = ()
    model: str | None = None
    deployment: str | None = None
    first_content_ms: float | None = None
    cost: int | None = None
    exact: bool = True
    simulated: bool = False
    billed: int | None = None
    recovered: bool = False
    chain: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    trace: Mapping[str, Any] = field(default_factory=dict)

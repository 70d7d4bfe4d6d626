"""A validated body → the request the use cases take; an answer → its headers. What every kind of inference shares."""

from __future__ import annotations

import math
from collections.abc import Callable
from decimal import Decimal
from hashlib import blake2b
from typing import Any, Final, Protocol

from functions.rendering import NANO, RawHeaders, usd_text
from functions.schemas_own import MAX_BUDGET_USD
from functions.work import Asking
from shared.core.chat import TASKS, InferenceRequest, Json, ModelPreferences, Objective, Priority, Requirements
from shared.core.errors import InvalidRequestError
from shared.core.limits import Header
from shared.core.registry import Registry
from shared.core.requirements import Hints
from shared.core.wire_support import OWN_FIELDS

NO_PREFERENCES: Final = ModelPreferences()

Reader = Callable[..., Requirements]


def inference_request(call: Asking, body: dict[str, Any], read: Reader) -> InferenceRequest:
    """Split a validated body into what goes upstream and what routing needs to know.

    ``read`` is `chat_requirements` or `embeddings_requirements`. A deployment named in the path (Azure's way) is the model.
    """
    hints = _hints(call, body)
    payload = body if OWN_FIELDS.isdisjoint(body) else {name: value for name, value in body.items() if name not in OWN_FIELDS}
    if named := call.path("model"):
        payload = {**payload, "model": named}
    return InferenceRequest(payload, read(payload, hints=hints))


def _hints(call: Asking, body: Json) -> Hints:
    preferences, priority = body.get("model_preferences"), body.get("priority")
    task = _task(body.get("task_type"), call.gateway.catalog.current)
    return Hints(
        task_type=task,
        preferences=_preferences(preferences) if preferences else NO_PREFERENCES,
        budget_limit=budget_of(body.get("budget_limit")),
        priority=Priority(priority) if priority else None,
        subject=_subject(call.caller.key_id, body),
    )


def _task(task: str | None, registry: Registry) -> str | None:
    if task is None or task in TASKS:
        return task
    known = TASKS | registry.tasks()
    if task not in known:
        message = f"`task_type` is {task[:60]!r}; it must be one of {', '.join(sorted(known))}, or absent to be detected."
        raise InvalidRequestError(message, param="task_type", code="unknown_task")
    return task


def _preferences(given: Json) -> ModelPreferences:
    objective = given.get("objective")
    return ModelPreferences(
        preferred_models=tuple(given.get("preferred_models") or ()),
        exclude_models=tuple(given.get("exclude_models") or ()),
        exclude_providers=tuple(given.get("exclude_providers") or ()),
        objective=Objective(objective) if objective else None,
        min_quality=given.get("min_quality"),
        max_latency_ms=given.get("max_latency_ms"),
        regions=tuple(given.get("regions") or ()),
    )


def budget_of(usd: float | None) -> int | None:
    """Return a limit in USD as nano-USD, rounded down so that it is never exceeded."""
    if usd is None:
        return None
    if not math.isfinite(usd) or not 0 <= usd <= MAX_BUDGET_USD:
        message = f"`budget_limit` must be an amount in USD from 0 to {MAX_BUDGET_USD}."
        raise InvalidRequestError(message, param="budget_limit", code="invalid_value")
    return int(Decimal(str(usd)) * NANO)


def _subject(key_id: str, body: Json) -> str:
    """Return who experiments assign: stable for a key's end user, and telling nothing about them."""
    end_user = body.get("safety_identifier") or body.get("user") or body.get("prompt_cache_key") or ""
    return blake2b(f"{key_id}\0{end_user}".encode(errors="replace"), digest_size=12).hexdigest()


class Told(Protocol):
    """What an answer says about how it came about, whole or streamed."""

    @property
    def model(self) -> str: ...  # noqa: D102
    @property
    def deployment(self) -> str: ...  # noqa: D102
    @property
    def attempts(self) -> int: ...  # noqa: D102
    @property
    def cost(self) -> int | None: ...  # noqa: D102
    @property
    def limits(self) -> tuple[Header, ...]: ...  # noqa: D102


def answer_headers(answer: Told) -> RawHeaders:
    """Return the headers that say who answered, after how many attempts, at which cost (absent when not known)."""
    headers: RawHeaders = [
        (b"x-switchyard-model", header_value(answer.model)),
        (b"x-switchyard-deployment", header_value(answer.deployment)),
        (b"x-switchyard-attempts", b"%d" % answer.attempts),
    ]
    if (cost := answer.cost) is not None:
        headers.append((b"x-switchyard-cost-usd", usd_text(cost).encode()))
    for name, value in answer.limits:
        headers.append((name.encode(), value.encode()))
    return headers


def header_value(text: str) -> bytes:
    """Return a catalog's name as a header value: what is not printable ASCII becomes a question mark."""
    return text.encode("ascii", "replace").replace(b"\r", b"?").replace(b"\n", b"?")

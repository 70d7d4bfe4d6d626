"""Why nobody can serve a request, as the one sentence and the one error the caller gets.

Of all the reasons a route gives, the one nearest to success is blamed: the checks run in a fixed order, so the deployment that
passed most of them shows what would have to change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from shared.core.chat import Capability, Operation, Requirements
from shared.core.errors import (
    AllAttemptsFailedError,
    GatewayError,
    InvalidRequestError,
    ModelNotFoundError,
    PermissionDeniedError,
)
from shared.core.route import Dropped, ReasonCode, Route

_SHOWN: Final = 3
"""How many different details a message quotes."""

_UNAVAILABLE: Final = frozenset({ReasonCode.UNAVAILABLE, ReasonCode.DISABLED})

FIELD_OF: Final[dict[str, str]] = {
    Capability.TOOLS: "tools",
    Capability.JSON_OBJECT: "response_format",
    Capability.JSON_SCHEMA: "response_format",
    Capability.VISION: "messages",
    Capability.AUDIO_INPUT: "messages",
    Capability.FILE_INPUT: "messages",
    Capability.AUDIO_OUTPUT: "modalities",
    Capability.LOGPROBS: "logprobs",
    Capability.REASONING: "reasoning_effort",
    Capability.WEB_SEARCH: "web_search_options",
    Capability.PREDICTION: "prediction",
}
"""The request's field that asks for a capability."""


@dataclass(frozen=True, slots=True)
class _Blame:
    """What to say when this reason is the nearest to success. ``param`` and ``code`` are OpenAI's."""

    sentence: str
    param: str = "model"
    code: str = "no_candidate"


_BLAMES: Final[dict[ReasonCode, _Blame]] = {
    ReasonCode.BUDGET: _Blame(
        "No candidate is sure to stay within `budget_limit`; raise it or set a lower max_tokens", "budget_limit"
    ),
    ReasonCode.UNKNOWN_PRICE: _Blame(
        "`budget_limit` needs a known price, and no candidate has one; add its price to the catalog", "budget_limit"
    ),
    ReasonCode.UNAVAILABLE: _Blame("No deployment that could answer is available"),
    ReasonCode.DISABLED: _Blame("No deployment that could answer is available"),
    ReasonCode.RETIRED: _Blame("The model is retired; name another one", code="model_not_found"),
    ReasonCode.MAX_LATENCY: _Blame("No candidate meets `max_latency_ms`; raise it", "model_preferences"),
    ReasonCode.MIN_QUALITY: _Blame("No candidate meets `min_quality`; lower it", "model_preferences"),
    ReasonCode.OUTPUT_LIMIT: _Blame("No candidate can write that much; lower it", "max_tokens", "invalid_value"),
    ReasonCode.CONTEXT_WINDOW: _Blame(
        "The request is longer than any candidate's context window; shorten it", "messages", "context_length_exceeded"
    ),
    ReasonCode.PARAMETER: _Blame(
        "No candidate takes every parameter; leave it out or name another model", code="unsupported_parameter"
    ),
    ReasonCode.CAPABILITY: _Blame(
        "No candidate can do what the request needs; name another model", code="unsupported_capability"
    ),
    ReasonCode.REGION: _Blame("No candidate is in the `regions` asked for", "model_preferences"),
    ReasonCode.EXCLUDED: _Blame("The request excludes every candidate", "model_preferences"),
    ReasonCode.NOT_ALLOWED: _Blame("This key may not use any model that could answer", code="model_not_allowed"),
    ReasonCode.NOT_AUTO: _Blame("The catalog gives `auto` no model for this; name one", code="no_candidate"),
    ReasonCode.OPERATION: _Blame("The model does not do what this endpoint is for", code="unsupported_operation"),
}
"""From the nearest to success to the farthest."""


def explain(dropped: Iterable[Dropped], requirements: Requirements) -> str:
    """Return the one sentence that says why there is no candidate and what to do about it."""
    code, details = _nearest(dropped)
    if code is None:
        return f"The catalog has no model for {requirements.operation.value}; add one to it."
    return f"{_BLAMES[code].sentence}: {details}."


def no_candidate_error(route: Route, requirements: Requirements) -> GatewayError:
    """Return the error a caller gets for a route without candidates."""
    message = route.note or explain(route.dropped, requirements)
    code, details = _nearest(route.dropped)
    if code is None or code in _UNAVAILABLE:
        return AllAttemptsFailedError(message)
    blame = _BLAMES[code]
    if code is ReasonCode.NOT_ALLOWED:
        return PermissionDeniedError(message, param=blame.param, code=blame.code)
    if code is ReasonCode.RETIRED:
        return ModelNotFoundError(message, param=blame.param, code=blame.code)
    return InvalidRequestError(message, param=_field(code, details, requirements), code=blame.code)


def _nearest(dropped: Iterable[Dropped]) -> tuple[ReasonCode | None, str]:
    details: dict[ReasonCode, dict[str, None]] = {}
    for one in dropped:
        details.setdefault(one.reason.code, {})[one.reason.detail] = None
    for code in _BLAMES:
        if code in details:
            found = list(details[code])
            more = f" (and {len(found) - _SHOWN} more)" if len(found) > _SHOWN else ""
            return code, "; ".join(found[:_SHOWN]) + more
    return None, ""


def _field(code: ReasonCode, details: str, requirements: Requirements) -> str:
    """Return the request's field at fault, found among what the request sent by the names the details quote."""
    names: Iterator[str]
    match code:
        case ReasonCode.CAPABILITY:
            names = (FIELD_OF.get(name, name) for name in sorted(requirements.capabilities) if f"`{name}`" in details)
        case ReasonCode.PARAMETER:
            names = (name for name in sorted(requirements.parameters) if f"`{name}`" in details)
        case ReasonCode.OUTPUT_LIMIT:
            names = (name for name in ("max_completion_tokens", "max_tokens") if name in requirements.parameters)
        case ReasonCode.CONTEXT_WINDOW if requirements.operation is Operation.EMBEDDINGS:
            names = iter(("input",))
        case _:
            names = iter(())
    return next(names, _BLAMES[code].param)

"""``POST /v1/route``: the plan for a request, with its reasons and its cost, without running it."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from functions.chat_completions import CHAT
from functions.completions import COMPLETION, completion_request
from functions.embeddings import EMBEDDINGS
from functions.endpoints import Endpoint, blueprint
from functions.http import Call, endpoint
from functions.inference import inference_request
from functions.rendering import json_response, usd
from functions.schemas import RouteRequest
from functions.validation import Schema
from shared.core.chat import Requirements
from shared.core.errors import InvalidRequestError
from shared.core.requirements import chat_requirements, embeddings_requirements
from shared.core.route import Candidate, Dropped, Reason, Route
from shared.executor import plan_route

ROUTE: Final = Schema(RouteRequest, "RouteRequest")


async def plan_request(call: Call) -> Response:
    """Show who would be asked for a chat, a completion or an embeddings request, in which order and why."""
    body = call.json()
    requirements = _requirements(call, body)
    route = plan_route(call.gateway, call.caller, requirements)
    return json_response(render(route, requirements))


def _requirements(call: Call, body: dict[str, Any]) -> Requirements:
    if "messages" in body:
        CHAT.check(body)
        return inference_request(call, body, chat_requirements).requirements
    if "input" in body:
        EMBEDDINGS.check(body)
        return inference_request(call, body, embeddings_requirements).requirements
    if "prompt" in body:
        COMPLETION.check(body)
        prompt = body["prompt"] if isinstance(body["prompt"], str) else body["prompt"][0]
        return completion_request(call, body, prompt).requirements
    message = "Send the body of the request to plan: with `messages` (chat), `prompt` (completion) or `input` (embeddings)."
    raise InvalidRequestError(message, param="messages", code="missing_required_parameter")


def render(route: Route, requirements: Requirements) -> dict[str, Any]:
    """Return a route as JSON. Costs are USD; null is unknown."""
    first = route.candidates[0] if route.candidates else None
    return {
        "object": "route",
        "operation": requirements.operation.value,
        "original_model": requirements.model,
        "task": route.task,
        "task_given": requirements.task_given,
        "objective": route.objective,
        "rule": route.rule,
        "experiment": route.assignment and {"name": route.assignment.experiment, "arm": route.assignment.arm},
        "input_tokens": requirements.input_tokens,
        "input_tokens_bound": requirements.input_tokens_bound,
        "capabilities": sorted(requirements.capabilities),
        "model": first and first.model,
        "deployment": first and first.deployment,
        "expected_cost_usd": first and usd(first.expected_cost),
        "worst_cost_usd": first and usd(first.worst_cost),
        "candidates": [_candidate(position, candidate) for position, candidate in enumerate(route.candidates, start=1)],
        "dropped": [_dropped(dropped) for dropped in route.dropped],
        "note": route.note,
        "registry_version": route.registry_version,
    }


def _candidate(position: int, candidate: Candidate) -> dict[str, Any]:
    return {
        "position": position,
        "deployment": candidate.deployment,
        "model": candidate.model,
        "provider": candidate.provider,
        "reasons": [_reason(reason) for reason in candidate.reasons],
        "expected_cost_usd": usd(candidate.expected_cost),
        "worst_cost_usd": usd(candidate.worst_cost),
        "context_window": candidate.context_window,
        "not_before_seconds": candidate.not_before,
        "last_resort": candidate.last_resort,
    }


def _dropped(dropped: Dropped) -> dict[str, Any]:
    return {"deployment": dropped.deployment or None, "model": dropped.model, "reason": _reason(dropped.reason)}


def _reason(reason: Reason) -> dict[str, str]:
    return {"code": reason.code.value, "detail": reason.detail}


ENDPOINTS: Final = (
    Endpoint(
        name="plan_request",
        method="POST",
        path="/v1/route",
        handler=plan_request,
        summary="Show the plan for a request without running it",
        tag="Explaining",
        body=ROUTE,
        answers="Candidates in order with their reasons, worst and expected cost in USD; who was dropped, and why.",
    ),
)

BLUEPRINT: Final = blueprint(ENDPOINTS, endpoint)

"""``GET /v1/requests/{id}``: one request as it was written down — every attempt, its cost, and why it went where it went."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Final

from starlette.responses import Response

from functions.endpoints import Endpoint, blueprint
from functions.http import Call, endpoint
from functions.periods import iso
from functions.rendering import json_response, usd
from shared.core.errors import NotFoundError
from shared.core.records import AttemptRecord
from shared.usage import StoredRequest


async def get_request(call: Call) -> Response:
    """Show a request of the caller's project; the administrator sees any."""
    return json_response(render(await find_request(call, call.path("id"))))


async def find_request(call: Call, request_id: str) -> StoredRequest:
    """Return a request the caller may know of; raise `NotFoundError`, also for one of another project."""
    stored = await call.gateway.usage.find(request_id)
    if stored is None or not (call.caller.admin or stored.record.project == call.caller.project):
        message = "No request of that id is known. Ids are in the x-request-id header of every answer."
        raise NotFoundError(message, param="request_id", code="request_not_found")
    return stored


def render(stored: StoredRequest) -> dict[str, Any]:
    """Return a stored request as JSON."""
    record = stored.record
    return {
        "object": "request",
        "id": record.request_id,
        "key": record.key_id,
        "project": record.project,
        "operation": record.operation.value,
        "original_model": record.original_model,
        "task": record.task,
        "stream": record.stream,
        "started_at": iso(record.started_at),
        "duration_ms": round(record.duration_ms, 3),
        "first_content_ms": record.first_content_ms and round(record.first_content_ms, 3),
        "outcome": record.outcome,
        "model": record.model,
        "deployment": record.deployment,
        "cost_usd": usd(record.cost),
        "cost_nano_usd": record.cost,
        "exact": record.exact,
        "simulated": record.simulated,
        "recovered": record.recovered,
        "chain": record.chain,
        "pending": stored.pending,
        "attempts": [_attempt(attempt) for attempt in record.attempts],
        "trace": dict(record.trace),
    }


def _attempt(attempt: AttemptRecord) -> dict[str, Any]:
    return {
        **asdict(attempt),
        "started_at": iso(attempt.started_at),
        "duration_ms": round(attempt.duration_ms, 3),
        "cost": usd(attempt.cost),
        "cost_nano_usd": attempt.cost,
    }


ENDPOINTS: Final = (
    Endpoint(
        name="get_request",
        method="GET",
        path="/v1/requests/{id}",
        handler=get_request,
        summary="One request: its attempts, its cost, and the decision",
        tag="Explaining",
        answers="The request with every attempt, and the trace that replays to the same plan.",
    ),
)

BLUEPRINT: Final = blueprint(ENDPOINTS, endpoint)

"""``POST /v1/feedback``: what a person thought of an answer, as query parameters (the seed's way) or JSON."""

from __future__ import annotations

from typing import Any, Final

from starlette.responses import Response

from functions.endpoints import Endpoint, Parameter, blueprint
from functions.http import Call, endpoint
from functions.rendering import json_response
from functions.schemas import FeedbackRequest
from functions.validation import Schema

FEEDBACK: Final = Schema(FeedbackRequest, "FeedbackRequest")


async def submit_feedback(call: Call) -> Response:
    """Keep a rating of one of the caller's requests; a second one replaces the first."""
    given = call.json() if call.body else _from_query(call)
    FEEDBACK.check(given)
    await call.gateway.feedback.record(given["request_id"], given["rating"], given.get("feedback"), caller=call.caller)
    return json_response({"status": "feedback recorded"})


def _from_query(call: Call) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in ("request_id", "rating", "feedback"):
        if (value := call.query(name)) is not None:
            found[name] = value
    rating = found.get("rating", "")
    if rating.lstrip("-").isdecimal() and len(rating) < 4:  # noqa: PLR2004 - one digit and a sign are enough
        found["rating"] = int(rating)
    return found


ENDPOINTS: Final = (
    Endpoint(
        name="submit_feedback",
        method="POST",
        path="/v1/feedback",
        handler=submit_feedback,
        summary="Rate an answer",
        tag="Explaining",
        body=FEEDBACK,
        body_required=False,
        parameters=(
            Parameter("request_id", "The x-request-id of the answer; instead of a body."),
            Parameter("rating", "1 (bad) to 5 (good).", schema={"type": "integer", "minimum": 1, "maximum": 5}),
            Parameter("feedback", "What a person said."),
        ),
        answers='`{"status": "feedback recorded"}`',
    ),
)

BLUEPRINT: Final = blueprint(ENDPOINTS, endpoint)

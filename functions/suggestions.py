"""``GET /v1/usage/suggestions``: where the caller's own traffic would have cost less, and what it saved against a baseline."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from starlette.responses import Response

from functions.endpoints import Endpoint, Parameter, blueprint
from functions.http import Call, endpoint
from functions.periods import iso
from functions.rendering import json_response, usd
from functions.scopes import project_of
from functions.usage import stretch
from shared.core.chat import Usage
from shared.core.errors import InvalidRequestError, ModelNotFoundError
from shared.core.optimizer import ASSUMPTIONS, Baseline, Suggestion, Traffic, against_baseline, suggestions
from shared.usage import GroupBy, UsageQuery, UsageRow


async def get_suggestions(call: Call) -> Response:
    """Price what was asked of each model, in each task, at the models that could have answered as well."""
    start, end = stretch(call)
    project = project_of(call)
    registry, allowed = call.gateway.catalog.current, call.caller.models
    baseline = _baseline_model(call)
    group_by = (GroupBy.TASK.value, GroupBy.MODEL.value)
    report = await call.gateway.usage.summary(UsageQuery(start, end, group_by, project=project))
    traffic = [_traffic(row) for row in report.rows]
    day = datetime.fromtimestamp(call.gateway.clock.now(), UTC).date()
    found = suggestions(traffic, registry, day=day, allowed=allowed)
    saving = sum(one.saving for one in found)
    body: dict[str, Any] = {
        "object": "list",
        "start": iso(start),
        "end": iso(end),
        "project": project,
        "data": [_suggestion(one) for one in found],
        "saving_usd": usd(saving),
        "saving_nano_usd": saving,
        "assumptions": list(ASSUMPTIONS),
        "exact": report.exact,
    }
    if baseline is not None:
        body["baseline"] = _baseline(baseline, against_baseline(traffic, registry, baseline, day=day))
    return json_response(body)


def _baseline_model(call: Call) -> str | None:
    name, allowed = call.query("baseline"), call.caller.models
    if name is None:
        return None
    try:
        model = call.gateway.catalog.current.resolve(name)[0]
    except ModelNotFoundError:
        model = ""
    if not model or (allowed is not None and model not in allowed):
        message = f"`baseline` is {name[:60]!r}: there is no such model, or this key may not use it. GET /v1/models lists them."
        raise InvalidRequestError(message, param="baseline", code="invalid_value")
    return model


def _traffic(row: UsageRow) -> Traffic:
    tokens = Usage(row.input_tokens, row.output_tokens, row.cache_read, row.cache_creation, row.reasoning)
    task, model = row.group[GroupBy.TASK.value], row.group[GroupBy.MODEL.value]
    return Traffic(task, model, row.requests, row.attempts, tokens, row.cost, row.cost_unknown)


def _suggestion(one: Suggestion) -> dict[str, Any]:
    return {
        "task": one.task,
        "from_model": one.from_model,
        "to_model": one.to_model,
        "to_deployment": one.to_deployment,
        "requests": one.requests,
        "cost_now_usd": usd(one.cost_now),
        "cost_now_nano_usd": one.cost_now,
        "cost_then_usd": usd(one.cost_then),
        "cost_then_nano_usd": one.cost_then,
        "saving_usd": usd(one.saving),
        "saving_nano_usd": one.saving,
        "why": one.why,
    }


def _baseline(model: str, found: Baseline | None) -> dict[str, Any]:
    """Return what a baseline would have cost; the amounts are null when its price is not known."""
    return {
        "model": model,
        "requests": found.requests if found else 0,
        "left_out": found.left_out if found else None,
        "cost_now_usd": usd(found.cost_now) if found else None,
        "cost_now_nano_usd": found.cost_now if found else None,
        "cost_then_usd": usd(found.cost_then) if found else None,
        "cost_then_nano_usd": found.cost_then if found else None,
        "saving_usd": usd(found.saving) if found else None,
        "saving_nano_usd": found.saving if found else None,
    }


ENDPOINTS: Final = (
    Endpoint(
        name="get_usage_suggestions",
        method="GET",
        path="/v1/usage/suggestions",
        handler=get_suggestions,
        summary="Cheaper models of equal or better declared quality, with the saving on your own traffic",
        tag="Accounting",
        parameters=(
            Parameter("start", "From this date or moment (UTC); the midnight 30 days before the end when absent."),
            Parameter("end", "Up to this date or moment, without it; now when absent."),
            Parameter("project", "Only this project. Keys other than the administrator's see their own only."),
            Parameter("baseline", "Also what the same traffic would have cost on this model."),
        ),
        answers="One suggestion at most for each task and model in use, the largest saving first, with what it assumes.",
    ),
)

BLUEPRINT: Final = blueprint(ENDPOINTS, endpoint)

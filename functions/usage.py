"""``GET /v1/usage``: tokens and cost by key, project, model, day …, as JSON or CSV.

The administrator sees everything; any other key sees its own project.
"""

from __future__ import annotations

import csv
import io
from typing import Any, Final

from starlette.responses import Response

from functions.endpoints import Endpoint, Parameter, blueprint
from functions.http import Call, endpoint
from functions.periods import DAY, iso, moment
from functions.rendering import json_response, text_response, usd, usd_text
from functions.scopes import project_of
from shared.core.errors import InvalidRequestError
from shared.usage import GroupBy, UsageQuery, UsageRow

_COLUMNS: Final = ("requests", "attempts", "input_tokens", "output_tokens", "cache_read", "cache_creation", "reasoning")
_FILTERS: Final = ("key", "model", "deployment", "provider", "task", "operation")


async def get_usage(call: Call) -> Response:
    """Add up usage."""
    query = _query(call)
    rows = await call.gateway.usage.report(query)
    if "text/csv" in call.accept:
        return text_response(_csv(query, rows), media_type="text/csv")
    body = {
        "object": "list",
        "start": iso(query.start),
        "end": iso(query.end),
        "group_by": list(query.group_by),
        "data": [_row(row) for row in rows],
    }
    return json_response(body)


def _query(call: Call) -> UsageQuery:
    now = call.gateway.clock.now()
    end = moment(call.query("end"), name="end", default=now + 1)  # what began this very moment is part of it
    start = moment(call.query("start"), name="start", default=end - 30 * DAY)
    if not start < end:
        message = "`start` must be before `end`."
        raise InvalidRequestError(message, param="start", code="invalid_value")
    return UsageQuery(
        start=start,
        end=end,
        group_by=_group_by(call.query("group_by")),
        project=project_of(call),
        **{name: call.query(name) for name in _FILTERS},
    )


def _group_by(text: str | None) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in (text or "").split(",") if name.strip()))
    known = [name.value for name in GroupBy]
    for name in names:
        if name not in known:
            message = f"`group_by` has {name[:60]!r}; it takes a comma-separated list of {', '.join(known)}."
            raise InvalidRequestError(message, param="group_by", code="invalid_value")
    return names


def _row(row: UsageRow) -> dict[str, Any]:
    return {
        **row.group,
        **{name: getattr(row, name) for name in _COLUMNS},
        "errors": dict(row.errors),
        "attempt_errors": dict(row.attempt_errors),
        "cost_usd": usd(row.cost),
        "cost_nano_usd": row.cost,
        "cost_unknown": row.cost_unknown,
        "underestimates": row.underestimates,
        "exact": row.exact,
    }


def _csv(query: UsageQuery, rows: list[UsageRow]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow([*query.group_by, *_COLUMNS, "errors", "cost_usd", "cost_unknown", "underestimates"])
    for row in rows:
        group = [_safe(row.group.get(name, "")) for name in query.group_by]
        numbers = [getattr(row, name) for name in _COLUMNS]
        rest = [sum(row.errors.values()), usd_text(row.cost), row.cost_unknown, row.underestimates]
        writer.writerow([*group, *numbers, *rest])
    return text.getvalue()


def _safe(text: str) -> str:
    """Return text that a spreadsheet does not take for a formula."""
    return "'" + text if text[:1] in {"=", "+", "-", "@", "\t", "\r"} else text


ENDPOINTS: Final = (
    Endpoint(
        name="get_usage",
        method="GET",
        path="/v1/usage",
        handler=get_usage,
        summary="Tokens and cost, added up",
        tag="Accounting",
        parameters=(
            Parameter("group_by", f"Comma-separated: {', '.join(GroupBy)}."),
            Parameter("start", "From this date or moment (UTC); 30 days before the end when absent."),
            Parameter("end", "Up to this date or moment, without it; now when absent."),
            Parameter("project", "Only this project. Keys other than the administrator's see their own only."),
            *(Parameter(name, f"Only this {name}.") for name in _FILTERS),
        ),
        answers="One row for each group. Costs are USD, and integer nano-USD beside it; `exact` says that nothing is unknown.",
        media_types=("application/json", "text/csv"),
    ),
)

BLUEPRINT: Final = blueprint(ENDPOINTS, endpoint)

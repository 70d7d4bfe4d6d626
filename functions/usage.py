"""``GET /v1/usage``: tokens and cost by key, project, model, day, tag …, as JSON or CSV.

The administrator sees everything; any other key sees its own project. Grouped by a tag, such as the cost centre, every cost is
in exactly one row, what has no such tag in one of its own: the rows add up to ``total``.
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
from shared.usage.report import TAG

_COLUMNS: Final = ("requests", "attempts", "input_tokens", "output_tokens", "cache_read", "cache_creation", "reasoning")
_FILTERS: Final = ("key", "model", "deployment", "provider", "task", "operation")
DEFAULT_DAYS: Final = 30
MAX_TAG: Final = 256
UNTAGGED: Final = "(untagged)"
"""What CSV shows for a tag that requests do not have; JSON shows null."""


async def get_usage(call: Call) -> Response:
    """Add up usage."""
    query = _query(call)
    report = await call.gateway.usage.summary(query)
    if "text/csv" in call.accept:
        return text_response(_csv(query, report.rows), media_type="text/csv")
    body = {
        "object": "list",
        "start": iso(query.start),
        "end": iso(query.end),
        "group_by": list(query.group_by),
        "data": [_row(row) for row in report.rows],
        "total": _row(report.total),
        "exact": report.exact,
        "damaged_rows": report.damaged_rows,
        "coarse": report.coarse,
    }
    return json_response(body)


def _query(call: Call) -> UsageQuery:
    start, end = stretch(call)
    return UsageQuery(
        start=start,
        end=end,
        group_by=_group_by(call.query("group_by")),
        project=project_of(call),
        tags=_tags(call),
        **{name: call.query(name) for name in _FILTERS},
    )


def stretch(call: Call) -> tuple[float, float]:
    """Return the stretch of time a report is about; raise `InvalidRequestError`."""
    now = call.gateway.clock.now()
    end = moment(call.query("end"), name="end", default=now + 1)  # what began this very moment is part of it
    # From midnight on, so that all days but the last are whole: those are added up already.
    start = moment(call.query("start"), name="start", default=(end - DEFAULT_DAYS * DAY) // DAY * DAY)
    if not start < end:
        message = "`start` must be before `end`."
        raise InvalidRequestError(message, param="start", code="invalid_value")
    return start, end


def _tags(call: Call) -> tuple[tuple[str, str], ...]:
    found = []
    for text in call.request.query_params.getlist("tag"):
        name, colon, value = text.partition(":")
        if not name or not colon or len(text) > MAX_TAG:
            message = "`tag` must be a tag's name and value, such as cost_center:ops; without a value, what has no such tag."
            raise InvalidRequestError(message, param="tag", code="invalid_value")
        found.append((name, value))
    return tuple(found)


def _group_by(text: str | None) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(name.strip() for name in (text or "").split(",") if name.strip()))
    known = [name.value for name in GroupBy]
    for name in names:
        tagged = name.startswith(TAG) and len(TAG) < len(name) <= MAX_TAG
        if name not in known and not tagged:
            message = f"`group_by` has {name[:60]!r}; it takes a comma-separated list of {', '.join(known)}, tag:NAME."
            raise InvalidRequestError(message, param="group_by", code="invalid_value")
    return names


def _row(row: UsageRow) -> dict[str, Any]:
    return {
        **{name: label if label or not name.startswith(TAG) else None for name, label in row.group.items()},
        **{name: getattr(row, name) for name in _COLUMNS},
        "errors": dict(row.errors),
        "attempt_errors": dict(row.attempt_errors),
        "cost_usd": usd(row.cost),
        "cost_nano_usd": row.cost,
        "cost_unknown": row.cost_unknown,
        "billed_usd": usd(row.billed),
        "billed_nano_usd": row.billed,
        "billed_unknown": row.billed_unknown,
        "underestimates": row.underestimates,
        "exact": row.exact,
    }


def _csv(query: UsageQuery, rows: list[UsageRow]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    amounts = ("errors", "cost_usd", "cost_unknown", "underestimates", "billed_usd", "billed_unknown")
    writer.writerow([*map(_safe, query.group_by), *_COLUMNS, *amounts])
    for row in rows:
        group = [_safe(label) if label or not name.startswith(TAG) else UNTAGGED for name, label in row.group.items()]
        numbers = [getattr(row, name) for name in _COLUMNS]
        cost = [sum(row.errors.values()), usd_text(row.cost), row.cost_unknown, row.underestimates]
        writer.writerow([*group, *numbers, *cost, usd_text(row.billed), row.billed_unknown])
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
            Parameter("group_by", f"Comma-separated: {', '.join(GroupBy)}, tag:NAME."),
            Parameter("start", "From this date or moment (UTC); the midnight 30 days before the end when absent."),
            Parameter("end", "Up to this date or moment, without it; now when absent."),
            Parameter("project", "Only this project. Keys other than the administrator's see their own only."),
            *(Parameter(name, f"Only this {name}.") for name in _FILTERS),
            Parameter("tag", "Only requests with this tag, as NAME:VALUE; NAME: is those without. May be given several times."),
        ),
        answers=(
            "One row for each group, and their `total`. Costs are USD, and integer nano-USD beside it; `cost` is all that was "
            "spent, `billed` leaves failed attempts out. `exact` says that nothing is unknown, damaged or split by guess."
        ),
        media_types=("application/json", "text/csv"),
    ),
)

BLUEPRINT: Final = blueprint(ENDPOINTS, endpoint)

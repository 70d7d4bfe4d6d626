"""``/v1/budgets``: how much may be spent, and how much is. The administrator writes; callers read what covers them.

Spent and held are shown apart: spent is settled, held may yet be (it is leased to instances or in flight).
"""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from typing import Any, Final

from starlette.responses import Response

from functions.budget_forecasts import get_forecast
from functions.budget_views import find_budget, period_shown, view
from functions.endpoints import Access, Endpoint, Parameter, blueprint
from functions.http import Call, endpoint
from functions.rendering import NO_STORE, json_response
from functions.schemas_budgets import BudgetChange, BudgetRequest
from functions.validation import Schema
from shared.budgets import StoredBudget
from shared.core.errors import InvalidRequestError

BUDGET: Final = Schema(BudgetRequest, "BudgetRequest")
CHANGE: Final = Schema(BudgetChange, "BudgetChange")
MAX_PAGE: Final = 200

_AT_ONCE: Final = 16
_DEFAULT_PAGE: Final = 50
_PAGE: Final = {"type": "integer", "minimum": 1, "maximum": MAX_PAGE}


async def create_budget(call: Call) -> Response:
    """Make a budget."""
    stored = await call.gateway.budgets.create(_body(call, BUDGET))
    return json_response(await _whole(call, stored), status=201, headers=[NO_STORE])


async def list_budgets(call: Call) -> Response:
    """List budgets with what is spent and held in their current periods."""
    limit, after = _page_size(call.query("limit")), call.query("after") or ""
    gateway = call.gateway
    every = await (gateway.budgets.list() if call.caller.admin else gateway.budgets.covering(call.caller))
    rest = [stored for stored in every if stored.budget.id > after]
    page, data = rest[:limit], []
    for start in range(0, len(page), _AT_ONCE):
        some = page[start : start + _AT_ONCE]
        data += await asyncio.gather(*(view(call, stored, period_shown(call, stored.budget)) for stored in some))
    return json_response({"object": "list", "data": data, "has_more": len(rest) > len(page)}, headers=[NO_STORE])


async def get_budget(call: Call) -> Response:
    """Show a budget in its current period, or in the one that ``period`` names."""
    return json_response(await _whole(call, await find_budget(call)), headers=[NO_STORE])


async def change_budget(call: Call) -> Response:
    """Change a budget."""
    fields = _body(call, CHANGE)
    expected = fields.pop("expected_version", None)
    stored = await call.gateway.budgets.update(call.path("id"), fields, expected_version=expected)
    return json_response(await _whole(call, stored), headers=[NO_STORE])


async def disable_budget(call: Call) -> Response:
    """Disable a budget; its money stays."""
    stored = await call.gateway.budgets.delete(call.path("id"))
    return json_response({**await _whole(call, stored), "deleted": True}, headers=[NO_STORE])


async def _whole(call: Call, stored: StoredBudget) -> dict[str, Any]:
    """Return a budget's view, with the period before the current one: what was admitted in it may still be held."""
    asked = call.query("period")
    shown = await view(call, stored, period_shown(call, stored.budget, asked))
    start = shown["period"]["start"]
    if asked is None and start is not None:
        before = period_shown(call, stored.budget, moment_before=True)
        previous = await view(call, stored, before)
        amounts = {name: value for name, value in previous.items() if name.startswith(("spent_", "held_"))}
        shown["previous"] = {"period": previous["period"], **amounts}
    return shown


def _body(call: Call, schema: Schema) -> dict[str, Any]:
    """Return the checked body, its amount as it was written: a float would have lost what can't be kept, silently."""
    body = call.json()
    schema.check(body)
    if isinstance(body.get("limit_usd"), float):
        body["limit_usd"] = json.loads(call.body, parse_float=Decimal, parse_int=Decimal)["limit_usd"]
    return body


def _page_size(text: str | None) -> int:
    if text is None:
        return _DEFAULT_PAGE
    size = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_PAGE)) else 0
    if not 1 <= size <= MAX_PAGE:
        message = f"`limit` must be an integer from 1 to {MAX_PAGE}."
        raise InvalidRequestError(message, param="limit", code="invalid_value")
    return size


ENDPOINTS: Final = (
    Endpoint(
        name="create_budget",
        method="POST",
        path="/v1/budgets",
        handler=create_budget,
        summary="Make a budget",
        tag="Budgets",
        access=Access.ADMIN,
        body=BUDGET,
        status=201,
        answers="The budget. It is in force here at once, and on every instance within 5 seconds.",
    ),
    Endpoint(
        name="list_budgets",
        method="GET",
        path="/v1/budgets",
        handler=list_budgets,
        summary="List budgets with what is spent and held",
        tag="Budgets",
        parameters=(
            Parameter(
                "limit", f"At most so many; {_DEFAULT_PAGE} when absent.", schema={"type": "integer", "maximum": MAX_PAGE}
            ),
            Parameter("after", "Only those whose id comes after this one: the last id of the page before."),
        ),
        answers="Budgets by id. Keys other than the administrator's see those that their calls are charged to.",
    ),
    Endpoint(
        name="get_budget",
        method="GET",
        path="/v1/budgets/{id}",
        handler=get_budget,
        summary="Show a budget in one period",
        tag="Budgets",
        parameters=(Parameter("period", "A period such as 2026-11-23, 2026-W48, 2026-11 or total; now when absent."),),
        answers="The budget, what is spent, held and left in the period, and in the one before.",
    ),
    Endpoint(
        name="change_budget",
        method="PATCH",
        path="/v1/budgets/{id}",
        handler=change_budget,
        summary="Change a budget",
        tag="Budgets",
        access=Access.ADMIN,
        body=CHANGE,
        answers="The changed budget. It is in force here at once, and on every instance within 5 seconds.",
    ),
    Endpoint(
        name="disable_budget",
        method="DELETE",
        path="/v1/budgets/{id}",
        handler=disable_budget,
        summary="Disable a budget",
        tag="Budgets",
        access=Access.ADMIN,
        answers="The disabled budget. Its money stays, and so does its id.",
    ),
    Endpoint(
        name="get_budget_forecast",
        method="GET",
        path="/v1/budgets/{id}/forecast",
        handler=get_forecast,
        summary="What a budget will have spent at its period's end",
        tag="Budgets",
        answers="What is expected, an interval, and by how much such forecasts missed on this budget's own past.",
    ),
)

BLUEPRINT: Final = blueprint(ENDPOINTS, endpoint)

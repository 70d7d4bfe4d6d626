"""A budget in one period, as it is shown."""

from __future__ import annotations

from typing import Any, Final

from functions.http import Call
from functions.periods import iso
from functions.rendering import usd
from shared.budgets import StoredBudget, period_named
from shared.core.budgets import Budget, Period, period_of
from shared.core.errors import InvalidRequestError, NotFoundError
from shared.core.webhooks import host_of

_MAX_SHOWN: Final = 40


async def find_budget(call: Call) -> StoredBudget:
    """Return the budget of the path, if the caller may see it; raise `NotFoundError`, also when they may not."""
    budget_id = call.path("id")
    if call.caller.admin:
        return await call.gateway.budgets.get(budget_id)
    for stored in await call.gateway.budgets.covering(call.caller):
        if stored.budget.id == budget_id:
            return stored
    message = "There is no budget of that id that this key's calls are charged to. GET /v1/budgets lists those there are."
    raise NotFoundError(message, param="id")


def period_shown(call: Call, budget: Budget, key: str | None = None, *, moment_before: bool = False) -> Period:
    """Return the period to show: the one of that key, the current one, or the one before it."""
    if key is None:
        current = period_of(budget.cycle, budget.time_zone, call.gateway.clock.now())
        if not moment_before or current.start is None:
            return current
        return period_of(budget.cycle, budget.time_zone, current.start - 1)
    period = period_named(budget.cycle, budget.time_zone, key)
    if period is None:
        example = period_of(budget.cycle, budget.time_zone, call.gateway.clock.now()).key
        message = f"`period` is {key[:_MAX_SHOWN]!r}; this budget's periods are named such as {example}."
        raise InvalidRequestError(message, param="period", code="invalid_value")
    return period


async def view(call: Call, stored: StoredBudget, period: Period) -> dict[str, Any]:
    """Return a budget with its balance in a period. Where alerts go is the administrator's business."""
    budget = stored.budget
    balance = await call.gateway.ledger.balance(budget.id, period.key, budget.limit)
    return {
        "object": "budget",
        "id": budget.id,
        "name": budget.name,
        "scope": {"kind": budget.scope.kind.value, "name": budget.scope.name or None},
        "limit_usd": usd(budget.limit),
        "limit_nano_usd": budget.limit,
        "cycle": budget.cycle.value,
        "time_zone": budget.time_zone,
        "hard": budget.hard,
        "parent": budget.parent,
        "thresholds": list(budget.thresholds),
        "at_end": budget.at_end.value,
        "downgrade_at": budget.downgrade_at,
        "floor_tokens": budget.floor_tokens,
        "webhook_host": host_of(budget.webhook) if budget.webhook is not None and call.caller.admin else None,
        "enabled": budget.enabled,
        "version": stored.version,
        "created_at": iso(budget.created_at),
        "updated_at": iso(stored.updated_at),
        "period": {
            "key": period.key,
            "start": None if period.start is None else iso(period.start),
            "end": None if period.end is None else iso(period.end),
        },
        **_amounts(spent=balance.spent, held=balance.held, left=balance.left),
    }


def _amounts(**amounts: int) -> dict[str, Any]:
    shown: dict[str, Any] = {}
    for name, amount in amounts.items():
        shown |= {f"{name}_usd": usd(amount), f"{name}_nano_usd": amount}
    return shown

"""``GET /v1/budgets/{id}/forecast``: what a budget will have spent when its period ends, and how far such forecasts miss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from starlette.responses import Response

from functions.budget_views import find_budget, period_shown
from functions.http import Call
from functions.periods import DAY, iso
from functions.rendering import NO_STORE, json_response, usd
from shared.core.budgets import Budget, Scope, ScopeKind
from shared.core.forecast import Forecast, forecast
from shared.usage import UsageQuery

HISTORY_DAYS: Final = 56


async def get_forecast(call: Call) -> Response:
    """Foretell from the days before: all usage of the budget's scope, and of the budgets below it."""
    gateway = call.gateway
    budget = (await find_budget(call)).budget
    period, now = period_shown(call, budget), gateway.clock.now()
    balance = await gateway.ledger.balance(budget.id, period.key, budget.limit)
    daily = await _daily(call, budget, now)
    found = None
    if period.end is not None:
        days_left = max(0.0, period.end - now) / DAY
        found = forecast(daily, elapsed_share=now % DAY / DAY, days_left=days_left, spent=balance.spent)
    body = {
        "object": "budget.forecast",
        "budget": budget.id,
        "period": {"key": period.key, "end": None if period.end is None else iso(period.end)},
        "limit_usd": usd(budget.limit),
        "limit_nano_usd": budget.limit,
        "spent_usd": usd(balance.spent),
        "spent_nano_usd": balance.spent,
        "held_usd": usd(balance.held),
        "held_nano_usd": balance.held,
        "forecast": None if found is None else _shown(found, budget.limit),
        "history": {"first_day": _first_day(now, daily), "daily_nano_usd": daily},
    }
    return json_response(body, headers=[NO_STORE])


def _shown(found: Forecast, limit: int) -> dict[str, Any]:
    """Return a forecast. An amount is null where there is no telling; shares are of the limit and of what came."""
    amounts = {"expected": found.expected, "low": found.low, "high": found.high}
    return {
        **{f"{name}_usd": usd(amount) for name, amount in amounts.items()},
        **{f"{name}_nano_usd": amount for name, amount in amounts.items()},
        "share_of_limit": None if found.expected is None else round(found.expected / limit, 4),
        "over_limit": None if found.expected is None else found.expected > limit,
        "coverage": found.coverage,
        "days": found.days,
        "backtest_error": found.backtest_error,
        "backtest": None
        if found.backtest is None
        else {"replays": found.backtest.replays, "within": found.backtest.within, "error": found.backtest.error},
    }


async def _daily(call: Call, budget: Budget, now: float) -> list[int]:
    """Return what each day (UTC) cost, from the first that cost anything to today; nano-USD."""
    today = datetime.fromtimestamp(now, UTC).date()
    first = datetime.combine(today - timedelta(days=HISTORY_DAYS), datetime.min.time(), UTC).timestamp()
    covers = await _covered(call, budget)
    by_day: dict[str, int] = {}
    for row in await call.gateway.usage.report(UsageQuery(first, now + 1, ("day", "key", "project", "model"))):
        if covers(row.group):
            by_day[row.group["day"]] = by_day.get(row.group["day"], 0) + row.cost
    days = [by_day.get((today - timedelta(days=back)).isoformat(), 0) for back in range(HISTORY_DAYS, -1, -1)]
    silent = next((at for at, amount in enumerate(days) if amount), len(days) - 1)
    return days[silent:]


async def _covered(call: Call, budget: Budget) -> Callable[[Mapping[str, str]], bool]:
    """Return what says of a group of usage whether its calls are charged to the budget."""
    below = await call.gateway.budgets.below(budget.id)
    scopes = {each.scope for each in below} | {budget.scope}
    bound = {each.id for each in below if each.scope.kind is ScopeKind.BOUND}
    if bound:
        keys = await call.gateway.keys.list()
        scopes |= {Scope(ScopeKind.KEY, key.key_id) for key in keys if bound.intersection(key.budgets)}
    everything = Scope(ScopeKind.ORGANIZATION) in scopes

    def covers(group: Mapping[str, str]) -> bool:
        kinds = (ScopeKind.KEY, ScopeKind.PROJECT, ScopeKind.MODEL)
        return everything or any(Scope(kind, group[kind.value]) in scopes for kind in kinds)

    return covers


def _first_day(now: float, daily: list[int]) -> str:
    today: date = datetime.fromtimestamp(now, UTC).date()
    return (today - timedelta(days=len(daily) - 1)).isoformat()

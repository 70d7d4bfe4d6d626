"""What is told of how things stand: breakers of this instance, budgets, work in the background. Read anew each time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from shared.core import semconv
from shared.core.budgets import Balance, Budget, ScopeKind, period_of
from shared.core.health import BreakerState
from shared.core.telemetry import Attribute, Measurement

if TYPE_CHECKING:
    from shared.chains import Queue
    from shared.core.registry import Registry
    from shared.gateway import Gateway

BREAKER_VALUES: Final = {BreakerState.CLOSED: 0, BreakerState.HALF_OPEN: 1, BreakerState.OPEN: 2}
_AT_ONCE: Final = 20


def tell_breakers(gateway: Gateway) -> None:
    """Tell the state of every breaker that this instance knows. Cheap, and nothing when nothing is told."""
    if gateway.tells:
        gateway.telemetry.gauge(breakers(gateway))


async def tell(gateway: Gateway) -> None:
    """Tell how budgets and the work in the background stand. Raise `StorageUnavailableError`: the next time tells again."""
    if gateway.tells:
        found, now = await balances(gateway), gateway.clock.now()
        gateway.telemetry.gauge([measured for each in found for measured in budget_gauges(*each)])
        gateway.telemetry.gauge([measured for budget, _ in found for measured in period_gauges(budget, now)])
        gateway.telemetry.gauge(queue_gauges(await gateway.chains.queue(), now))


def breakers(gateway: Gateway) -> list[Measurement]:
    """Return the breakers of the deployments this instance has called, by deployment."""
    registry = gateway.catalog.current
    return [
        Measurement(semconv.BREAKER, BREAKER_VALUES[report.health.breaker], _deployment(registry, name))
        for name, report in gateway.health.report(gateway.clock.monotonic()).items()
        if name in registry.deployments
    ]


def _deployment(registry: Registry, name: str) -> dict[str, Attribute]:
    deployment = registry.deployments[name]
    provider = registry.providers[deployment.provider]
    region = {} if deployment.region is None else {semconv.REGION: deployment.region}
    return {
        semconv.DEPLOYMENT: name,
        semconv.REQUEST_MODEL: deployment.model,
        semconv.PROVIDER: provider.semconv_name or provider.name,
        **region,
    }


async def balances(gateway: Gateway) -> list[tuple[Budget, Balance]]:
    """Return every budget in force with its balance in the current period; raise `StorageUnavailableError`."""
    now = gateway.clock.now()
    budgets = [stored.budget for stored in await gateway.budgets.list() if stored.budget.enabled]

    async def balance(budget: Budget) -> Balance:
        return await gateway.ledger.balance(budget.id, period_of(budget.cycle, budget.time_zone, now).key, budget.limit)

    found: list[Balance] = []
    for start in range(0, len(budgets), _AT_ONCE):
        found += await asyncio.gather(*map(balance, budgets[start : start + _AT_ONCE]))
    return list(zip(budgets, found, strict=True))


def budget_gauges(budget: Budget, balance: Balance) -> list[Measurement]:
    """Return a budget's gauges, in nano-USD; those of a project's budget name it. A forecast needs the cycle."""
    where = _budget(budget)
    values = ((semconv.BUDGET_LIMIT, balance.limit), (semconv.BUDGET_SPENT, balance.spent), (semconv.BUDGET_HELD, balance.held))
    return [Measurement(instrument, value, where) for instrument, value in values]


def period_gauges(budget: Budget, now: float) -> list[Measurement]:
    """Return the bounds of a budget's period where its days are not UTC's, which who reads telemetry can't know."""
    period = period_of(budget.cycle, budget.time_zone, now)
    if period.start is None or period.end is None or period == period_of(budget.cycle, "UTC", now):
        return []
    where = _budget(budget)
    return [Measurement(semconv.BUDGET_BEGAN, period.start, where), Measurement(semconv.BUDGET_ENDS, period.end, where)]


def _budget(budget: Budget) -> dict[str, Attribute]:
    of_project = {semconv.PROJECT: budget.scope.name} if budget.scope.kind is ScopeKind.PROJECT else {}
    return {semconv.BUDGET: budget.id, semconv.CYCLE: budget.cycle.value, **of_project}


def queue_gauges(queue: Queue, now: float) -> Sequence[Measurement]:
    """Return how many chains are in each state, and for how long the oldest one has waited to begin (0 when none does)."""
    # Beyond those that were looked at, only the number of chains is known.
    states = {"queued": queue.queued, "running": queue.running, "waiting": queue.waiting}
    states["other"] = max(0, queue.unfinished - sum(states.values()))
    age = 0.0 if queue.oldest_queued is None else max(0.0, now - queue.oldest_queued)
    depths = [Measurement(semconv.QUEUE_DEPTH, count, {semconv.QUEUE_STATE: state}) for state, count in states.items()]
    return [*depths, Measurement(semconv.QUEUE_AGE, age)]

"""What one request may spend: before an attempt is sent, its upper bound is held on every budget; afterwards it is settled.

The upper bound is sound: input tokens counted from above, output held to what is sent upstream, the dearest price the call
could be billed at. Where a hard budget applies, an unknown price is refused, and an attempt of which nobody knows what it cost
(a timeout, a lost connection, a stream that was cut) is charged its whole bound.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any, Final

from shared.core import bounds, pricing
from shared.core.budgets import Account, AtEnd, Budget, account_of, period_of
from shared.core.chat import ModelPreferences, Objective, Requirements, Usage
from shared.core.errors import BudgetExceededError
from shared.core.records import Caller
from shared.core.registry import Deployment, Model, Price, Registry
from shared.core.route import Candidate
from shared.gateway import Gateway
from shared.ledger import Hold, Intent

_log = logging.getLogger(__name__)

AGAIN: Final = 0.25
"""Seconds a request that was refused for one candidate waits for the money of another, cheaper one."""


@dataclass(frozen=True, slots=True)
class Held:
    """Money held for an attempt. ``output_tokens`` is what its output is held to upstream, None to send what was asked for."""

    hold: Hold
    price: Price | None
    output_tokens: int | None = None

    @property
    def hard(self) -> bool:
        """Say whether one of its budgets must not be exceeded."""
        return self.hold.hard


class Spending:
    """One request's dealings with budgets and ledger.

    With ``written`` nothing is sent before its intent is in the store, also where no hard budget asks for that.
    """

    def __init__(
        self,
        gateway: Gateway,
        caller: Caller,
        registry: Registry,
        *,
        request_id: str,
        moment: float,
        day: date,
        written: bool = False,
    ) -> None:
        self._gateway = gateway
        self._caller = caller
        self._registry = registry
        self._request_id = request_id
        self._moment = moment
        self._day = day
        self._written = written
        self._exceeded: BudgetExceededError | None = None
        self._short: dict[str, int] = {}  # by budget: the smallest amount it did not cover

    @property
    def exceeded(self) -> BudgetExceededError:
        """The refusal of the first attempt that a budget did not cover."""
        return self._exceeded or BudgetExceededError("No budget covers this request.", budget="")

    async def budgets(self, model: str) -> tuple[Budget, ...]:
        """Return the budgets a call to this model is charged to. Raise `StorageUnavailableError`, `PermissionDeniedError`."""
        known = self._gateway.budgets.current(self._caller, model)
        return known if known is not None else await self._gateway.budgets.applying(self._caller, model)

    async def economised(self, requirements: Requirements) -> Requirements:
        """Return the requirements with cheap preferred, if a budget asks for that because most of it is gone."""
        for budget in await self.budgets(requirements.model):
            if budget.at_end is AtEnd.DOWNGRADE and self._running_out(budget):
                preferences = replace(requirements.preferences or ModelPreferences(), objective=Objective.COST)
                return replace(requirements, preferences=preferences)
        return requirements

    def _running_out(self, budget: Budget) -> bool:
        account = account_of(budget, self._moment)
        seen = self._gateway.ledger.seen(account.budget, account.period)
        return seen is not None and seen.limit > 0 and seen.spent >= budget.downgrade_at * seen.limit

    # ---- before ------------------------------------------------------------------------------------------------------

    async def hold(
        self, requirements: Requirements, candidate: Candidate, number: int, *, facts: Mapping[str, Any]
    ) -> Held | None:
        """Hold what an attempt may cost; None when a budget does not cover it. Raise `StorageUnavailableError`."""
        deployment = self._registry.deployments[candidate.deployment]
        price = pricing.price_on(deployment.prices, self._day)
        budgets = await self.budgets(deployment.model)
        accounts = tuple([account_of(budget, self._moment) for budget in budgets])
        intent = Intent(self._request_id, number, facts)
        try:
            if not any([account.hard for account in accounts]):  # noqa: C419  (a list is faster for the usual none or one)
                reserve = self._gateway.ledger.reserve
                return Held(await reserve(intent, accounts, candidate.worst_cost or 0, written=self._written), price)
            return await self._hold_hard(requirements, deployment, price, intent=intent, budgets=budgets, accounts=accounts)
        except BudgetExceededError as error:
            self._exceeded = self._exceeded or _dated(error, budgets, self._moment)
            return None

    async def _hold_hard(
        self,
        requirements: Requirements,
        deployment: Deployment,
        price: Price | None,
        *,
        intent: Intent,
        budgets: tuple[Budget, ...],
        accounts: tuple[Account, ...],
    ) -> Held:
        hard = next(budget for budget in budgets if budget.hard)
        if surcharged := bounds.surcharges(requirements):
            message = (
                f"With `{min(surcharged)}` a provider bills other prices than are known, and the budget {hard.id} covers "
                "only calls whose cost is bounded. Leave it out."
            )
            raise BudgetExceededError(message, budget=hard.id)
        if price is None or not bounds.is_priced(price, requirements.service_tier):
            tier = "" if price is None else " at the `service_tier` that was asked for"
            message = (
                f"The price of {deployment.id}{tier} is not known, and the budget {hard.id} covers only calls whose cost is "
                "bounded. Ask for another model, or have its price added to the catalog."
            )
            raise BudgetExceededError(message, budget=hard.id)
        model = self._registry.models[deployment.model]
        bound = _output_bound(requirements, model, self._registry)
        amount = _worst(price, requirements, model, bound)
        floors = [budget.floor_tokens for budget in budgets if budget.hard and budget.at_end is AtEnd.CLAMP]
        floor = min(max(floors), bound) if floors and len(floors) == sum(budget.hard for budget in budgets) else bound
        hold = await self._reserve(intent, accounts, amount, least=_worst(price, requirements, model, floor))
        if hold.amount < amount:
            bound = _affordable(price, requirements, model, hold.amount, low=floor, high=bound)
        return Held(hold, price, bound or None)

    async def _reserve(self, intent: Intent, accounts: tuple[Account, ...], amount: int, *, least: int) -> Hold:
        """Reserve. A request waits for money once, not again at each of its candidates."""
        for account in accounts:
            if account.hard and least >= self._short.get(account.budget, least + 1):
                raise self.exceeded
        wait = AGAIN if self._short else None
        try:
            return await self._gateway.ledger.reserve(intent, accounts, amount, least=least, wait=wait)
        except BudgetExceededError as error:
            self._short[error.budget] = min(least, self._short.get(error.budget, least))
            raise

    # ---- afterwards --------------------------------------------------------------------------------------------------

    def settle(self, held: Held, usage: Usage | None, *, facts: Mapping[str, Any]) -> int | None:
        """Charge an attempt and return what was charged, in nano-USD; None when that is not known (and no hard budget applies).

        ``usage`` None is an outcome that providers don't charge for.
        """
        ledger = self._gateway.ledger
        if usage is None:
            ledger.void(held.hold, facts=facts)
            return 0
        cost = None if held.price is None else pricing.cost(held.price, usage)
        if held.hard and held.price is not None and not bounds.is_priced(held.price, usage.service_tier):
            _tell_once(str(held.hold.intent.facts.get("deployment", "a deployment")), usage.service_tier or "")
        if held.hard and (cost is None or not usage.exact):
            cost = max(cost or 0, held.hold.amount)
        ledger.settle(held.hold, cost or 0, facts=facts)
        return cost

    def release(self, held: Held) -> None:
        """Give back what was held for an attempt that was not sent."""
        self._gateway.ledger.void(held.hold)


def _dated(error: BudgetExceededError, budgets: tuple[Budget, ...], moment: float) -> BudgetExceededError:
    """Return a refusal that says when the budget's next period begins."""
    budget = next((one for one in budgets if one.id == error.budget), None)
    end = None if budget is None else period_of(budget.cycle, budget.time_zone, moment).end
    if end is None:
        return error
    begins = datetime.fromtimestamp(end, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return BudgetExceededError(f"{error.message} The next period begins {begins}.", budget=error.budget, resets_at=end)


@lru_cache(maxsize=256)
def _tell_once(deployment: str, service_tier: str) -> None:
    """Say that a call may have passed its bound. Being cached, it says so once for each tier of a deployment."""
    said = "overrun possible: %s billed at the service tier %.40r, whose rates are not in the catalog; the bound is charged"
    _log.warning(said, deployment, service_tier)


def _output_bound(requirements: Requirements, model: Model, registry: Registry) -> int:
    """Return the most tokens a choice may have under a hard budget: what is sent upstream if the caller set no limit."""
    bounded = requirements if requirements.budget_limit is not None else replace(requirements, budget_limit=0)
    return bounds.output_bound(bounded, model, registry.policy)


def _worst(price: Price, requirements: Requirements, model: Model, output_tokens: int) -> int:
    most_input = bounds.input_bound(requirements, model)
    return pricing.worst_case(price, input_tokens=most_input, output_tokens=bounds.billed_output(requirements, output_tokens))


def _affordable(price: Price, requirements: Requirements, model: Model, amount: int, *, low: int, high: int) -> int:
    """Return the longest output an amount covers; ``low`` is known to be covered, ``high`` not to be."""
    while high - low > 1:
        middle = (low + high) // 2
        if _worst(price, requirements, model, middle) <= amount:
            low = middle
        else:
            high = middle
    return low

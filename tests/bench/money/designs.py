"""What is measured side by side: the ledger under a hard and a soft budget, and the naive design."""

from __future__ import annotations

from typing import Any, Protocol

from shared.core.budgets import Account
from shared.core.errors import BudgetExceededError, StorageUnavailableError
from shared.ledger import DEFAULT_POLICY, Hold, Intent, Ledger
from shared.ports import Clock, Entity, EntityChangedError, EntityExistsError, EntityNotFoundError, Tables

LIMIT = 10**17
PERIOD = "total"
_FACTS = {"model": "gpt-5.1", "deployment": "eastus-1", "key": "3f2a91bc", "project": "project-b"}


class Design(Protocol):
    """A way to hold money before a call and to settle it after."""

    async def reserve(self, name: str, amount: int) -> Any:
        """Hold an amount; return what `settle` wants."""
        ...

    async def settle(self, held: Any, charged: int) -> None:
        """Charge what it did cost."""
        ...

    async def aclose(self) -> None:
        """End."""
        ...


class ByLedger:
    """The ledger as it is shipped."""

    def __init__(self, tables: Tables, clock: Clock, instance: str, *, budget: str, hard: bool) -> None:
        self._ledger = Ledger(tables, clock, instance)
        self._accounts = (Account(budget, PERIOD, LIMIT, hard),)

    async def reserve(self, name: str, amount: int) -> Hold:
        """Hold an amount."""
        return await self._ledger.reserve(Intent(name, 1, _FACTS), self._accounts, amount)

    async def settle(self, held: Hold, charged: int) -> None:
        """Settle; the ledger writes it later."""
        self._ledger.settle(held, charged)
        self._ledger.ended(held.intent.request_id)

    async def aclose(self) -> None:
        """End."""
        await self._ledger.aclose()


class Naive:
    """One row for a budget, compared and swapped by its ETag for each reserve and each settle.

    It reads the row before each change, and waits after a conflict as the ledger does. A crash leaves its money held for good,
    and a write that is not answered is taken for one that did not happen.
    """

    def __init__(self, tables: Tables, clock: Clock, budget: str) -> None:
        self._table = tables.table("naive")
        self._clock = clock
        self._budget = budget

    async def reserve(self, name: str, amount: int) -> int:
        """Hold an amount."""
        del name
        await self._change(spent=0, held=amount)
        return amount

    async def settle(self, held: int, charged: int) -> None:
        """Charge, and free the rest."""
        await self._change(spent=charged, held=-held)

    async def aclose(self) -> None:
        """Nothing to end."""

    async def _change(self, *, spent: int, held: int) -> None:
        conflicts = 0
        while True:
            row = await self._table.get(self._budget, "h")
            before = {} if row is None else row.properties
            after = {"spent": int(before.get("spent", 0)) + spent, "held": int(before.get("held", 0)) + held}
            if after["spent"] + after["held"] > LIMIT:
                message = "spent"
                raise BudgetExceededError(message, budget=self._budget)
            try:
                changed = Entity(self._budget, "h", after, "" if row is None else row.etag)
                await (self._table.insert(changed) if row is None else self._table.replace(changed))
            except (EntityChangedError, EntityExistsError, EntityNotFoundError, StorageUnavailableError):
                conflicts += 1
                await self._clock.sleep(DEFAULT_POLICY.backoff(conflicts, self._clock.draw()))
            else:
                return


def design(name: str, tables: Tables, clock: Clock, instance: str, *, budget: str) -> Design:
    """Return the design of that name: hard, soft or naive."""
    if name == "naive":
        return Naive(tables, clock, budget)
    return ByLedger(tables, clock, instance, budget=budget, hard=name == "hard")

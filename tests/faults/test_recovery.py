"""Recovery by several instances at once: each may be overtaken between any two of its steps."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shared.adapters.tables import open_tables
from shared.core.budgets import Account
from shared.ledger import Intent, Ledger, LedgerPolicy
from shared.ports import Action, EntityTable, Op, Tables
from tests.fakes import FakeClock

LIMIT = 1_000_000
HARD = (Account("b", "total", LIMIT, hard=True),)
POLICY = LedgerPolicy(gather=0.001, wait=20.0)


class Clocks(FakeClock):
    """Virtual for the ledger's idea of time, real for its waiting."""

    async def sleep(self, seconds: float) -> None:
        """Wait a real moment, whatever was asked for."""
        await asyncio.sleep(min(seconds, 0.01))


class Overtaken:
    """A store on which somebody else's whole recovery comes before this one's first write of attempts."""

    def __init__(self, tables: Tables, other: Ledger) -> None:
        self._tables = tables
        self._other: Ledger | None = other

    def table(self, name: str) -> EntityTable:
        """Return the table, on which transactions come second."""
        table = self._tables.table(name)
        write = table.transact

        async def transact(ops: Sequence[Op]) -> list[str]:
            other, self._other = self._other, None
            if other is not None and all(op.action is Action.REPLACE for op in ops):
                for session in await other.recover():
                    await other.finish(session)
            return await write(ops)

        table.transact = transact  # type: ignore[method-assign]
        return table

    async def aclose(self) -> None:
        """Leave closing to the owner."""


async def test_29_two_recoveries_at_once_charge_once() -> None:
    """The one that comes second sees that all is charged, and goes on."""
    tables, clock = open_tables("memory:"), Clocks()
    dead = Ledger(tables, clock, "dead", policy=POLICY)
    for number in range(3):
        await dead.reserve(Intent(f"req_{number}", 1), HARD, 300)
    assert dead._task is not None  # what is to be killed is within
    dead._task.cancel()
    await asyncio.gather(dead._task, return_exceptions=True)
    for session in dead._sessions():
        await session.stop()

    first = Ledger(tables, clock, "first", policy=POLICY)
    second = Ledger(Overtaken(tables, first), clock, "second", policy=POLICY)
    assert [[], []] == [await first.recover(), await second.recover()]
    clock.seconds += POLICY.ttl + 1
    found = await second.recover()

    assert 1 == len(found)
    assert [300, 300, 300] == [attempt.charged for attempt in found[0].attempts]
    balance = await second.balance("b", "total", LIMIT)
    assert (900, 0) == (balance.spent, balance.held)
    await tables.aclose()

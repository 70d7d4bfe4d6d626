"""The ledger where things change or break under it: budgets, one account of many, rows, answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import cast

import pytest

from shared.adapters.tables import open_tables
from shared.core.budgets import Account
from shared.core.errors import BudgetExceededError, StorageUnavailableError
from shared.ledger import Hold, Intent, IntentState, Ledger, LedgerPolicy
from shared.ledger import rows as layout
from shared.ports import Action, Entity, EntityTable, Op, Tables
from tests.fakes import FakeClock

PERIOD = "2026-11"
LIMIT = 1_000_000
POLICY = LedgerPolicy(gather=0.001, wait=0.5)


class Clocks(FakeClock):
    """Virtual for the ledger's idea of time, real for its waiting: nothing spins, nothing is slow."""

    async def sleep(self, seconds: float) -> None:
        """Wait a real moment, whatever was asked for."""
        await asyncio.sleep(min(seconds, 0.01))


Hook = Callable[[str, Sequence[Op]], Awaitable[None]]


async def nothing(partition: str, ops: Sequence[Op]) -> None:
    """Let everything be."""


class Fragile:
    """A store with something that happens before and after each operation: a hook that raises makes it fail."""

    def __init__(self, inner: Tables) -> None:
        self._inner = inner
        self.before: Hook = nothing
        self.after: Hook = nothing

    def table(self, name: str) -> EntityTable:
        """Return a table that fails like the store."""
        return cast("EntityTable", _FragileTable(self._inner.table(name), self))


class _FragileTable:
    def __init__(self, inner: EntityTable, store: Fragile) -> None:
        self._inner = inner
        self._store = store

    def __getattr__(self, name: str) -> object:
        return getattr(self._inner, name)

    async def get(self, partition: str, row: str) -> Entity | None:
        await self._store.before(partition, ())
        return await self._inner.get(partition, row)

    async def transact(self, ops: Sequence[Op]) -> list[str]:
        partition = ops[0].entity.partition
        await self._store.before(partition, ops)
        etags = list(await self._inner.transact(ops))
        await self._store.after(partition, ops)
        return etags


@pytest.fixture
async def store() -> AsyncIterator[Tables]:
    """Return an empty store."""
    opened = open_tables("memory:")
    yield opened
    await opened.aclose()


def account(name: str = "b", *, limit: int = LIMIT, hard: bool = True) -> tuple[Account, ...]:
    """Return an account alone."""
    return (Account(name, PERIOD, limit, hard=hard),)


def fragile(store: Tables) -> tuple[Fragile, Tables]:
    """Return a store that can be told to fail, as what it is and as what the ledger takes."""
    made = Fragile(store)
    return made, cast("Tables", made)


def ledger(tables: Tables, name: str = "i1", *, clock: FakeClock | None = None) -> Ledger:
    """Return a process's ledger."""
    return Ledger(tables, clock or Clocks(), name, policy=POLICY)


async def waiting(one: Ledger, request: str, accounts: tuple[Account, ...], amount: int) -> asyncio.Task[Hold]:
    """Return a reservation that waits for money that others hold."""
    task = asyncio.ensure_future(one.reserve(Intent(request, 1), accounts, amount))
    await asyncio.sleep(0.05)
    assert not task.done()
    return task


@pytest.mark.parametrize("hard", [True, False])
async def test_a_budget_that_turns_hard_or_soft_settles_what_was_held_before(store: Tables, *, hard: bool) -> None:
    """The settlement of an older kind of account neither fails nor changes the newer one, also while somebody waits."""
    one = ledger(store)
    older = await one.reserve(Intent("req_1", 1), account(limit=LIMIT, hard=not hard), 10)
    full = await one.reserve(Intent("req_2", 1), account(limit=100), 90)
    waits = await waiting(one, "req_3", account(limit=100), 50)

    one.settle(older, 5)
    lease = full.session.leases[layout.AccountKey("b", PERIOD)]
    assert account(limit=100) == (lease.account,)
    one.void(full)

    assert 50 == (await waits).amount
    await one.flush()
    assert 5 == (await one.balance("b", PERIOD, 100)).spent
    await one.aclose()


async def test_a_budget_that_turns_soft_lets_those_who_wait_pass(store: Tables) -> None:
    """Who waited for money of a hard budget is let through, not refused, once the budget only tells."""
    one = ledger(store)
    await one.reserve(Intent("req_1", 1), account(limit=100), 90)
    waits = await waiting(one, "req_2", account(limit=100), 50)

    await one.reserve(Intent("req_3", 1), account(limit=100, hard=False), 50)

    assert 50 == (await waits).amount
    await one.aclose()


@pytest.mark.parametrize("fails", ["read", "write"])
async def test_one_account_that_cannot_be_reached_keeps_nobody_from_others(store: Tables, fails: str) -> None:
    """A throttled or damaged partition of one budget refuses that budget's calls, and no other's."""
    broken, tables = fragile(store)
    one = ledger(tables)

    async def fail(partition: str, ops: Sequence[Op]) -> None:
        if partition.startswith("b~bad~") and bool(ops) == (fails == "write"):
            message = "throttled"
            raise StorageUnavailableError(message)

    broken.before = fail
    stuck = asyncio.ensure_future(one.reserve(Intent("req_1", 1), account("bad"), 10))
    await asyncio.sleep(0.05)

    async with asyncio.timeout(0.3):
        await one.reserve(Intent("req_2", 1), account("good"), 10)
        await one.reserve(Intent("req_3", 1), account("good"), 20)
    with pytest.raises(StorageUnavailableError):
        await stuck
    broken.before = nothing
    await one.aclose()


async def test_an_amount_that_no_row_can_hold_harms_nobody(store: Tables) -> None:
    """Such an attempt of a soft budget is written at the most there is; others' rows land beside it."""
    one = ledger(store)
    soft = account(hard=False)
    huge = await one.reserve(Intent("req_1", 1), soft, 10**30)
    other = await one.reserve(Intent("req_2", 1), soft, 10)
    one.settle(other, 7)
    one.settle(huge, 10**30)

    async with asyncio.timeout(1):
        await one.flush()

    assert 10**15 + 7 == (await one.balance("b", PERIOD, LIMIT)).spent
    with pytest.raises(BudgetExceededError):
        await one.reserve(Intent("req_3", 1), account("h", limit=10**18), 10**30)
    await one.aclose()


async def test_an_intent_that_landed_unheard_before_its_session_was_lost_is_given_back(store: Tables) -> None:
    """The write landed, its answer was lost, recovery came: the request goes on in a new session and is charged once."""
    broken, tables = fragile(store)
    clock = Clocks()
    one, other = ledger(tables, clock=clock), ledger(store, "i2", clock=clock)
    first = await one.reserve(Intent("req_1", 1), account(), 10)

    async def lose(_: str, ops: Sequence[Op]) -> None:
        if any(op.entity.row.startswith("r~req_2") for op in ops):
            broken.after = nothing
            await other._recovery.recover(first.session.name)
            message = "no answer"
            raise StorageUnavailableError(message)

    broken.after = lose
    hold = await one.reserve(Intent("req_2", 1), account(), 300)
    one.settle(first, 10)
    one.settle(hold, 200)
    await one.flush()

    assert 10 + 200 == (await one.balance("b", PERIOD, LIMIT)).spent
    await one.aclose()
    await other.aclose()


async def test_a_damaged_session_keeps_no_other_from_being_recovered(store: Tables) -> None:
    """About the damaged one nothing is guessed; what the others hold is free again."""
    clock = Clocks()
    names = iter(["aaa", "bbb", "ccc"])
    dead = [Ledger(store, clock, "i1", policy=POLICY, make_name=lambda: next(names)) for _ in range(2)]
    for number, one in enumerate(dead):
        await one.reserve(Intent(f"req_{number}", 1), account(f"b{number}"), 300)
        for session in one._sessions():
            await session.stop()
    table = store.table(layout.TABLE)
    await table.transact([Op(Action.UPSERT, Entity(layout.session_partition("aaa"), "r~req_0~1", {"state": "?"}))])
    alive = ledger(store, "i2", clock=clock)

    await alive.recover()
    clock.seconds += POLICY.ttl + 1
    found = await alive.recover()

    assert ["bbb"] == [one.session for one in found]
    assert (300, 0) == ((balance := await alive.balance("b1", PERIOD, LIMIT)).spent, balance.held)
    assert IntentState.CHARGED is found[0].attempts[0].state
    for one in (*dead, alive):
        await one.aclose()

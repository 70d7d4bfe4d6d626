"""The ledger over a real store: what recovery, late settlements and forgetting leave behind, step by step."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from shared.adapters.tables import open_tables
from shared.core.budgets import Account
from shared.core.errors import BudgetExceededError
from shared.ledger import Intent, IntentState, Ledger, LedgerPolicy
from shared.ledger import rows as layout
from shared.ports import Entity, Tables
from tests.fakes import FakeClock

LIMIT = 1_000_000
HARD = (Account("b", "2026-11", LIMIT, hard=True),)
SOFT = (Account("s", "2026-11", LIMIT, hard=False),)
POLICY = LedgerPolicy(gather=0.001, wait=0.5)


class Clocks(FakeClock):
    """Virtual for the ledger's idea of time, real for its waiting: nothing spins, nothing is slow."""

    async def sleep(self, seconds: float) -> None:
        """Wait a real moment, whatever was asked for."""
        await asyncio.sleep(min(seconds, 0.01))


@pytest.fixture
async def tables() -> AsyncIterator[Tables]:
    """Return an empty store."""
    opened = open_tables("memory:")
    yield opened
    await opened.aclose()


def ledger(tables: Tables, clock: FakeClock, name: str = "i1") -> Ledger:
    """Return a process's ledger."""
    return Ledger(tables, clock, name, policy=POLICY)


async def kill(one: Ledger) -> None:
    """Stop a ledger at once, as a kill would: nothing more is written."""
    for session in one._sessions():  # what is to be killed is within
        await session.stop()
    if one._task is not None:
        one._task.cancel()
        await asyncio.gather(one._task, return_exceptions=True)


async def intents(tables: Tables) -> dict[str, layout.IntentRow]:
    """Return every attempt of every session, by request."""
    table = tables.table(layout.TABLE)
    names = [entity.row async for entity in table.query(layout.SESSIONS)]
    names += [entity.row.partition("~")[2] async for entity in table.query(layout.CLOSED)]
    found = {}
    for name in names:
        async for entity in table.query(layout.session_partition(name), start=layout.INTENT, end="r~~"):
            row = layout.intent(entity)
            found[row.request_id] = row
    return found


async def recovered(one: Ledger, clock: FakeClock) -> int:
    """Let the TTL pass and recover; return how many sessions were."""
    found = await one.recover()
    clock.seconds += POLICY.ttl + 1
    found += await one.recover()
    for session in found:
        await one.finish(session)
    return len(found)


async def test_a_killed_call_is_charged_its_estimate_once(tables: Tables) -> None:
    """Fault 29: pending becomes x, the lease is closed, the head shows just the estimate; again changes nothing."""
    clock = Clocks()
    dead, alive = ledger(tables, clock), ledger(tables, clock, "i2")
    await dead.reserve(Intent("req_1", 1), HARD, 300)
    await kill(dead)

    assert 1 == await recovered(alive, clock)
    assert 0 == await recovered(alive, clock)

    assert IntentState.CHARGED is (await intents(tables))["req_1"].state
    balance = await alive.balance("b", "2026-11", LIMIT)
    assert (300, 0) == (balance.spent, balance.held)
    await alive.aclose()


async def test_a_frozen_process_settles_late_and_is_corrected_once(tables: Tables) -> None:
    """Fault 31: fenced, charged at its estimate, then corrected to what it really cost; its next call is a new session's."""
    clock = Clocks()
    frozen, alive = ledger(tables, clock), ledger(tables, clock, "i2")
    hold = await frozen.reserve(Intent("req_1", 1), HARD, 300)
    unsent = await frozen.reserve(Intent("req_2", 1), HARD, 200)
    assert 1 == await recovered(alive, clock)
    assert 500 == (await alive.balance("b", "2026-11", LIMIT)).spent

    frozen.settle(hold, 120)
    frozen.settle(hold, 120)
    frozen.void(unsent)
    again = await frozen.reserve(Intent("req_3", 1), HARD, 50)
    frozen.settle(again, 50)
    await frozen.flush()
    await frozen.flush()
    await frozen.aclose()

    balance = await alive.balance("b", "2026-11", LIMIT)
    assert (120 + 50, 0) == (balance.spent, balance.held)
    await alive.aclose()


async def test_a_clock_five_minutes_off_costs_nothing(tables: Tables) -> None:
    """Fault 32: recovery that comes too early is corrected; the limit holds."""
    clock, fast = Clocks(), Clocks(epoch=1_795_000_000.0 + 300 + POLICY.ttl + POLICY.skew)
    one, other = ledger(tables, clock), ledger(tables, fast, "i2")
    hold = await one.reserve(Intent("req_1", 1), HARD, LIMIT)
    for session in await other.recover():
        await other.finish(session)

    with pytest.raises(BudgetExceededError):
        await other.reserve(Intent("req_2", 1), HARD, 1)
    one.settle(hold, 400)
    await one.flush()
    await one.aclose()

    assert 400 == (await other.balance("b", "2026-11", LIMIT)).spent
    await other.aclose()


async def test_a_period_that_ends_while_money_is_held_is_charged_where_it_was_admitted(tables: Tables) -> None:
    """October's call settles in October, whatever November does."""
    clock = Clocks()
    one = ledger(tables, clock)
    october, november = Account("b", "2026-10", LIMIT, hard=True), Account("b", "2026-11", LIMIT, hard=True)
    hold = await one.reserve(Intent("req_1", 1), (october,), LIMIT)
    other = await one.reserve(Intent("req_2", 1), (november,), LIMIT)

    one.settle(hold, 7)
    one.settle(other, 9)
    await one.aclose()

    assert (7, 9) == ((await one.balance("b", "2026-10", LIMIT)).spent, (await one.balance("b", "2026-11", LIMIT)).spent)


async def test_a_normal_end_leaves_nothing_to_recover(tables: Tables) -> None:
    """Leases are given back, the session closed, soft budgets counted."""
    clock = Clocks()
    one = ledger(tables, clock)
    for number in range(250):
        one.settle(await one.reserve(Intent(f"req_{number}", 1), (*HARD, *SOFT), 100), 40)
    await one.aclose()

    assert 0 == await recovered(ledger(tables, clock, "i2"), clock)
    assert [(10_000, 0)] * 2 == [
        (found.spent, found.held) for found in [await one.balance(name, "2026-11", LIMIT) for name in ("b", "s")]
    ]
    assert {IntentState.DONE} == {row.state for row in (await intents(tables)).values()}


async def test_a_reservation_below_zero_is_a_defect(tables: Tables) -> None:
    """Nobody can pay money in."""
    with pytest.raises(ValueError, match="zero"):
        await ledger(tables, Clocks()).reserve(Intent("req_1", 1), HARD, -1)


async def test_a_request_is_never_larger_than_what_is_left(tables: Tables) -> None:
    """Exactly the limit fits; one nano-dollar more does not."""
    clock = Clocks()
    one = ledger(tables, clock)
    with pytest.raises(BudgetExceededError):
        await one.reserve(Intent("req_1", 1), HARD, LIMIT + 1)
    one.settle(await one.reserve(Intent("req_2", 1), HARD, LIMIT), LIMIT)
    with pytest.raises(BudgetExceededError):
        await one.reserve(Intent("req_3", 1), HARD, 1)
    await one.aclose()


async def test_less_will_do_when_it_was_said_to(tables: Tables) -> None:
    """With a least amount a reservation takes what there is."""
    clock = Clocks()
    one = ledger(tables, clock)
    one.settle(await one.reserve(Intent("req_1", 1), HARD, LIMIT - 70), LIMIT - 70)

    hold = await one.reserve(Intent("req_2", 1), HARD, 100, least=50)

    assert 70 == hold.amount
    one.void(hold)
    await one.aclose()


async def test_all_accounts_or_none(tables: Tables) -> None:
    """A call that one budget does not cover takes nothing from the others."""
    clock = Clocks()
    one = ledger(tables, clock)
    small = Account("small", "2026-11", 10, hard=True)

    with pytest.raises(BudgetExceededError) as refused:
        await one.reserve(Intent("req_1", 1), (*HARD, small), 100)
    await one.aclose()

    assert "small" == refused.value.budget
    assert 0 == (await one.balance("b", "2026-11", LIMIT)).spent


async def test_sessions_closed_long_ago_are_forgotten(tables: Tables) -> None:
    """Their rows go, the heads stay; younger ones are left alone."""
    clock = Clocks()
    one = ledger(tables, clock)
    for number in range(130):
        one.settle(await one.reserve(Intent(f"req_{number}", 1), HARD, 100), 40)
    await one.aclose()
    day = layout.closed_row("x", clock.now())[:10]

    assert 0 == await one.prune(day)
    assert 1 == await one.prune("9999-01-01")
    assert 0 == await one.prune("9999-01-01")

    assert {} == await intents(tables)
    assert 130 * 40 == (await one.balance("b", "2026-11", LIMIT)).spent


async def test_a_damaged_row_is_never_guessed_at(tables: Tables) -> None:
    """Whoever reads it is told which row it is; nothing is granted on it."""
    await tables.table(layout.TABLE).insert(Entity("b~b~2026-11", "h", {"limit": "much"}))
    one = ledger(tables, Clocks())

    with pytest.raises(Exception, match=r"damaged|reached in time"):
        await one.reserve(Intent("req_1", 1), HARD, 1)
    await one.aclose()


async def _balance(one: Ledger, expected: tuple[int, int]) -> tuple[int, int]:
    """Return what is spent and held once it is what is expected, or after a while."""
    found = (-1, -1)
    for _ in range(100):
        balance = await one.balance("b", "2026-11", LIMIT)
        found = (balance.spent, balance.held)
        if found == expected:
            break
        await asyncio.sleep(0.01)
    return found


@pytest.mark.parametrize(("amount", "kept"), [(LIMIT // 200, LIMIT // 200), (LIMIT // 50, 0)])
async def test_money_for_the_next_call_is_kept_for_a_while_if_nobody_misses_it(tables: Tables, amount: int, kept: int) -> None:
    """A call now and then finds its money here; much of what is left is given back at once, and all of it in the end."""
    clock = Clocks()
    one = ledger(tables, clock)
    hold = await one.reserve(Intent("req_1", 1), HARD, amount)
    one.settle(hold, amount // 5)
    clock.seconds += POLICY.fold_every
    assert (amount // 5, kept) == await _balance(one, (amount // 5, kept))

    clock.seconds += POLICY.idle
    assert (amount // 5, 0) == await _balance(one, (amount // 5, 0))
    await one.aclose()

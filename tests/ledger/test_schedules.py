"""Schedules the simulation found bugs with, each by itself and by hand: what happens when, and what must be true then."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Coroutine, Sequence
from random import Random

import pytest

from shared.core.budgets import Account
from shared.core.errors import StorageUnavailableError
from shared.ledger import Hold, Intent, Ledger, LedgerPolicy
from tests.ledger.invariants import Attempt, Auditor
from tests.ledger.loop import Gate, SimClock, VirtualLoop
from tests.ledger.settings import Settings
from tests.ledger.store import Change, Fate, Network, Store, Trap, Wire

HARD = Account("hard", "2026-11", 1_000, hard=True)
OTHER = Account("other", "2026-11", 1_000, hard=True)
SOFT = Account("soft", "2026-11", 1_000, hard=False)
POLICY = LedgerPolicy(idle=3.0, ttl=15.0)


class _Bench:
    """A store, two instances of the ledger, and an auditor who watches."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.store = Store()
        self.network = Network(self.loop, self.store, Random(1))
        self.auditor = Auditor(self.store, Settings((HARD, OTHER, SOFT), self.loop.time))
        self.gate = Gate("one")
        self.wire, self.one = self._ledger("one", self.gate)
        _, self.two = self._ledger("two", Gate("two"))

    def _ledger(self, name: str, gate: Gate) -> tuple[Wire, Ledger]:
        wire, clock, numbers = Wire(self.network, name), SimClock(self.loop, skew=0.0, random=Random(name)), itertools.count(1)
        return wire, gate.context.run(
            lambda: Ledger(wire, clock, name, policy=POLICY, make_name=lambda: f"{name}-{next(numbers)}")
        )

    def fate(self, partition: str, fate: Fate, then: Callable[[], None] = lambda: None) -> None:
        """Give the next write of the first instance to such a partition a fate."""
        self.wire.trap = Trap(partition, fate, then)

    async def hold(self, name: str, accounts: tuple[Account, ...], amount: int, *, least: int | None = None) -> Hold:
        """Reserve at the first instance."""
        attempt = self.auditor.attempts[f"{name}~1"] = Attempt(name, "one", accounts, self.loop.time())
        hold = await self.one.reserve(Intent(name, 1), accounts, amount, least=least)
        self.auditor.admitted(attempt, hold.amount)
        return hold

    def settle(self, hold: Hold, charged: int) -> None:
        """Be billed, and settle, at the first instance."""
        attempt = self.auditor.attempts[f"{hold.intent.request_id}~1"]
        self.auditor.billed(attempt, charged)
        self.auditor.told(attempt, charged)
        self.one.settle(hold, charged)

    async def recover(self) -> None:
        """Let the second instance look for dead sessions, long enough to tell that they are."""
        for _ in range(4):
            for found in await self.two.recover():
                await self.two.finish(found)
            await asyncio.sleep(POLICY.ttl / 2)

    def run(self, schedule: Callable[[_Bench], Coroutine[None, None, None]]) -> None:
        """Live through a schedule and wind up; then everything must be settled, and nothing have been violated."""

        async def live() -> None:
            await self.loop.run_in(self.gate, schedule(self))
            await self.loop.run_in(self.gate, self.one.aclose())
            await self.recover()
            self.auditor.close({})

        self.loop.run_until_complete(live())
        self.loop.bury()
        assert [] == self.auditor.violations + self.loop.errors
        assert not self.store.partition("ledger", "sessions")


async def _outage_between_two_closes(bench: _Bench) -> None:
    def down(changes: Sequence[Change]) -> None:
        if any(change.after is not None and change.after.get("state") == "closed" for change in changes):
            bench.network.down_until = bench.loop.time() + 2.0
            bench.store.observers.remove(down)

    bench.settle(await bench.hold("q1", (HARD, OTHER), 100), 40)
    bench.store.observers.append(down)
    await asyncio.sleep(20)


async def _money_freed_and_promised_again_while_the_head_is_told(bench: _Bench) -> None:
    first = await bench.hold("q1", (HARD,), 600)
    await asyncio.sleep(2)
    bench.fate("s~", Fate.REQUEST_LOST)
    bench.settle(first, 100)
    await asyncio.sleep(0.5)  # on its way, and lost
    with pytest.raises(StorageUnavailableError):
        await bench.hold("q2", (HARD,), 500)
    bench.auditor.attempts["q2~1"].charged = None
    await asyncio.sleep(10)


async def _thawed_with_a_settlement_and_a_closed_lease(bench: _Bench) -> None:
    first = await bench.hold("q1", (HARD,), 100)
    bench.loop.at(bench.loop.time() + 60, bench.loop.thaw, bench.gate)
    recovering = bench.loop.create_task(bench.recover(), context=Gate("two").context)
    bench.gate.frozen = True
    await asyncio.sleep(0.001)
    bench.settle(first, 10)
    bench.settle(await bench.hold("q2", (HARD,), 900), 20)  # finds its lease closed before the settlement is written
    await asyncio.sleep(10)
    await recovering


async def _fenced_while_it_flushes_before_closing(bench: _Bench) -> None:
    def down(changes: Sequence[Change]) -> None:
        if any(change.after is not None and change.after.get("state") == "fenced" for change in changes):
            bench.network.down_until = bench.loop.time() + 5.0  # so its lease is not closed yet
            bench.store.observers.remove(down)

    async def recovering() -> None:
        with contextlib.suppress(StorageUnavailableError):
            await bench.recover()

    soft = await bench.hold("q1", (SOFT,), 100)
    await asyncio.sleep(0.3)
    bench.store.observers.append(down)
    bench.loop.run_in(Gate("two"), recovering())
    bench.loop.at(bench.loop.time() + 40, bench.loop.thaw, bench.gate)
    bench.gate.frozen = True
    await asyncio.sleep(0.001)
    bench.settle(soft, 30)
    await bench.one.aclose()


async def _an_orderly_end_right_after_everything_was_lost(bench: _Bench) -> None:
    bench.fate("s~", Fate.REQUEST_LOST, lambda: setattr(bench.gate, "frozen", True))
    bench.loop.at(bench.loop.time() + 60, bench.loop.thaw, bench.gate)
    recovering = bench.loop.run_in(Gate("two"), bench.recover())
    soft = await bench.hold("q1", (SOFT,), 100)
    await asyncio.sleep(0.5)  # the first write is lost, and a closed fence is found where there was none
    bench.settle(soft, 30)
    await bench.one.aclose()
    await recovering


async def _closed_while_the_first_fold_is_on_its_way(bench: _Bench) -> None:
    closing: list[asyncio.Task[None]] = []

    def close() -> None:
        bench.settle(soft, 0)
        closing.append(bench.loop.create_task(bench.one.aclose()))

    bench.fate("b~", Fate.ANSWER_LOST, close)
    soft = await bench.hold("q1", (SOFT,), 100)
    while not closing:
        await asyncio.sleep(0.1)
    await closing[0]


async def _a_store_that_does_not_answer_is_not_an_empty_budget(bench: _Bench) -> None:
    first = await bench.hold("q1", (HARD,), 100)
    bench.fate("b~", Fate.REQUEST_LOST)
    bench.loop.call_later(POLICY.wait + 0.1, bench.settle, first, 10)  # everybody who waits is looked at
    with pytest.raises(StorageUnavailableError):
        await bench.hold("q2", (HARD,), 500)
    await asyncio.sleep(5)


async def _a_small_request_does_not_hide_one_that_takes_less(bench: _Bench) -> None:
    first = await bench.hold("q1", (HARD,), 700)
    small = bench.loop.create_task(bench.hold("q2", (HARD,), 400))
    await asyncio.sleep(0.3)
    asked_at = bench.loop.time()
    modest = await bench.hold("q3", (HARD,), 500, least=200)
    assert 300 == modest.amount
    assert bench.loop.time() < asked_at + 1.0
    bench.settle(modest, 0)
    small.cancel()
    bench.settle(first, 700)
    await asyncio.sleep(1)


@pytest.mark.parametrize(
    "schedule",
    [
        _outage_between_two_closes,
        _money_freed_and_promised_again_while_the_head_is_told,
        _thawed_with_a_settlement_and_a_closed_lease,
        _fenced_while_it_flushes_before_closing,
        _an_orderly_end_right_after_everything_was_lost,
        _closed_while_the_first_fold_is_on_its_way,
        _a_store_that_does_not_answer_is_not_an_empty_budget,
        _a_small_request_does_not_hide_one_that_takes_less,
    ],
    ids=lambda schedule: schedule.__name__.strip("_").replace("_", " "),
)
def test_a_schedule_that_once_went_wrong(schedule: Callable[[_Bench], Coroutine[None, None, None]]) -> None:
    """Nothing is overspent, lost, charged twice or held for ever; every charge is what was told."""
    _Bench().run(schedule)

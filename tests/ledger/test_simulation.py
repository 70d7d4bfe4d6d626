"""The simulation finds nothing in the ledger as it is shipped, and finds what is planted in it.

Here: 200 seeds, every planted fault against the schedules, the plainest ones against random worlds. `make check-ledger` runs
5,000 seeds, and tells how many random worlds each fault takes.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from random import Random

import pytest

from shared.core.errors import StorageUnavailableError
from shared.ports import Action, Entity, EntityChangedError, EntityExistsError, Op
from tests.ledger.check import Tally, outcomes, told
from tests.ledger.loop import DeadlockError, Gate, SimClock, VirtualLoop
from tests.ledger.mutants import FAULTS, Fault, caught, noticed
from tests.ledger.plan import spending
from tests.ledger.store import TIMEOUT, Fate, Network, Store, Trap, Wire
from tests.ledger.world import World

SEEDS = 200
JOBS = min(2, os.cpu_count() or 1)

KINDS = (
    "kills",
    "freezes",
    "outages",
    "frozen stores",
    "senders paused",
    "left while reserving",
    "overruns",
    "voids",
    "refused",
    "sessions recovered",
    "write request lost",
    "write answer lost",
    "write late",
    "write doubled",
    "write busy",
    "read lost",
    "trap late",
    "trap answer lost",
    "hard accounts used up",
    "limits raised",
    "limits lowered",
    "limits lowered below what is held",
    "turned hard or soft",
    "periods begun",
    "settled again",
    "usage written by recovery",
)


def test_no_seed_violates_an_invariant() -> None:
    """Whatever goes wrong: nothing is overspent, lost, charged twice or held for ever. And everything does go wrong."""
    tally = Tally()
    for outcome in outcomes(range(SEEDS), JOBS):
        tally.add(outcome)
    assert SEEDS == tally.seeds
    assert not tally.failed, "\n\n".join(told(outcome) for outcome in tally.failed[:3])
    assert [] == [kind for kind in KINDS if not tally.counts[kind]]


@pytest.mark.parametrize("seed", [3, 20])
def test_a_seed_is_the_same_run_every_time(seed: int) -> None:
    """A violation can be looked at again: the log of a seed is the same to the last letter."""
    assert World(seed).run().digest == World(seed).run().digest


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_planted_fault_is_noticed(fault: Fault) -> None:
    """Each of the mistakes that could be made in the ledger breaks an invariant that is checked."""
    assert noticed(fault) is not None


PLAIN = (
    "an unanswered journal write is taken as landed",
    "nobody waits for the intent write",
    "one of several accounts is ignored",
    "a lease takes more than is left",
    "what is held may be promised again",
    "folding does not lower what is reserved",
    "the head is overwritten whatever it says",
)
"""Faults that nearly every world shows."""


@pytest.mark.parametrize("name", PLAIN)
def test_random_worlds_notice_what_is_plainly_wrong(name: str) -> None:
    """The worlds themselves see, without anybody's help, what goes wrong in them."""
    fault = next(fault for fault in FAULTS if fault.name == name)
    assert caught(fault, seeds=30) is not None


def test_a_budget_is_spent_to_its_end_and_nobody_is_refused_early() -> None:
    """Of a budget for 6,000 requests, 200 at once on five instances spend 99.9 %; nobody is refused while 15 % are left."""
    world = World(0, plan=spending())
    outcome = world.run()
    assert [] == outcome.violations
    assert 6_000 <= outcome.counts["requests"]
    assert 0 < outcome.counts["refused"]
    assert 0 == outcome.counts["refused below 85 %"]
    head = world.store.get("ledger", "b~b0~2026-11", "h")
    assert head is not None
    assert 0.999 <= int(str(head.properties["spent"])) / world.plan.accounts[0].limit <= 1


# ---- the simulation itself -------------------------------------------------------------------------------------------


def test_time_jumps_to_the_next_timer() -> None:
    """Real asyncio code waits for hours in no time, and its time-outs come when they should."""
    loop = VirtualLoop()

    async def live() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(3600):
                await asyncio.sleep(7200)
        return loop.time()

    assert 3600 == loop.run_until_complete(live())
    loop.bury()


def test_waiting_for_nothing_is_told() -> None:
    """When nothing is left to happen, the loop says so instead of waiting for ever."""
    loop = VirtualLoop()
    with pytest.raises(DeadlockError):
        loop.run_until_complete(loop.create_future())
    loop.bury()


def test_a_frozen_instance_goes_on_where_it_was() -> None:
    """Nothing of it runs while it is frozen: not its timers, not what others tell it."""
    loop, seen = VirtualLoop(), []
    gate = Gate("i")

    async def ticks() -> None:
        for _ in range(3):
            await asyncio.sleep(1)
            seen.append(loop.time())

    async def live() -> None:
        task = loop.run_in(gate, ticks())
        await asyncio.sleep(1.5)
        gate.frozen = True
        await asyncio.sleep(10)
        loop.thaw(gate)
        await task

    loop.run_until_complete(live())
    loop.bury()
    assert [1.0, 11.5, 12.5] == seen


def test_a_killed_instance_does_not_even_clean_up() -> None:
    """A kill is not a cancellation: no ``finally`` runs."""
    loop, seen = VirtualLoop(), []
    gate = Gate("i")

    async def works() -> None:
        try:
            await asyncio.sleep(5)
        finally:
            seen.append(loop.time())

    async def live() -> None:
        loop.run_in(gate, works())
        await asyncio.sleep(1)
        gate.kill()
        await asyncio.sleep(100)

    loop.run_until_complete(live())
    assert [] == seen
    loop.bury()


class _Bench:
    """A store, and one wire to it."""

    def __init__(self) -> None:
        self.loop = VirtualLoop()
        self.store = Store()
        self.network = Network(self.loop, self.store, Random(2))
        self.wire = Wire(self.network, "i")
        self.clock = SimClock(self.loop, skew=0.0, random=Random(2))

    def next_write(self, fate: Fate) -> None:
        """Give the next write a fate."""
        self.wire.trap = Trap("", fate, lambda: None)


@pytest.fixture
def bench() -> Iterator[_Bench]:
    """A store and a wire, taken apart afterwards."""
    made = _Bench()
    yield made
    made.loop.bury()


@pytest.mark.parametrize(
    ("fate", "happened"),
    [(Fate.REQUEST_LOST, False), (Fate.BUSY, False), (Fate.ANSWER_LOST, True)],
)
def test_an_unanswered_write_may_have_happened(bench: _Bench, fate: Fate, *, happened: bool) -> None:
    """The sender hears the same whether it did or not."""
    bench.next_write(fate)

    async def live() -> None:
        with pytest.raises(StorageUnavailableError):
            await bench.wire.table("ledger").insert(Entity("p", "r", {"a": 1}))

    bench.loop.run_until_complete(live())
    assert happened == (bench.store.get("ledger", "p", "r") is not None)


def test_a_late_write_lands_only_if_its_condition_still_holds(bench: _Bench) -> None:
    """Whoever was told that there was no answer and wrote again is not overwritten by the first write."""
    table = bench.wire.table("ledger")

    async def live() -> None:
        etag = await table.insert(Entity("p", "r", {"a": 1}))
        bench.next_write(Fate.LATE)
        with pytest.raises(StorageUnavailableError):
            await table.replace(Entity("p", "r", {"a": 2}, etag))
        assert bench.loop.time() >= TIMEOUT
        await table.replace(Entity("p", "r", {"a": 3}, etag))
        await asyncio.sleep(200)

    bench.loop.run_until_complete(live())
    stored = bench.store.get("ledger", "p", "r")
    assert stored is not None
    assert 3 == stored.properties["a"]


def test_a_transaction_happens_wholly_or_not_at_all() -> None:
    """One condition that fails undoes nothing, because nothing was done."""
    store = Store()
    store.apply("ledger", [Op(Action.INSERT, Entity("p", "taken", {"a": 1}))])
    for action, error in ((Action.INSERT, EntityExistsError), (Action.REPLACE, EntityChangedError)):
        with pytest.raises(error):
            store.apply("ledger", [Op(Action.INSERT, Entity("p", "new")), Op(action, Entity("p", "taken", {}, "other"))])
    assert ["taken"] == list(store.partition("ledger", "p"))

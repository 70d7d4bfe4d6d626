"""Answers kept under an Idempotency-Key: how they are forgotten."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from shared.idempotency import ABANDONED_SECONDS, KEPT_SECONDS, PRUNE_SECONDS, Begun, Idempotency, InFlightError, KeptAnswer
from shared.ports import Action, Entity, Op, Tables
from tests.fakes import FakeClock

ROUND = 32
"""Runs of the timer until every partition had its turn."""


async def keep(store: Idempotency, number: int, *, size: int = 10) -> None:
    """Keep an answer."""
    begun = await store.begin("caller", f"key-{number}", b"request")
    assert isinstance(begun, Begun)
    await store.keep(begun, KeptAnswer(200, (), b"x" * size))


async def rounds(store: Idempotency, clock: FakeClock) -> list[int]:
    """Run the timer until every partition had its turn; return how many rows each run deleted."""
    deleted = []
    for _ in range(ROUND):
        deleted.append(await store.prune())
        clock.seconds += PRUNE_SECONDS
    return deleted


async def test_what_is_old_is_forgotten_in_turns(tables: Tables, clock: FakeClock) -> None:
    """A few partitions a run; a round takes all that is old, of every size, and nothing that is not."""
    store = Idempotency(tables, clock)
    for number in range(100):
        await keep(store, number, size=2_000_000 if number == 7 else 10)
    assert 0 == sum(await rounds(store, clock))
    clock.seconds += KEPT_SECONDS
    for number in range(100, 110):
        await keep(store, number)

    deleted = await rounds(store, clock)
    assert 200 + 2 == sum(deleted)
    assert max(deleted) < 50
    assert 0 == sum(await rounds(store, clock))
    for number in range(100, 110):
        assert isinstance(await store.begin("caller", f"key-{number}", b"request"), KeptAnswer)
    assert isinstance(await store.begin("caller", "key-7", b"request"), Begun)


async def test_others_forget_too(tables: Tables, clock: FakeClock) -> None:
    """Rows that another instance has just deleted are no reason to leave the others; hundreds in a partition are no trouble."""
    store = Idempotency(tables, clock)
    table = tables.table("idempotency")
    old = [Entity("a7", f"{number:03}", {"at": clock.now()}) for number in range(250)]
    for at in range(0, 250, 50):
        await table.transact([Op(Action.INSERT, entity) for entity in old[at : at + 50]])
    clock.seconds += KEPT_SECONDS + 1

    class Meddled(Idempotency):
        async def _forget(self, doomed: Sequence[Entity]) -> None:
            await table.delete("a7", "003") if await table.get("a7", "003") else None
            await super()._forget(doomed)

    meddled = Meddled(tables, clock)
    assert 250 == sum(await rounds(meddled, clock))
    assert [] == [entity async for entity in table.query("a7")]
    assert 0 == sum(await rounds(store, clock))


async def test_a_key_used_again_after_its_time_has_no_part_of_the_answer_before(tables: Tables, clock: FakeClock) -> None:
    """A key that is taken anew before its old answer was pruned gives the new answer, also when that is shorter."""
    store = Idempotency(tables, clock)
    await keep(store, 1, size=2_000_000)
    clock.seconds += KEPT_SECONDS
    begun = await store.begin("caller", "key-1", b"another")
    assert isinstance(begun, Begun)
    await store.keep(begun, KeptAnswer(200, (), b"short"))

    again = await store.begin("caller", "key-1", b"another")
    assert isinstance(again, KeptAnswer)
    assert b"short" == again.body


async def test_a_key_used_again_while_it_is_being_forgotten_stays(tables: Tables, clock: FakeClock) -> None:
    """Else a second call with it would be answered, and billed, beside the first."""

    class Meddled(Idempotency):
        async def _forget(self, doomed: Sequence[Entity]) -> None:
            await self.begin("caller", "key-1", b"another")
            await super()._forget(doomed)

    store = Meddled(tables, clock)
    await keep(store, 1)
    clock.seconds += KEPT_SECONDS + 1
    await rounds(store, clock)

    with pytest.raises(InFlightError):
        await Idempotency(tables, FakeClock(clock.seconds - ROUND * PRUNE_SECONDS)).begin("caller", "key-1", b"another")


async def test_only_those_that_join_join(tables: Tables, clock: FakeClock) -> None:
    """A call that is being answered by a provider is never made beside itself; the last one to join keeps its answer."""
    store = Idempotency(tables, clock)
    for first, second in ((False, True), (True, False), (False, False)):
        key = f"{first}{second}"
        await store.begin("caller", key, b"request", joins=first)
        with pytest.raises(InFlightError):
            await store.begin("caller", key, b"request", joins=second)

    one = await store.begin("caller", "key", b"request", joins=True)
    other = await store.begin("caller", "key", b"request", joins=True)
    assert isinstance(one, Begun)
    assert isinstance(other, Begun)
    await store.keep(one, KeptAnswer(202, (), b"one"))
    await store.release(one)
    await store.keep(other, KeptAnswer(202, (("location", "/x"),), b"other"))
    assert KeptAnswer(202, (("location", "/x"),), b"other") == await store.begin("caller", "key", b"request")


async def test_a_key_that_was_abandoned_may_be_used_for_anything(tables: Tables, clock: FakeClock) -> None:
    """As ever, after ten minutes."""
    store = Idempotency(tables, clock)
    await store.begin("caller", "key", b"request", joins=True)
    clock.seconds += ABANDONED_SECONDS

    assert isinstance(await store.begin("caller", "key", b"another"), Begun)

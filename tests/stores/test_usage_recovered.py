"""What the ledger needs of the usage log: how far it has written, and a place for what dead processes left behind."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable
from types import MappingProxyType
from typing import Any

import pytest

from shared.core.errors import StorageUnavailableError
from shared.core.records import AttemptRecord, RequestRecord
from shared.ports import Entity, Tables
from shared.tracing import SERVED, Served, serving
from shared.usage import UsageLog, UsageQuery
from shared.usage.rows import place_of
from tests.fakes import FakeClock

Record = Callable[..., RequestRecord]
Attempt = Callable[..., AttemptRecord]


async def test_everything_is_written_until_now_when_nothing_waits(log: UsageLog, clock: FakeClock, record: Record) -> None:
    """A log without anything to write is up to date; one with a record is as far as that record."""
    assert log.written_until() == clock.now()

    log.record(record())
    taken = clock.now()
    clock.seconds += 5
    log.record(record())
    assert log.written_until() == taken

    await log.flush()
    assert log.written_until() == clock.now()


async def test_a_store_that_is_down_holds_the_moment_back(
    log: UsageLog, clock: FakeClock, weather: Any, record: Record
) -> None:
    """What the store may have taken without saying so is not yet called written."""
    taken = clock.now()
    weather.down = weather.after = True
    log.record(record())
    with pytest.raises(StorageUnavailableError):
        await log.flush()
    assert log.written_until() == taken

    weather.down = weather.after = False
    await log.flush()
    assert log.written_until() == clock.now()


async def test_a_clock_that_is_set_back_does_not_hide_what_waits(log: UsageLog, clock: FakeClock, record: Record) -> None:
    """The moment is the earliest of those that wait, also when the wall clock went back between two records."""
    log.record(record())
    clock.epoch -= 300
    log.record(record())
    assert log.written_until() == clock.now()
    clock.epoch += 600
    assert log.written_until() == clock.now() - 600
    await log.flush()


async def test_recovered_requests_are_inserted_once(log: UsageLog, record: Record) -> None:
    """A request that had been written stays as it is; the others are inserted, once however often it is asked."""
    written, lost = record(cost=5), record(cost=7, recovered=True, billed=7, tags={"cost_center": "ops"})
    log.record(written)
    await log.flush()
    recovered = [record(request_id=written.request_id, cost=9, recovered=True), lost]

    assert await log.insert_recovered(recovered) == 1
    assert await log.insert_recovered(recovered) == 0

    found = [await log.find(one.request_id) for one in (written, lost)]
    assert [one.record for one in found if one is not None] == [written, lost]
    assert log.duplicates == 0  # that is for records of the living


async def test_who_was_taken_for_dead_knows_better(log: UsageLog, record: Record, attempt: Attempt) -> None:
    """A process that was frozen writes what its call really cost over what recovery had to charge; only that, and only once."""
    real = record(cost=5, billed=5, attempts=(attempt(cost=5),))
    guessed = record(request_id=real.request_id, cost=900, recovered=True, attempts=(attempt(cost=900),))
    assert await log.insert_recovered([guessed]) == 1

    log.record(real)
    await log.flush()
    assert await log.insert_recovered([guessed]) == 0

    found = await log.find(real.request_id)
    assert found is not None
    assert found.record == real
    assert [(1, 5)] == [(row.requests, row.cost) for row in await log.report(UsageQuery(0, math.inf))]
    assert log.duplicates == 0


async def test_who_was_taken_for_dead_knows_better_than_the_roll_up(
    log: UsageLog, clock: FakeClock, record: Record, attempt: Attempt
) -> None:
    """Also where what recovery wrote has been added up already: it is added up anew."""
    real = record(cost=5, billed=5, attempts=(attempt(cost=5),))
    guessed = record(request_id=real.request_id, cost=900, recovered=True, attempts=(attempt(cost=900),))
    await log.insert_recovered([guessed])
    clock.seconds += 2 * 86_400
    await log.roll_up(clock.now())
    query = UsageQuery(clock.now() // 86_400 * 86_400 - 4 * 86_400, clock.now() // 86_400 * 86_400)
    assert [900] == [row.cost for row in await log.report(query)]

    log.record(real)
    await log.flush()
    assert [5] == [row.cost for row in await log.report(query)]
    await log.roll_up(clock.now())
    assert [(1, 5)] == [(row.requests, row.cost) for row in await log.report(query)]


async def test_a_request_that_waits_here_is_not_recovered(log: UsageLog, record: Record) -> None:
    """What this process itself is about to write is not a dead process's."""
    mine = record(cost=5)
    log.record(mine)

    assert await log.insert_recovered([record(request_id=mine.request_id, recovered=True)]) == 0
    await log.flush()

    found = await log.find(mine.request_id)
    assert found is not None
    assert found.record == mine


async def test_recovering_over_a_store_that_is_down_says_so(log: UsageLog, weather: Any, record: Record) -> None:
    """Nobody may believe that something is kept which is not; asking again keeps it."""
    lost = [record(recovered=True) for _ in range(250)]
    weather.down = True
    with pytest.raises(StorageUnavailableError):
        await log.insert_recovered(lost)
    weather.down = False

    assert await log.insert_recovered(lost) == 250
    assert sum(row.requests for row in await log.report(UsageQuery(0, math.inf))) == 250


async def test_tags_of_any_mapping_and_text_are_kept(log: UsageLog, record: Record) -> None:
    """Tags are written down as they are; half an emoji in one is mended and harms nobody."""
    plain, frozen, broken = record(tags={"a": "1"}), record(tags=MappingProxyType({"b": "2"})), record(tags={"c": "\ud83d"})
    for one in (plain, frozen, broken):
        log.record(one)
    await log.flush()

    found = [await log.find(one.request_id) for one in (plain, frozen, broken)]

    assert [one.record.tags for one in found if one is not None] == [{"a": "1"}, {"b": "2"}, {"c": "?"}]
    assert log.dropped == 0


async def test_rows_of_before_have_no_tags(tables: Tables, log: UsageLog, record: Record) -> None:
    """A row that was written before there were tags, billed amounts and recoveries reads as one without."""
    one = record()
    log.record(one)
    await log.flush()
    place = place_of(one.request_id)
    table = tables.table("usage")
    row = await table.get(place.partition, place.request)
    assert row is not None
    text = str(row.properties["json00"])
    for field in ('"billed":null,', '"recovered":false,', '"tags":{},'):
        assert field in text
        text = text.replace(field, "")
    await table.replace(Entity(row.partition, row.row, {"json00": text}, row.etag))

    found = await log.find(one.request_id)

    assert found is not None
    assert (found.record.billed, found.record.recovered, dict(found.record.tags)) == (None, False, {})


async def test_writing_goes_on_for_nobody_in_particular(log: UsageLog, weather: Any, record: Record) -> None:
    """The task that writes was started by a request: what it logs about others' records is not marked with that."""
    kept: list[Served | None] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            del record
            kept.append(SERVED.get())

    handler = Keep()
    logging.getLogger("shared.usage").addHandler(handler)
    weather.down = True
    try:
        with serving(Served("req_1")):
            log.record(record())
        async with asyncio.timeout(10):
            while not kept:
                await asyncio.sleep(0)
    finally:
        logging.getLogger("shared.usage").removeHandler(handler)
        weather.down = False

    assert {None} == set(kept)

"""Roll-ups: a report over them is, to the nano-dollar, the report over the rows, whatever happens in between."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from shared.core import ids
from shared.core.chat import Operation, Usage
from shared.core.errors import StorageUnavailableError
from shared.core.records import AttemptRecord, RequestRecord
from shared.ports import (
    Action,
    Entity,
    EntityChangedError,
    EntityExistsError,
    EntityNotFoundError,
    EntityTable,
    Op,
    Tables,
)
from shared.usage import UsageLog, UsageQuery, UsageReport
from shared.usage.days import CLOSE_AFTER, Days
from shared.usage.report import Sums
from shared.usage.rows import document
from tests.fakes import FakeClock

Record = Callable[..., RequestRecord]
Attempt = Callable[..., AttemptRecord]

DAY = 86_400
MIDNIGHT = 1_795_046_400  # 2026-11-19T00:00Z
NAMES = ("key", "project", "model", "deployment", "provider", "task", "operation", "day", "hour", "tag:team", "tag:cost_center")


def day(moment: float) -> str:
    """Return the day of a moment."""
    return datetime.fromtimestamp(moment, UTC).date().isoformat()


# ---- a store whose every step may be the last, or take long ----------------------------------------------------------


class Killed(Exception):  # noqa: N818 - it is no error of ours
    """The process is gone."""


@dataclass
class Fate:
    """What happens to one process at each of its steps, drawn from a seed."""

    random: random.Random
    clock: FakeClock
    deaths: float = 0.0
    freezes: float = 0.0

    async def step(self) -> None:
        """Let others run, let time pass, or die."""
        for _ in range(self.random.choice((0, 0, 1, 2, 5))):
            await asyncio.sleep(0)
        if self.random.random() < 0.1:
            self.clock.seconds += self.random.choice((1, 30, 200))
        if self.random.random() < self.freezes:
            frozen = self.clock.seconds + self.random.choice((2_000, 10_000))
            while self.clock.seconds < frozen and self.random.random() > 0.02:  # others make the time pass
                self.clock.seconds += 100
                await asyncio.sleep(0)
        if self.random.random() < self.deaths:
            raise Killed


Stored = dict[tuple[str, str, str], Entity]


@dataclass
class SteppedTables:
    """Tables in memory, shared by processes, each of which meets its own fate."""

    fate: Fate
    stored: Stored = field(default_factory=dict)
    inserted: Stored = field(default_factory=dict)
    """Every row of usage there ever was."""
    etags: list[int] = field(default_factory=lambda: [0])

    def of(self, fate: Fate) -> SteppedTables:
        """Return the same tables as another process sees them."""
        return SteppedTables(fate, self.stored, self.inserted, self.etags)

    def table(self, name: str) -> EntityTable:
        """Return the table."""
        return SteppedTable(self, name)

    async def aclose(self) -> None:
        """Nothing is open."""


@dataclass
class SteppedTable:
    """A table of `SteppedTables`."""

    tables: SteppedTables
    name: str

    async def get(self, partition: str, row: str) -> Entity | None:
        """Read."""
        await self.tables.fate.step()
        return self.tables.stored.get((self.name, partition, row))

    async def query(
        self, partition: str, *, start: str = "", end: str | None = None, limit: int | None = None
    ) -> AsyncGenerator[Entity, None]:
        """Read page by page."""
        while limit is None or limit > 0:
            await self.tables.fate.step()
            found = sorted(
                row
                for table, within, row in self.tables.stored
                if (table, within) == (self.name, partition) and row >= start and (end is None or row < end)
            )
            page = [self.tables.stored[self.name, partition, row] for row in found[:20][:limit]]
            for entity in page:
                yield entity
            if len(page) < 20:
                return
            limit = None if limit is None else limit - len(page)
            start = page[-1].row + "!"

    async def insert(self, entity: Entity) -> str:
        """Write."""
        return (await self.transact([Op(Action.INSERT, entity)]))[0]

    async def replace(self, entity: Entity) -> str:
        """Write."""
        return (await self.transact([Op(Action.REPLACE, entity)]))[0]

    async def delete(self, partition: str, row: str, etag: str = "*") -> None:
        """Write."""
        await self.transact([Op(Action.DELETE, Entity(partition, row, etag=etag))])

    async def transact(self, ops: Sequence[Op]) -> list[str]:
        """Write; the process may die before and after."""
        await self.tables.fate.step()
        changed: Stored = {}
        for op in ops:
            key = (self.name, op.entity.partition, op.entity.row)
            self._check(op, self.tables.stored.get(key))
            self.tables.etags[0] += 1
            changed[key] = Entity(key[1], key[2], op.entity.properties, str(self.tables.etags[0]))
        for op, (key, entity) in zip(ops, changed.items(), strict=True):
            if op.action is Action.DELETE:
                del self.tables.stored[key]
                continue
            self.tables.stored[key] = entity
            if self.name == "usage" and entity.row.startswith("r~"):
                self.tables.inserted[key] = entity
        await self.tables.fate.step()
        return [entity.etag for entity in changed.values()]

    def _check(self, op: Op, found: Entity | None) -> None:
        message = f"{op.entity.row} is not as expected"
        conditional = op.action in {Action.REPLACE, Action.DELETE}
        if op.action is Action.INSERT and found is not None:
            raise EntityExistsError(message)
        if conditional and found is None:
            raise EntityNotFoundError(message)
        if conditional and found is not None and op.entity.etag not in {found.etag, "*"}:
            raise EntityChangedError(message)


# ---- the reference ---------------------------------------------------------------------------------------------------


def reference(inserted: Stored, query: UsageQuery) -> UsageReport:
    """Return the report over every row there ever was, read one by one."""
    sums = Sums(query)
    for entity in inserted.values():
        found = document(entity)
        if query.start <= ids.time_of(found["request_id"]) < query.end:
            sums.add(found)
    return sums.report()


def some_record(draw: random.Random, moment: float) -> RequestRecord:
    """Return a request of any kind that began then."""
    attempts = tuple(
        AttemptRecord(
            number=number + 1,
            deployment=draw.choice(("azure/large", "openai/small")),
            model=draw.choice(("large", "small")),
            provider=draw.choice(("azure", "openai")),
            started_at=moment,
            duration_ms=1.0,
            outcome=draw.choice(("succeeded", "rate_limited", "timeout")),
            usage=draw.choice((None, Usage(draw.randrange(10**6), 20, cache_read=5), Usage((1 << 63) - 1, 3))),
            cost=draw.choice((None, 0, 1, draw.randrange(10**12), (1 << 63) - 1)),
            exact=draw.random() < 0.8,
        )
        for number in range(draw.randrange(4))
    )
    return RequestRecord(
        request_id=ids.request_id(moment, draw.getrandbits(80)),
        key_id=draw.choice(("key_a", "key_b", "key_c")),
        project=draw.choice(("search", "shop")),
        operation=draw.choice(tuple(Operation)),
        original_model=draw.choice(("auto", "large")),
        task=draw.choice(("code", "conversation")),
        stream=False,
        started_at=moment,
        duration_ms=1.0,
        outcome=draw.choice(("succeeded", "all_attempts_failed", "client_closed")),
        attempts=attempts,
        model=attempts[-1].model if attempts else None,
        billed=draw.choice((None, 0, 77)),
        tags=draw.choice(({}, {"team": "a"}, {"team": "b", "cost_center": "ops"}, {"cost_center": 'ré"s'})),
    )


def some_query(draw: random.Random, now: float, *, aligned: bool = False) -> UsageQuery:
    """Return any question about the last days."""
    start, end = sorted(
        (MIDNIGHT + draw.choice((-DAY, 0, 900, 5_000, DAY, 100_000.5)), now - draw.choice((-1, 0, 777, 50_000)))
    )
    if aligned:
        start, end = start // 900 * 900, end // 900 * 900
    filters: dict[str, Any] = draw.choice(
        ({}, {}, {"key": "key_a"}, {"project": "shop", "model": "small"}, {"tags": (("team", "b"),)}, {"tags": (("team", ""),)})
    )
    return UsageQuery(start, max(start, end), tuple(draw.sample(NAMES, draw.randrange(3))), **filters)


async def some_days(seed: int) -> tuple[SteppedTables, FakeClock, random.Random]:
    """Live through two days in which writers and rollers work, die, and come late; compare now and then."""
    draw = random.Random(seed)
    clock = FakeClock(seconds=0.0, epoch=MIDNIGHT + draw.choice((0, 80_000)))
    calm = SteppedTables(Fate(random.Random(seed), clock))
    tables = SteppedTables(Fate(random.Random(seed + 1), clock), calm.stored, calm.inserted, calm.etags)
    logs: dict[int, UsageLog] = {}
    freezes = draw.choice((0.0, 0.1))  # who is frozen for hours and dies the moment he is not has not been able to say so

    async def process(number: int) -> None:
        deaths = 0.0 if freezes else draw.choice((0.0, 0.03, 0.1))
        fate = Fate(random.Random(draw.random()), clock, deaths=deaths, freezes=freezes)
        log = logs.get(number) or UsageLog(tables.of(fate), _Chance(clock, draw))
        logs[number] = log
        try:
            for _ in range(draw.randrange(1, 4)):
                if number < 3:
                    ages = [draw.choice((0, 5, 400, 1_000, 3_000, 40_000, 100_000)) for _ in range(draw.randrange(1, 6))]
                    await log.insert_recovered([some_record(draw, clock.now() - age) for age in ages])
                else:
                    await log.roll_up(clock.now())
        except Killed:
            del logs[number]

    for _ in range(draw.randrange(6, 14)):
        await asyncio.gather(*(process(number) for number in draw.sample(range(5), draw.randrange(1, 4))))
        clock.seconds += draw.choice((1, 300, 1_000, 10_000, 40_000))
        await compare(calm, clock, some_query(draw, clock.now()))
    return calm, clock, draw


@dataclass
class _Chance:
    """The clock with chance that differs from draw to draw."""

    clock: FakeClock
    random: random.Random

    def now(self) -> float:
        return self.clock.now()

    def monotonic(self) -> float:
        return self.clock.monotonic()

    async def sleep(self, seconds: float) -> None:
        await self.clock.sleep(seconds)

    def draw(self) -> float:
        return self.random.random()


async def compare(calm: SteppedTables, clock: FakeClock, query: UsageQuery) -> UsageReport:
    """Prove that the report is the rows' own."""
    found = await UsageLog(calm, clock).summary(query)
    expected = reference(calm.inserted, query)
    assert (found.rows, found.total) == (expected.rows, expected.total)
    return found


@pytest.mark.parametrize("seed", range(60))
async def test_a_report_over_roll_ups_is_that_over_the_rows(seed: int) -> None:
    """Never a request twice and never one lost: writers and rollers of any number, late rows, deaths between any two steps."""
    calm, clock, draw = await some_days(seed)
    clock.seconds += 3 * DAY
    for _ in range(20):
        if not (await UsageLog(calm, clock).roll_up(clock.now())).slots:
            break
    everything = UsageQuery(0, math.inf, ("day",))
    found = await compare(calm, clock, everything)
    days = {entity.partition[:10] for entity in calm.inserted.values()}
    assert found.scanned <= 6 * len(days) + 2  # the listing, the state and the roll-up of each: no row of a request
    for _ in range(20):
        await compare(calm, clock, some_query(draw, clock.now()))


@pytest.mark.parametrize("seed", range(20))
async def test_a_report_survives_that_rows_are_deleted(seed: int) -> None:
    """After rows are deleted, reports by the quarter of an hour are what they were; a row that comes even later counts."""
    calm, clock, draw = await some_days(seed)
    clock.seconds += 3 * DAY
    for number in range(12):
        fate = Fate(random.Random(number), clock, deaths=0.02 if number < 10 else 0)
        log = UsageLog(calm.of(fate), _Chance(clock, draw))
        try:
            await log.roll_up(clock.now())
            await log.prune(day(clock.now() - DAY))
        except Killed:
            continue
    assert not [key for key in calm.stored if key[0] == "usage" and key[2].startswith("r~")]
    late = UsageLog(calm, clock)
    assert await late.insert_recovered([some_record(draw, MIDNIGHT + DAY + 5)]) == 1

    for _ in range(20):
        found = await compare(calm, clock, some_query(draw, clock.now(), aligned=True))
        assert not found.coarse


# ---- by hand ---------------------------------------------------------------------------------------------------------


async def rolled(log: UsageLog, clock: FakeClock) -> None:
    """Let a day pass and roll up."""
    clock.seconds += DAY + CLOSE_AFTER
    while (await log.roll_up(clock.now())).slots:
        pass


async def test_a_day_is_closed_when_all_of_it_had_time_to_arrive(
    log: UsageLog, clock: FakeClock, record: Record, tables: Tables
) -> None:
    """A slot is rolled up 20 minutes after its end, not before; a day when its last slot is."""
    clock.seconds, clock.epoch = 0.0, MIDNIGHT + 10.0
    log.record(record())
    await log.flush()

    clock.seconds = 900 + CLOSE_AFTER - 10.1
    assert (await log.roll_up(clock.now())).slots == 0
    clock.seconds += 0.2
    assert (await log.roll_up(clock.now())).slots == 1
    assert (await log.roll_up(clock.now())).slots == 0
    clock.seconds = DAY + CLOSE_AFTER
    done = await log.roll_up(clock.now())

    assert (done.slots, done.days, done.conflicts) == (95, 1, 0)
    state = await Days(tables.table("usagerollups")).get(day(MIDNIGHT))
    assert state.whole is not None
    assert state.hourly is not None
    assert len(state.slots) == 96


async def test_a_late_row_opens_only_its_quarter_of_an_hour(
    log: UsageLog, clock: FakeClock, record: Record, tables: Tables
) -> None:
    """A recovered request is in the report at once, without reading the other rows of its day; later it is rolled up."""
    clock.seconds, clock.epoch = 0.0, MIDNIGHT
    lost = record()
    for _ in range(50):
        clock.seconds += 1_000
        log.record(record())
    await log.flush()
    await rolled(log, clock)

    await log.insert_recovered([lost])
    found = await log.summary(UsageQuery(MIDNIGHT, MIDNIGHT + DAY))
    assert found.total.requests == 51
    assert found.scanned < 60

    await rolled(log, clock)
    found = await log.summary(UsageQuery(MIDNIGHT, MIDNIGHT + DAY))
    assert found.total.requests == 51
    assert found.scanned == 3
    names = [entity.row async for entity in tables.table("usagerollups").query("d~2026")]
    assert len(names) == 1  # what was replaced is deleted


async def test_a_damaged_row_is_counted_once_before_and_after(
    log: UsageLog, clock: FakeClock, record: Record, tables: Tables
) -> None:
    """What can't be read is in no sum, but the report says how much that is, rolled up or not."""
    log.record(record())
    log.record(record())
    await log.flush()
    table = tables.table("usage")
    partitions = [f"{day(clock.now())}-{shard}" for shard in range(4)]
    rows = [entity for partition in partitions async for entity in table.query(partition)]
    await table.replace(Entity(rows[0].partition, rows[0].row, {"json00": "{"}, rows[0].etag))

    before = await log.summary(UsageQuery(0, math.inf))
    await rolled(log, clock)
    after = await log.summary(UsageQuery(0, math.inf))

    assert (before.total.requests, before.damaged_rows, before.exact) == (1, 1, False)
    assert (after.total, after.damaged_rows, after.exact) == (before.total, 1, False)
    assert after.scanned < 5


async def test_a_damaged_roll_up_is_made_good_by_the_rows(
    log: UsageLog, clock: FakeClock, record: Record, tables: Tables
) -> None:
    """Reports go back to the quarters of an hour, and to the rows; rows are not deleted on the word of a damaged roll-up."""
    log.record(record())
    await log.flush()
    await rolled(log, clock)
    table = tables.table("usagerollups")
    which = day(clock.now() - DAY - CLOSE_AFTER)
    for partition in (f"s~{which}", "d~2026"):
        for entity in [entity async for entity in table.query(partition)]:
            await table.replace(Entity(entity.partition, entity.row, {"json00": '{"counts":1}'}, entity.etag))
        assert (await log.summary(UsageQuery(0, math.inf))).total.requests == 1

    assert await log.prune(day(clock.now())) == 0
    await rolled(log, clock)
    assert await log.prune(day(clock.now())) == 1
    found = await log.summary(UsageQuery(0, math.inf))
    assert (found.total.requests, found.exact) == (1, True)


async def test_an_edge_within_a_deleted_quarter_of_an_hour_is_said(log: UsageLog, clock: FakeClock, record: Record) -> None:
    """A sum that can't be split any more is counted whole if it begins within, and not called exact."""
    one = record()
    log.record(one)
    await log.flush()
    await rolled(log, clock)
    await log.prune(day(clock.now()))
    moment = one.started_at // 900 * 900

    from_its_start = await log.summary(UsageQuery(moment, moment + 1))
    later = await log.summary(UsageQuery(moment + 1, moment + 900))

    assert (from_its_start.total.requests, from_its_start.coarse, from_its_start.exact) == (1, True, False)
    assert (later.total.requests, later.coarse) == (0, True)


async def test_a_store_that_does_not_answer_is_no_roll_up(
    log: UsageLog, clock: FakeClock, record: Record, weather: Any
) -> None:
    """Rolling up says that it could not, and the next one does."""
    log.record(record())
    await log.flush()
    clock.seconds += DAY + CLOSE_AFTER
    weather.down = True
    with pytest.raises(StorageUnavailableError):
        await log.roll_up(clock.now())
    weather.down = False
    await rolled(log, clock)

    assert (await log.summary(UsageQuery(0, math.inf))).total.requests == 1


async def test_a_late_record_waits_until_its_day_could_be_opened(
    log: UsageLog, clock: FakeClock, record: Record, weather: Any, tables: Tables
) -> None:
    """Rows kept back by an outage of hours are written after their quarter was opened again, and lose nothing."""
    log.record(record())
    await log.flush()
    late = UsageLog(tables, clock)
    weather.down = True
    late.record(record())
    with pytest.raises(StorageUnavailableError):
        await late.flush()
    weather.down = False
    late_again, late._pending = dict(late._pending), {}
    await rolled(log, clock)
    late._pending = late_again

    weather.after = weather.down = True
    with pytest.raises(StorageUnavailableError):
        await late.flush()
    weather.after = weather.down = False
    await late.flush()

    assert (await log.summary(UsageQuery(0, math.inf))).total.requests == 2
    await rolled(log, clock)
    assert (await log.summary(UsageQuery(0, math.inf))).total.requests == 2

"""Writing usage down without making anybody wait, and reading it back.

`UsageLog.record` puts the record's text in a queue (thousands of records kept as objects would be work for the garbage
collector); a task, started on demand and gone when the queue is empty, writes what has
gathered for `GATHER_SECONDS` (0.2 s) in transactions of up to 100 rows: that, and the time of the write, is what a process that
is killed may lose. A request is one row and only inserted: a retry of a write that had happened, or a second record of a
request, finds the row and changes nothing. While the store does not answer, records wait in memory; when too many wait, first
traces and then whole records are given up, counted and reported in the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from shared.core.errors import InvalidRequestError, StorageUnavailableError
from shared.core.records import RequestRecord
from shared.ports import (
    MAX_TRANSACTION,
    Action,
    Clock,
    Entity,
    EntityChangedError,
    EntityExistsError,
    EntityNotFoundError,
    InvalidEntityError,
    Op,
    Tables,
)
from shared.tracing import serve_nobody
from shared.usage import rows, scan
from shared.usage.days import WRITE_WITHIN, slot_end
from shared.usage.reading import Reading
from shared.usage.report import Sums, UsageQuery, UsageReport, UsageRow
from shared.usage.rollups import RolledUp, RollUps
from shared.usage.rows import StoredAttempt, StoredRequest

GATHER_SECONDS: Final = 0.2
"""How long records gather before they are written together, unless more wait than are written at once. Each commit waits for
the disk and takes Python's lock back and forth, so few are better; what gathers is what a killed process may lose."""
MAX_BACKOFF_SECONDS: Final = 15.0
MAX_TRACES: Final = 5_000
"""Records waiting with their traces; those that come later wait without."""
MAX_PENDING: Final = 50_000
"""Records waiting at all (about 2 KB each)."""
CLOSING_TRIES: Final = 5

_GROUP: Final = 1_000
_SLICE: Final = 100
"""Records laid out before other tasks have their turn: about half a millisecond."""
_MAX_WEIGHT: Final = 1_500_000
"""Bytes of one transaction, so that it stays under the 4 MiB Table Storage takes."""
_ROW_WEIGHT: Final = 1_000
_MAX_OPENED: Final = 1_000

_log = logging.getLogger(__name__)


class DamagedUsageError(StorageUnavailableError):
    """A row of a request that says nothing that could be one."""


@dataclass(slots=True)
class _Batch:
    """Rows of one partition that go together, and whose they are."""

    day: str
    requests: list[str] = field(default_factory=list)
    ops: list[Op] = field(default_factory=list)
    slots: set[int] = field(default_factory=set)
    weight: int = 0


class UsageLog:
    """The usage of one process, over the store that all processes share. To be used from one event loop at a time.

    ``dropped`` counts records that are lost, ``dropped_traces`` records kept without their trace, ``duplicates`` records of a
    request that was recorded before.
    """

    def __init__(self, tables: Tables, clock: Clock) -> None:
        self._table = tables.table(rows.TABLE)
        self._clock = clock
        self._pending: dict[str, tuple[str, float]] = {}  # by request id: its text, and when it was taken
        self._roll_ups = RollUps(tables, clock)
        self._known_days: set[str] = set()
        self._opened: dict[tuple[str, int], float] = {}  # slots of days that were opened for late rows, and when
        self._lock = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self.dropped = 0
        self.dropped_traces = 0
        self.duplicates = 0

    # ---- writing -----------------------------------------------------------------------------------------------------

    def record(self, record: RequestRecord) -> None:
        """Take a record to be written soon. Never waits and never raises."""
        if record.request_id in self._pending:
            self.duplicates += 1
            return
        waiting = len(self._pending)
        if waiting >= MAX_PENDING:
            self._drop("The usage log is full: the store has not answered for too long")
            return
        if waiting >= MAX_TRACES and record.trace:
            self.dropped_traces += 1
            record = replace(record, trace={"truncated": True, "reason": "the store did not answer"})
        try:
            self._pending[record.request_id] = (rows.text_of(record), self._clock.now())
        except (TypeError, ValueError, AttributeError) as error:
            self._drop(f"The usage record of {record.request_id:.60} can't be written: {type(error).__name__}")
            return
        self._wake()

    async def flush(self) -> None:
        """Write everything taken so far; raise `StorageUnavailableError` when the store did not take it (it is kept)."""
        if not self._pending:
            return
        self._wake()
        last = next(reversed(self._pending))
        while last in self._pending:
            await self._write()

    def written_until(self) -> float:
        """Return the wall-clock moment before which every record that was taken is in the store: now when nothing waits."""
        return min([taken for _, taken in self._pending.values()], default=self._clock.now())

    async def insert_recovered(
        self, records: Sequence[RequestRecord], *, wrote: Callable[[RequestRecord], None] | None = None
    ) -> int:
        """Insert what is known of a dead process's requests; return how many were not there yet.

        ``wrote`` is called with each of those. Requests that are there stay as they are. Raise `StorageUnavailableError` when
        the store did not take all of them: then call again with the same ones.
        """
        known = {record.request_id: record for record in records if record.request_id not in self._pending}
        count = 0
        for batch in await self._batches([(request_id, rows.text_of(record)) for request_id, record in known.items()]):
            new = await self._insert(batch)
            count += len(new)
            if wrote is not None:
                for request_id in new:
                    wrote(known[request_id])
        return count

    async def aclose(self) -> None:
        """Write what is left, trying for a few seconds; what could not be written is counted and reported. Never raises."""
        if self._task is not None and self._loop is asyncio.get_running_loop():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for attempt in range(CLOSING_TRIES):
            try:
                while self._pending:
                    await self._write()
            except StorageUnavailableError:
                await self._clock.sleep(self._backoff(attempt))
        if self._pending:
            self.dropped += len(self._pending)
            _log.critical("%d usage records are lost: the store did not take them before the end", len(self._pending))
            self._pending.clear()

    def _wake(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # outside a loop there is nobody to write yet; the next record or flush does
            return
        if self._loop is not loop:  # the loop that knew the lock and the task is gone
            self._loop, self._lock, self._task = loop, asyncio.Lock(), None
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._drain(), name="switchyard-usage")

    async def _drain(self) -> None:
        serve_nobody()
        failures = 0
        while self._pending:
            if failures:
                await self._clock.sleep(self._backoff(failures))
            elif len(self._pending) < _GROUP:
                await self._clock.sleep(GATHER_SECONDS)
            try:
                await self._write()
            except StorageUnavailableError as error:
                failures += 1
                _log.warning("%d usage records wait for the store: %s", len(self._pending), error.message)
            else:
                failures = 0
            await asyncio.sleep(0)  # a clock that does not really wait must not keep the loop from others

    def _backoff(self, failures: int) -> float:
        return min(MAX_BACKOFF_SECONDS, 0.2 * 2.0 ** min(failures, 10)) * (0.5 + self._clock.draw() / 2)

    async def _write(self) -> None:
        """Write the oldest records; those that are in the store, or can never be, leave the queue."""
        async with self._lock:
            batches = await self._batches(self._oldest())
            writing = []
            for batch in batches:
                writing.append(asyncio.ensure_future(self._write_batch(batch)))
                await asyncio.sleep(0)  # let it lay out its rows before the next one does, and others have their turn
            failures = [failed for failed in await asyncio.gather(*writing) if failed is not None]
        if failures:
            raise failures[0]

    def _oldest(self) -> list[tuple[str, str]]:
        return [(request_id, text) for request_id, (text, _) in itertools.islice(self._pending.items(), _GROUP)]

    async def _batches(self, pending: list[tuple[str, str]]) -> list[_Batch]:
        open_batches: dict[str, _Batch] = {}
        complete: list[_Batch] = []
        days: dict[str, set[int]] = {}
        for number, (request_id, text) in enumerate(pending, 1):
            place = rows.place_of(request_id)
            days.setdefault(place.day, set()).add(place.slot)
            weight = _ROW_WEIGHT + 2 * len(text)
            batch = open_batches.get(place.partition)
            if batch is None:
                batch = open_batches[place.partition] = _Batch(place.day)
            elif len(batch.ops) >= MAX_TRANSACTION or batch.weight + weight > _MAX_WEIGHT:
                complete.append(batch)
                batch = open_batches[place.partition] = _Batch(place.day)
            batch.requests.append(request_id)
            batch.ops.append(Op(Action.INSERT, rows.entity(text, place)))
            batch.slots.add(place.slot)
            batch.weight += weight
            if number % _SLICE == 0:
                await asyncio.sleep(0)
        await self._announce(days)
        for day, slots in days.items():
            await self._open_late(day, slots)  # all at once: each batch by itself would be in the others' way
        return [*complete, *open_batches.values()]

    async def _announce(self, days: Iterable[str]) -> None:
        """Say which days have rows, before they have: a report looks only there."""
        for day in days:
            if day not in self._known_days:
                await self._table.transact([Op(Action.UPSERT, Entity(rows.DAYS, day))])
                self._known_days.add(day)

    async def _open_late(self, day: str, slots: Iterable[int]) -> bool:
        """Open the slots whose rows are late, see `shared.usage.days`; False when the day's rows are deleted already."""
        if day == rows.UNDATED:
            return True
        now = self._clock.now()
        late = [slot for slot in slots if now > max(slot_end(day, slot), self._opened.get((day, slot), 0.0)) + WRITE_WITHIN]
        if not late:
            return True
        since = await self._roll_ups.days.open(day, late, now)
        if since is None:
            return False
        if len(self._opened) >= _MAX_OPENED:
            self._opened.clear()
        self._opened.update({(day, slot): since for slot in late})
        return True

    async def _write_batch(self, batch: _Batch) -> StorageUnavailableError | None:
        try:
            new = await self._insert(batch)
        except StorageUnavailableError as error:
            return error
        self.duplicates += len(batch.requests) - len(new)
        for request_id in batch.requests:
            self._pending.pop(request_id, None)
        return None

    async def _insert(self, batch: _Batch) -> list[str]:
        """Insert rows; return the requests that were not there yet."""
        if not await self._open_late(batch.day, batch.slots):
            return await self._insert_undated(batch)
        new = batch.requests
        if not await self._inserted(batch.ops):
            pairs = zip(batch.requests, batch.ops, strict=True)
            new = [request_id for request_id, op in pairs if await self._insert_one(request_id, op)]
        if not await self._open_late(batch.day, batch.slots):  # it may have taken long
            return await self._insert_undated(batch)
        return new

    async def _insert_undated(self, batch: _Batch) -> list[str]:
        """Insert rows of a day whose rows are rolled up and deleted: they would not be looked for there."""
        await self._announce([rows.UNDATED])
        new = []
        for request_id, op in zip(batch.requests, batch.ops, strict=True):
            place = rows.undated_place(request_id)
            row = Entity(place.partition, place.request, op.entity.properties)
            if await self._insert_one(request_id, Op(Action.INSERT, row)):
                new.append(request_id)
        return new

    async def _inserted(self, ops: list[Op]) -> bool:
        """Insert in one transaction; False when that can't be, for the sake of one of the rows."""
        try:
            await self._table.transact(ops)
        except (EntityExistsError, InvalidEntityError):
            return False
        return True

    async def _insert_one(self, request_id: str, op: Op) -> bool:
        """Insert one request, and say whether it was not there yet; a row that is there stays, unless it was recovered."""
        try:
            await self._table.transact([op])
        except EntityExistsError:
            return await self._correct(op.entity)
        except InvalidEntityError as error:
            self._drop(f"The usage record of {request_id:.60} can't be stored: {error.message}")
        return True

    async def _correct(self, row: Entity) -> bool:
        """Write what a process that was taken for dead knows itself over what recovery made of it; say whether that was so."""
        found = await self._table.get(row.partition, row.row)
        if found is None or not _is_recovered(found) or _is_recovered(row):
            return False
        try:
            await self._table.replace(replace(row, etag=found.etag))
        except (EntityChangedError, EntityNotFoundError):
            return False
        return True

    def _drop(self, message: str) -> None:
        self.dropped += 1
        if self.dropped.bit_count() == 1:  # the 1st, 2nd, 4th …: loud, and no flood
            _log.error("%s. Usage records lost so far: %d", message, self.dropped)

    # ---- reading -----------------------------------------------------------------------------------------------------

    async def find(self, request_id: str) -> StoredRequest | None:
        """Return what is known of a request, written or still waiting, or None; raise `DamagedUsageError`."""
        waiting = self._pending.get(request_id)
        if waiting is not None:
            return replace(rows.stored_request(rows.document_in(waiting[0])), pending=True)
        place, late = rows.place_of(request_id), rows.undated_place(request_id)
        row = await self._table.get(place.partition, place.request) or await self._table.get(late.partition, late.request)
        if row is None:
            return None
        try:
            return rows.stored_request(rows.document(row))
        except ValueError as error:
            message = f"The usage row of {request_id:.60} is damaged: {error}."
            raise DamagedUsageError(message) from error

    async def rows(self, start: float, end: float) -> AsyncGenerator[StoredAttempt, None]:
        """Yield the attempts of requests that began from ``start`` up to but without ``end``, a day after the other.

        Within a day the order is that of the store. What still waits is written first. A damaged row is skipped and reported.
        """
        first, beyond = bounds(start, end)
        await self._write_what_waits()
        for day in await scan.days_with_rows(self._table, first, beyond):
            async for entity, found in scan.documents(self._table, day, first, beyond):
                try:
                    attempts = [] if found is None else rows.stored_attempts(found)
                except ValueError as error:
                    scan.report_damage(entity, error)
                    continue
                for attempt in attempts:
                    yield attempt

    async def report(self, query: UsageQuery) -> list[UsageRow]:
        """Return the rows of `summary`."""
        return (await self.summary(query)).rows

    async def summary(self, query: UsageQuery) -> UsageReport:
        """Add up usage; what still waits is written first. Raise `InvalidRequestError` for a query that makes no sense."""
        sums = Sums(query)
        first, beyond = bounds(query.start, query.end)
        await self._write_what_waits()
        await Reading(sums, self._table, self._roll_ups).add(first, beyond)
        return sums.report()

    async def _write_what_waits(self) -> None:
        with contextlib.suppress(StorageUnavailableError):  # if it is, reading says so
            await self.flush()

    # ---- rolling up --------------------------------------------------------------------------------------------------

    async def roll_up(self, now: float) -> RolledUp:
        """Roll up what is complete; raise `StorageUnavailableError`. Safe on any number of instances at once."""
        return await self._roll_ups.roll_up(now)

    async def prune(self, before_day: str) -> int:
        """Delete the rows of days before a day (``2026-11-22``) that are rolled up; return how many."""
        return await self._roll_ups.prune(before_day)


def bounds(start: float, end: float) -> tuple[float, float]:
    """Return a stretch of time within what a date can say."""
    if not start <= end:
        message = "The start of a report must be before its end."
        raise InvalidRequestError(message, param="start")
    return min(max(start, 0.0), scan.LATEST), min(max(end, 0.0), scan.LATEST)


def _is_recovered(row: Entity) -> bool:
    try:
        return rows.stored_request(rows.document(row)).record.recovered
    except ValueError:
        return False

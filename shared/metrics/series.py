"""Metrics by the minute: counted in this process, written to the store now and then, read back over all instances.

A minute of an instance is a few rows in the table ``metrics`` (partition: UTC day; row: minute, instance, part) that are
written over with the minute's whole sum, so that a write may be repeated. A minute that is over and written is forgotten here.
A row is about 1 KB per model and project; days older than anybody asks for may be deleted partition by partition.

Writing happens in a task that is started on demand and ends when all is written; a process that is killed loses the metrics of
the last seconds, never usage.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from shared.core.errors import InvalidRequestError, StorageUnavailableError
from shared.core.fields import Fields
from shared.core.records import RequestRecord
from shared.metrics.cells import Cell, Summary
from shared.ports import Action, Clock, Entity, Op, Tables, Value
from shared.tracing import serve_nobody

TABLE: Final = "metrics"
FLUSH_SECONDS: Final = 5.0
MAX_SECONDS: Final = 31 * 86_400
MAX_POINTS: Final = 180
SETTLED_SECONDS: Final = 30.0
"""After its end a minute is in the store, whichever instance counted it; when that answers."""
LATE_MINUTES: Final = 120
"""How long sums of the day take in what an instance could not write for a while."""
MAX_CELLS: Final = 300
"""Models times projects of one minute; what comes later counts as `OTHER`."""
MAX_MINUTES: Final = 60
"""Minutes kept while the store does not answer."""
OTHER: Final = "(other)"

_MINUTE: Final = 60
_MINUTES_OF_DAY: Final = 1_440
_STEPS: Final = (60, 300, 900, 3_600, 21_600, 86_400)
_CHUNK: Final = 30_000
_CHUNKS_PER_ROW: Final = 12
_MAX_NAME: Final = 128

_log = logging.getLogger(__name__)

Cells = dict[tuple[str, str], Cell]
"""Sums by model and project."""


@dataclass(frozen=True, slots=True)
class Point:
    """One step of the time series; ``start`` is seconds since the epoch."""

    start: int
    summary: Summary


@dataclass(frozen=True, slots=True)
class MetricsReport:
    """From ``start`` (a whole minute) to ``end``: in all, by model, and over time in steps of ``step_seconds``."""

    start: float
    end: float
    step_seconds: int
    total: Summary
    models: Mapping[str, Summary] = field(default_factory=dict)
    series: tuple[Point, ...] = ()


@dataclass(frozen=True, slots=True)
class DayTotals:
    """A UTC day so far, of all instances: from midnight ``until`` a moment (epoch seconds), by model and project."""

    until: float
    cells: Mapping[tuple[str, str], Cell] = field(default_factory=dict)


class Metrics:
    """The metrics of one process and, in reports, of all. ``instance`` names the process; no two may share a name.

    To be used from one event loop at a time.
    """

    def __init__(self, tables: Tables, clock: Clock, instance: str) -> None:
        self._table = tables.table(TABLE)
        self._clock = clock
        # A process that starts again within the minute must not write over what its predecessor counted.
        started = f"{int(clock.now() * 1000):x}{int(clock.draw() * 2**32):08x}"
        self._instance = f"{re.sub(r'[^A-Za-z0-9.-]', '-', instance)[:64]}-{started}"
        self._minutes: dict[int, Cells] = {}
        self._dirty: set[int] = set()
        self._writing: int | None = None
        self._today = _Today()
        self._lock = asyncio.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    # ---- counting ----------------------------------------------------------------------------------------------------

    def observe(self, record: RequestRecord) -> None:
        """Count a request that has ended, in the minute of now. Never waits and never raises."""
        minute = int(self._clock.now()) // _MINUTE
        cells = self._minutes.get(minute)
        if cells is None:
            cells = self._minutes[minute] = {}
            self._forget(minute)
        project = record.project
        _cell(cells, record.model or record.original_model, project).add_request(record)
        before = None
        for attempt in record.attempts:
            fallback = before is not None and attempt.deployment != before
            _cell(cells, attempt.model, project).add_attempt(attempt, fallback=fallback)
            before = attempt.deployment
        self._dirty.add(minute)
        self._wake()

    def _forget(self, now: int) -> None:
        """Let go of minutes that are over and written; of the oldest that is not, when too many wait."""
        for minute in [m for m in self._minutes if m < now and m not in self._dirty and m != self._writing]:
            del self._minutes[minute]
        if len(self._minutes) > MAX_MINUTES:
            oldest = min(self._minutes)
            _log.error("The metrics of a minute are lost: the store has not answered for %d minutes", now - oldest)
            del self._minutes[oldest]
            self._dirty.discard(oldest)

    def _wake(self) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # outside a loop there is nobody to write yet; the next request or flush does
            return
        if self._loop is not loop:  # the loop that knew the lock and the task is gone
            self._loop, self._lock, self._task = loop, asyncio.Lock(), None
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._write_now_and_then(), name="switchyard-metrics")

    async def _write_now_and_then(self) -> None:
        serve_nobody()
        while self._dirty:
            await self._clock.sleep(FLUSH_SECONDS)
            await self.flush()
            await asyncio.sleep(0)  # a clock that does not really wait must not keep the loop from others

    async def flush(self) -> bool:
        """Write what was counted since the last time. False when the store did not take it: it is kept for the next time."""
        async with self._lock:
            for minute in sorted(self._dirty):
                self._dirty.discard(minute)  # what is observed from here on makes it dirty again
                self._writing = minute
                written = False
                try:
                    await self._write(minute)
                    written = True
                except StorageUnavailableError as error:
                    _log.warning("The metrics of %d minutes wait for the store: %s", len(self._dirty) + 1, error.message)
                    return False
                finally:
                    self._writing = None
                    if not written:
                        self._dirty.add(minute)
        self._forget(int(self._clock.now()) // _MINUTE)
        return True

    async def aclose(self) -> None:
        """Write what is left, once, and stop. Never raises."""
        if self._task is not None and self._loop is asyncio.get_running_loop():
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.flush()

    async def _write(self, minute: int) -> None:
        partition, time = _names(minute)
        part = 0
        properties: dict[str, Value] = {}
        for chunk in _chunks(list(self._minutes.get(minute, {}).items())):
            properties[f"cells{len(properties):02}"] = chunk
            if len(properties) == _CHUNKS_PER_ROW:
                await self._upsert(Entity(partition, f"{time}~{self._instance}~{part:03}", properties))
                part, properties = part + 1, {}
            await asyncio.sleep(0)
        if properties:
            await self._upsert(Entity(partition, f"{time}~{self._instance}~{part:03}", properties))

    async def _upsert(self, entity: Entity) -> None:
        await self._table.transact([Op(Action.UPSERT, entity)])

    # ---- reports -----------------------------------------------------------------------------------------------------

    async def report(self, seconds: float, *, model: str | None = None, project: str | None = None) -> MetricsReport:
        """Sum up the last ``seconds`` of all instances, of one model or project if named, to the minute.

        What this process has counted is in it at once, what others have within a few seconds. Raise `InvalidRequestError`.
        """
        if not 0 < seconds <= MAX_SECONDS:
            message = "The time range must be over 0 seconds and at most 31 days."
            raise InvalidRequestError(message, param="time_range")
        end = self._clock.now()
        first = int(end - seconds) // _MINUTE
        step = next((step for step in _STEPS if seconds / step <= MAX_POINTS), _STEPS[-1])
        total, models, steps = Cell(), dict[str, Cell](), dict[int, Cell]()
        async for minute, cells in self._all(first, int(end) // _MINUTE):
            for (cell_model, cell_project), cell in cells.items():
                if model in {None, cell_model} and project in {None, cell_project}:
                    start = minute * _MINUTE // step * step
                    for sums in (total, models.setdefault(cell_model, Cell()), steps.setdefault(start, Cell())):
                        sums.merge(cell)
        start = first * _MINUTE
        return MetricsReport(
            start=float(start),
            end=end,
            step_seconds=step,
            total=total.summary(end - start),
            models={name: cell.summary(end - start) for name, cell in sorted(models.items())},
            series=tuple(
                Point(at, steps.get(at, Cell()).summary(min(step, end - at)))
                for at in range(start // step * step, math.ceil(end), step)
            ),
        )

    async def today(self) -> DayTotals:
        """Sum up the day's minutes that are over and written, so that every instance says the same; never less than before.

        A minute is in it half a minute after its end: so the day's last one is, before the next day's sums begin. Raise
        `StorageUnavailableError`.
        """
        now = self._clock.now()
        last = int(now - SETTLED_SECONDS) // _MINUTE - 1
        start = last // _MINUTES_OF_DAY * _MINUTES_OF_DAY
        if self._today.last != last:
            known = self._today if self._today.start == start else _Today(start, start)
            # What was counted while the store was away is written later: until then it is read anew each time.
            settled = max(known.settled, last - LATE_MINUTES)
            base = await self._summed(known.base, known.settled, settled - 1)
            self._today = _Today(start, settled, base, last, await self._summed(base, settled, last))
        return DayTotals(float((last + 1) * _MINUTE), self._today.cells)

    async def _summed(self, base: Mapping[tuple[str, str], Cell], first: int, last: int) -> Cells:
        """Return sums with those of some minutes added."""
        found: Cells = {}
        for key, cell in base.items():
            found.setdefault(key, Cell()).merge(cell)
        if first <= last:
            async for _, cells in self._all(first, last):
                for key, cell in cells.items():
                    found.setdefault(key, Cell()).merge(cell)
        return found

    async def _all(self, first: int, last: int) -> AsyncGenerator[tuple[int, Cells], None]:
        """Yield the sums of every minute and instance: ours from here as long as we have them, else from the store."""
        local = {minute: cells for minute, cells in self._minutes.items() if first <= minute <= last}
        for minute, cells in local.items():
            yield minute, dict(cells)
        for start, end in _days(first, last):
            day = _names(start)[0]
            async for entity in self._table.query(day, start=_names(start)[1], end=_names(end)[1] + "~~"):
                time, _, rest = entity.row.partition("~")
                try:
                    minute = _minute(day, time)
                    if minute not in local or rest.rpartition("~")[0] != self._instance:
                        yield minute, _read(entity)
                except ValueError as error:
                    _log.error("The metrics row %s in %s is damaged and left out: %s", entity.row, day, error)


@dataclass(frozen=True, slots=True)
class _Today:
    """The sums of the day that begins with minute ``start``, up to ``last``.

    ``base`` are those before ``settled``, which are not read again.
    """

    start: int = -1
    settled: int = -1
    base: Cells = field(default_factory=dict)
    last: int = -1
    cells: Cells = field(default_factory=dict)


def _cell(cells: Cells, model: str, project: str) -> Cell:
    key = (model, project)
    found = cells.get(key)
    if found is None:
        key = (_clean(model), _clean(project)) if len(cells) < MAX_CELLS else (OTHER, OTHER)
        found = cells.setdefault(key, Cell())
    return found


def _clean(name: str) -> str:
    """Return what can be stored and shown: a caller may name a model as long and as broken as he likes."""
    return name[:_MAX_NAME].encode("utf-8", "replace").decode()


def _chunks(cells: list[tuple[tuple[str, str], Cell]]) -> Iterator[str]:
    """Yield the cells as JSON lists of ASCII, each short enough for a property."""
    parts: list[str] = []
    size = 0
    for (model, project), cell in cells:
        part = json.dumps({"model": model, "project": project, **cell.to_plain()}, separators=(",", ":"))
        if parts and size + len(part) > _CHUNK:
            yield "[" + ",".join(parts) + "]"
            parts, size = [], 0
        parts.append(part)
        size += len(part) + 1
    if parts:
        yield "[" + ",".join(parts) + "]"


def _read(entity: Entity) -> Cells:
    """Return the cells of a row; raise `ValueError` when they can't be read."""
    found: Cells = {}
    for name in entity.properties:
        chunk = json.loads(Fields(entity.properties).text(name))
        if not isinstance(chunk, list) or not all(isinstance(plain, dict) for plain in chunk):
            message = f"{name} is not a list of sums"
            raise ValueError(message)
        for plain in chunk:
            row = Fields(plain)
            found.setdefault((row.text("model"), row.text("project")), Cell()).merge(Cell.from_plain(plain))
    return found


def _names(minute: int) -> tuple[str, str]:
    """Return the partition and the beginning of the row of a minute: its UTC day and its time."""
    moment = datetime.fromtimestamp(minute * _MINUTE, UTC)
    return moment.date().isoformat(), moment.strftime("%H%M")


def _minute(day: str, time: str) -> int:
    return int(datetime.strptime(f"{day} {time} +0000", "%Y-%m-%d %H%M %z").timestamp()) // _MINUTE


def _days(first: int, last: int) -> Iterator[tuple[int, int]]:
    """Yield the first and the last minute of each day that a span of minutes touches."""
    per_day = 86_400 // _MINUTE
    for day in range(first // per_day, last // per_day + 1):
        yield max(first, day * per_day), min(last, day * per_day + per_day - 1)

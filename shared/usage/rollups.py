"""Roll-ups: rows of requests added up a quarter of an hour at a time, and by the day, so that a year is read in one go.

    s~2026-11-22   00~TOKEN~00             a slot of the day, see `shared.usage.days`
    d~2026         2026-11-22~TOKEN~00     the day, without hours
    h~2026-11      2026-11-22~TOKEN~00     the day by the hour

The rows of a roll-up are never changed. They count once the state of their day names their token, which a conditional write
decides: any number of instances may roll up at once, and any may die anywhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from shared.ports import (
    MAX_TRANSACTION,
    Action,
    Clock,
    Entity,
    EntityNotFoundError,
    EntityTable,
    InvalidEntityError,
    Op,
    Tables,
)
from shared.usage import rows, scan
from shared.usage.cells import Cell, Columns, Dims, columns_in, shares_of, texts_of
from shared.usage.days import Days, DayState, RollUp, start_of
from shared.usage.rows import SLOT_SECONDS, SLOTS

TABLE: Final = "usagerollups"
MAX_SLOTS: Final = 96
"""Slots rolled up in one go: a day's worth."""
SLOTS_AN_HOUR: Final = 3_600 // SLOT_SECONDS
_PAUSE: Final = 50
"""Rows added up before other tasks have their turn: about a millisecond."""
_ABANDONED_SECONDS: Final = 3_600.0
"""After which rows that no state names are nobody's who could still name them: the state has been changed meanwhile."""

_log = logging.getLogger(__name__)

Cells = dict[tuple[int, Dims], Cell]
Chosen = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class RolledUp:
    """What one go has done. ``conflicts`` are days that somebody else changed meanwhile: they come next time."""

    slots: int = 0
    days: int = 0
    conflicts: int = 0


@dataclass(slots=True)
class _Slot:
    cells: Cells
    damaged: int = 0


class RollUps:
    """Makes roll-ups of one store's usage, reads them, and deletes the rows they stand for."""

    def __init__(self, tables: Tables, clock: Clock) -> None:
        self._usage = tables.table(rows.TABLE)
        self._table = tables.table(TABLE)
        self._clock = clock
        self.days = Days(self._table)

    # ---- making ------------------------------------------------------------------------------------------------------

    async def roll_up(self, now: float) -> RolledUp:
        """Roll up what is complete, the latest days first, up to `MAX_SLOTS`; raise `StorageUnavailableError`.

        Safe at any time, on any instance, several at once, and when it ends half way.
        """
        done = RolledUp()
        days = [day for day in await scan.days_with_rows(self._usage, 0.0, now) if day != rows.UNDATED]
        states = await self.days.between(days[0], days[-1]) if days else {}
        for day in reversed(days):
            state = states.get(day) or DayState(day)
            if state.pruned or state.damaged or state.whole is not None:
                continue
            closing = state.closable(now)[: MAX_SLOTS - done.slots]
            if closing or len(state.slots) == SLOTS:
                done = await self._roll_up_day(state, closing, now, done)
            if done.slots >= MAX_SLOTS:
                break
        return done

    async def _roll_up_day(self, state: DayState, closing: list[int], now: float, done: RolledUp) -> RolledUp:
        token = f"{int(now * 1000):012x}{int(self._clock.draw() * (1 << 32)):08x}{int(self._clock.draw() * (1 << 32)):08x}"
        try:
            made = await self._make_slots(state.day, closing, token)
            rolled = state.closed(made)
            if len(rolled.slots) == SLOTS:
                rolled = await self._with_day(rolled, token)
        except InvalidEntityError as error:
            _log.exception("The usage of %s can't be rolled up, its rows are read instead: %s", state.day, error.message)
            return done
        if not await self.days.change(rolled):
            await self._delete_unnamed(state, lambda found: found == token)
            return replace(done, conflicts=done.conflicts + 1)
        if rolled.whole is not None:
            oldest = f"{int((now - _ABANDONED_SECONDS) * 1000):012x}"
            await self._delete_unnamed(rolled, lambda found: found < oldest)
        return RolledUp(done.slots + len(made), done.days + (rolled.whole is not None), done.conflicts)

    async def _make_slots(self, day: str, closing: list[int], token: str) -> dict[int, RollUp]:
        found = {slot: _Slot({}) for slot in closing}
        for first, last in _stretches(closing):
            start = start_of(day) + first * SLOT_SECONDS
            end = start_of(day) + (last + 1) * SLOT_SECONDS
            number = 0
            async for entity, document in scan.documents(self._usage, day, start, end):
                number += 1
                slot = rows.place_of(entity.row.removeprefix(rows.REQUEST)).slot
                _count(found.get(slot) or found[first], entity, document)
                if number % _PAUSE == 0:
                    await asyncio.sleep(0)
        return {
            slot: await self._write(f"s~{day}", f"{slot:02}", token, _texts(sums, hours=False)) for slot, sums in found.items()
        }

    async def _with_day(self, state: DayState, token: str) -> DayState:
        """Return a day all of whose slots are closed with the roll-ups of the whole day; without, if a slot's are damaged."""
        hourly, whole = _Slot({}), _Slot({})
        missing = set(state.slots)
        async for slot, parts in self.slots_of(state, range(SLOTS)):
            missing.remove(slot)
            for columns in parts:
                whole.damaged += columns.damaged
                for _, dims, cell in columns.cells():
                    hourly.cells.setdefault((slot // SLOTS_AN_HOUR, dims), Cell()).merge(cell)
                    whole.cells.setdefault((0, dims), Cell()).merge(cell)
            await asyncio.sleep(0)
        if missing:
            return replace(state, slots={slot: made for slot, made in state.slots.items() if slot not in missing})
        hourly.damaged = whole.damaged
        day = state.day
        return replace(
            state,
            whole=await self._write(_by_year(day), day, token, _texts(whole, hours=False)),
            hourly=await self._write(_by_month(day), day, token, _texts(hourly, hours=True)),
            late={},
        )

    async def _write(self, partition: str, name: str, token: str, texts: list[str]) -> RollUp:
        for part, text in enumerate(texts):
            row = Entity(partition, f"{name}~{token}~{part:02}", rows.properties_of(text))
            await self._table.transact([Op(Action.UPSERT, row)])
        return RollUp(token, len(texts))

    async def _delete_unnamed(self, state: DayState, chosen: Chosen) -> None:
        """Delete rows of roll-ups that the state does not name, by their tokens."""
        named = {f"{slot:02}~{made.token}" for slot, made in state.slots.items()}
        named |= {f"{state.day}~{made.token}" for made in (state.whole, state.hourly) if made is not None}
        for partition, name in ((f"s~{state.day}", ""), (_by_year(state.day), state.day), (_by_month(state.day), state.day)):
            start, end = (f"{name}~", f"{name}~~") if name else ("", None)
            found = [entity.row async for entity in self._table.query(partition, start=start, end=end)]
            unnamed = [row for row in found if row.rpartition("~")[0] not in named and chosen(row.split("~")[-2])]
            await _delete(self._table, partition, unnamed)

    # ---- reading -----------------------------------------------------------------------------------------------------

    async def days_of(self, wanted: Mapping[str, RollUp], *, hourly: bool) -> AsyncGenerator[tuple[str, list[Columns]], None]:
        """Yield the roll-ups of days, each whole; a day whose roll-up is damaged or has just been replaced is left out."""
        by_partition: dict[str, dict[str, RollUp]] = {}
        for day, made in sorted(wanted.items()):
            by_partition.setdefault(_by_month(day) if hourly else _by_year(day), {})[day] = made
        for partition, roll_ups in by_partition.items():
            async for found in self._whole(partition, roll_ups):
                yield found

    async def slots_of(self, state: DayState, slots: Iterable[int]) -> AsyncGenerator[tuple[int, list[Columns]], None]:
        """Yield the roll-ups of those slots that are closed, as `days_of` does."""
        named = {f"{slot:02}": state.slots[slot] for slot in slots if slot in state.slots}
        async for name, parts in self._whole(f"s~{state.day}", named):
            yield int(name), parts

    async def _whole(self, partition: str, wanted: Mapping[str, RollUp]) -> AsyncGenerator[tuple[str, list[Columns]], None]:
        for name in [name for name, made in wanted.items() if made.parts == 0]:
            yield name, []
        names = sorted(name for name, made in wanted.items() if made.parts)
        if not names:
            return
        parts: dict[str, list[Columns]] = {}
        async for entity in self._table.query(partition, start=f"{names[0]}~", end=f"{names[-1]}~~"):
            name, token, _ = entity.row.rsplit("~", 2)
            made = wanted.get(name)
            if made is None or made.token != token:
                continue
            try:
                parts.setdefault(name, []).append(columns_in(rows.text_in(entity)))
            except ValueError as error:
                scan.report_damage(entity, error)
                continue
            if len(parts[name]) == made.parts:
                yield name, parts.pop(name)

    # ---- deleting ----------------------------------------------------------------------------------------------------

    async def prune(self, before_day: str) -> int:
        """Delete the rows of requests of days before a day (``2026-11-22``) that are rolled up; return how many.

        A day whose roll-up does not hold as many rows as there are is rolled up again instead. Safe as `roll_up` is.
        """
        deleted = 0
        start = max(0.0, start_of(before_day) - 1.0)
        states = await self.days.between(rows.day_of(0.0), rows.day_of(start))
        for day, found in states.items():
            state = await self._pruned(found) if found.whole is not None and not found.pruned else found
            if state.pruned and not state.swept:
                deleted += await self._sweep(day)
                await self.days.change(replace(await self.days.get(day), swept=True))
        return deleted

    async def _pruned(self, state: DayState) -> DayState:
        """Return the state with the day pruned, as it is stored now."""
        rolled = 0
        kept = await self._readable(state)
        async for _, parts in self.slots_of(state, range(SLOTS)):
            rolled += sum(columns.rows for columns in parts)
        stored = 0
        for partition in rows.partitions_of(state.day):
            async for _ in self._usage.query(partition, start=rows.REQUEST, end=f"{rows.REQUEST}~"):
                stored += 1
        if kept != stored or rolled != stored:
            _log.error("The roll-up of %s holds %d rows of %d: it is made again", state.day, kept, stored)
            await self.days.change(replace(state, slots={}, whole=None, hourly=None))
        else:
            await self.days.change(replace(state, pruned=True))
        return await self.days.get(state.day)

    async def _readable(self, state: DayState) -> int:
        """Return how many rows the roll-ups of a day hold, -1 if they differ or one can't be read."""
        counts = []
        for made, hourly in ((state.whole, False), (state.hourly, True)):
            found = -1
            if made is not None:
                async for _, parts in self.days_of({state.day: made}, hourly=hourly):
                    found = sum(columns.rows for columns in parts)
            counts.append(found)
        return counts[0] if counts[0] == counts[1] else -1

    async def _sweep(self, day: str) -> int:
        deleted = 0
        for partition in rows.partitions_of(day):
            while True:
                page = self._usage.query(partition, limit=MAX_TRANSACTION)
                found = [entity.row async for entity in page]
                if not found:
                    break
                await _delete(self._usage, partition, found)
                deleted += len(found)
        return deleted


def _count(slot: _Slot, entity: Entity, document: rows.Document | None) -> None:
    try:
        shares = [] if document is None else shares_of(document)
    except ValueError as error:
        scan.report_damage(entity, error)
        shares = []
    slot.damaged += not shares
    for share in shares:
        slot.cells.setdefault((0, share.dims), Cell()).add(share)


def _texts(slot: _Slot, *, hours: bool) -> list[str]:
    """Return a sum as texts; none when there was no row."""
    return texts_of(slot.cells, hours=hours, damaged=slot.damaged) if slot.cells or slot.damaged else []


def _stretches(slots: list[int]) -> list[tuple[int, int]]:
    """Return slots in a row as their first and last."""
    if not slots:
        return []
    ends = [(before, after) for before, after in pairwise(slots) if after != before + 1]
    return list(zip([slots[0], *(after for _, after in ends)], [*(before for before, _ in ends), slots[-1]], strict=True))


def _by_year(day: str) -> str:
    return f"d~{day[:4]}"


def _by_month(day: str) -> str:
    return f"h~{day[:7]}"


async def _delete(table: EntityTable, partition: str, found: list[str]) -> None:
    """Delete rows, some of which somebody else may be deleting as well."""
    for at in range(0, len(found), MAX_TRANSACTION):
        ops = [Op(Action.DELETE, Entity(partition, row, etag="*")) for row in found[at : at + MAX_TRANSACTION]]
        try:
            await table.transact(ops)
        except EntityNotFoundError:
            for op in ops:
                await _delete_one(table, op)


async def _delete_one(table: EntityTable, op: Op) -> None:
    try:
        await table.transact([op])
    except EntityNotFoundError:
        return

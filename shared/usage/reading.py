"""Reading for a report: the roll-ups of what is closed, the rows of what is open, each request once."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import Final

from shared.ports import EntityTable
from shared.usage import rows, scan
from shared.usage.days import DayState, RollUp, start_of
from shared.usage.report import Sums
from shared.usage.rollups import SLOTS_AN_HOUR, RollUps
from shared.usage.rows import SLOT_SECONDS, SLOTS

_SLOT: Final = SLOT_SECONDS * 1_000
_DAY: Final = 86_400_000


class Reading:
    """One report's way through the store. Times are milliseconds since the epoch: what ids tell."""

    def __init__(self, sums: Sums, usage: EntityTable, roll_ups: RollUps) -> None:
        self._sums = sums
        self._usage = usage
        self._roll_ups = roll_ups

    async def add(self, start: float, end: float) -> None:
        """Add up what began from ``start`` up to but without ``end``, in seconds since the epoch."""
        days = await scan.days_with_rows(self._usage, start, end)
        # The states are read before any row: what is late then is not closed yet, and what is closed is not late.
        states = await self._roll_ups.days.between(rows.day_of(start), rows.day_of(end))
        self._sums.scanned += len(days) + len(states)
        first, beyond = round(start * 1000), round(end * 1000)
        left = dict.fromkeys(days)
        whole = {day: state for day in days if (state := states.get(day)) and _covers(state, first, beyond)}
        async for day in self._add_days(whole):
            del left[day]
        for day in left:
            if day == rows.UNDATED:
                await self._add_rows(day, start, end)
            else:
                await self._add_slots(states.get(day) or DayState(day), first, beyond)

    async def _add_days(self, whole: dict[str, DayState]) -> AsyncGenerator[str, None]:
        by_hour = self._sums.by_hour
        chosen = {day: state.hourly if by_hour else state.whole for day, state in whole.items()}
        wanted: dict[str, RollUp] = {day: made for day, made in chosen.items() if made is not None}
        async for day, parts in self._roll_ups.days_of(wanted, hourly=by_hour):
            for columns in parts:
                self._sums.scanned += 1
                self._sums.add_columns(columns, day)
            yield day

    async def _add_slots(self, state: DayState, first: int, beyond: int) -> None:
        """Add up what a day that is not whole has in a stretch of time."""
        start = round(start_of(state.day) * 1000)
        first, beyond = max(first, start), min(beyond, start + _DAY)
        self._sums.damaged += state.damaged
        slots = {slot: (start + slot * _SLOT, start + (slot + 1) * _SLOT) for slot in range(SLOTS)}
        if state.pruned:
            within = [slot for slot, (begin, _) in slots.items() if first <= begin < beyond]
            self._sums.coarse |= any(begin < edge < end for edge in (first, beyond) for begin, end in slots.values())
        else:
            within = [slot for slot, (begin, end) in slots.items() if first <= begin and end <= beyond]
        added = set()
        async for slot, parts in self._roll_ups.slots_of(state, within):
            for columns in parts:
                self._sums.scanned += 1
                self._sums.add_columns(columns, state.day, slot // SLOTS_AN_HOUR)
            added.add(slot)
        if state.pruned:
            self._sums.damaged += len(within) - len(added)
            return
        for begin, end in _gaps(slots, added, first, beyond):
            await self._add_rows(state.day, begin / 1000, end / 1000)

    async def _add_rows(self, day: str, start: float, end: float) -> None:
        async for entity, document in scan.documents(self._usage, day, start, end):
            self._sums.scanned += 1
            try:
                if document is None:
                    self._sums.damaged += 1
                else:
                    self._sums.add(document)
            except ValueError as error:
                scan.report_damage(entity, error)
                self._sums.damaged += 1


def _covers(state: DayState, first: int, beyond: int) -> bool:
    """Return whether a stretch of time has the whole of a day that is rolled up."""
    start = round(start_of(state.day) * 1000)
    return state.whole is not None and first <= start and start + _DAY <= beyond


def _gaps(slots: dict[int, tuple[int, int]], added: set[int], first: int, beyond: int) -> Iterator[tuple[int, int]]:
    """Yield the stretches of time that no roll-up has covered, as long as they can be."""
    at = first
    for slot in sorted(added):
        begin, end = slots[slot]
        if at < begin:
            yield at, begin
        at = end
    if at < beyond:
        yield at, beyond

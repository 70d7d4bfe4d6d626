"""The state of each day's roll-ups, and the rule by which no late row is lost and none is counted twice.

A day is 96 slots of a quarter of an hour. A slot is *open* until somebody has rolled it up and *closed* it; a report takes the
roll-ups of closed slots and the rows of open ones. One row per day says which slots are closed, by which roll-up, and a change
of it is conditional on its ETag. So a roll-up that was made while somebody opened the slot again is never taken.

    state   2026-11-22     slots: {slot: roll-up}, day: the roll-up of the whole day, late: {slot: moment}, pruned

Who writes rows of a slot that ended more than `WRITE_WITHIN` ago opens it first, then writes, then looks at the clock again: if
that took long, it opens the slot again. Who rolls up closes a slot `CLOSE_AFTER` after it ended, or was last opened. What is
lost to reports, then, is only a row that reached the store over `CLOSE_AFTER - WRITE_WITHIN` (15 minutes, less the difference
of two clocks) after it was sent, by a process that was frozen so long and died before it could look at its clock again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from typing import Any, Final

import orjson

from shared.core.errors import StorageUnavailableError
from shared.core.fields import Fields
from shared.ports import Entity, EntityChangedError, EntityExistsError, EntityTable
from shared.usage import rows
from shared.usage.rows import SLOT_SECONDS, SLOTS

STATE: Final = "state"
WRITE_WITHIN: Final = 300.0
"""Seconds after a slot's end, or after it was opened again, in which its rows are written without opening it (again)."""
CLOSE_AFTER: Final = 1_200.0
"""Seconds after a slot's end, or after it was opened again, before which it is not closed."""

_TRIES: Final = 20


@dataclass(frozen=True, slots=True)
class RollUp:
    """Which rows are a roll-up: those of this token, so many of them."""

    token: str
    parts: int


@dataclass(frozen=True, slots=True)
class DayState:
    """What is rolled up of a day, and what may be late. ``etag`` is "" when there is no row yet.

    ``whole`` is the roll-up without hours, ``hourly`` the same by hour: both or none. A day that is ``pruned`` has no rows
    any more and never opens again; ``swept`` says that the last of them is deleted. ``damaged`` says that the row of the state
    could not be read: the day's rows are read instead, until somebody mends it.
    """

    day: str
    slots: Mapping[int, RollUp] = field(default_factory=dict)
    whole: RollUp | None = None
    hourly: RollUp | None = None
    late: Mapping[int, float] = field(default_factory=dict)
    pruned: bool = False
    swept: bool = False
    damaged: bool = False
    etag: str = ""

    def closable(self, now: float) -> list[int]:
        """Return the open slots whose rows have all had the time to arrive."""
        start = start_of(self.day)
        return [
            slot
            for slot in range(SLOTS)
            if slot not in self.slots and now >= max(start + (slot + 1) * SLOT_SECONDS, self.late.get(slot, 0.0)) + CLOSE_AFTER
        ]

    def opened(self, late_slots: Collection[int], now: float) -> DayState:
        """Return the day with some slots open, from now."""
        late = {**self.late, **{slot: max(now, self.late.get(slot, 0.0)) for slot in late_slots}}
        slots = {slot: made for slot, made in self.slots.items() if slot not in late_slots}
        return replace(self, slots=slots, whole=None, hourly=None, late=late)

    def closed(self, made: Mapping[int, RollUp]) -> DayState:
        """Return the day with these slots closed."""
        late = {slot: moment for slot, moment in self.late.items() if slot not in made}
        return replace(self, slots={**self.slots, **made}, late=late)


def start_of(day: str) -> float:
    """Return when a UTC day begins."""
    return (date.fromisoformat(day) - date(1970, 1, 1)).days * 86_400.0


def slot_end(day: str, slot: int) -> float:
    """Return when a slot of a day ends."""
    return start_of(day) + (slot + 1) * SLOT_SECONDS


def state_in(row: Entity) -> DayState:
    """Return what the row of a day says."""
    try:
        found = orjson.loads(rows.text_in(row))
        pruned = Fields(found).flag("pruned")
        return DayState(
            row.row,
            slots={int(slot): _roll_up(made) for slot, made in found["slots"].items()},
            whole=_maybe(found["whole"]),
            hourly=_maybe(found["hourly"]),
            late={int(slot): float(moment) for slot, moment in found["late"].items()},
            pruned=pruned,
            swept=Fields(found).flag("swept"),
            etag=row.etag,
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return DayState(row.row, damaged=True, etag=row.etag)


def _roll_up(found: Any) -> RollUp:
    token, parts = found
    return RollUp(str(token), int(parts))


def _maybe(found: Any) -> RollUp | None:
    return None if found is None else _roll_up(found)


class Days:
    """The states of days in a store."""

    def __init__(self, table: EntityTable) -> None:
        self._table = table

    async def get(self, day: str) -> DayState:
        """Return the state of a day."""
        row = await self._table.get(STATE, day)
        return DayState(day) if row is None else state_in(row)

    async def between(self, first: str, last: str) -> dict[str, DayState]:
        """Return the states of the days from first to last for which there is one."""
        return {row.row: state_in(row) async for row in self._table.query(STATE, start=first, end=f"{last}~")}

    async def change(self, state: DayState) -> bool:
        """Store a state over the one it was made from; False when somebody else has changed that meanwhile."""
        row = Entity(STATE, state.day, rows.properties_of(_text(state)), state.etag)
        try:
            await (self._table.replace(row) if state.etag else self._table.insert(row))
        except (EntityChangedError, EntityExistsError):
            return False
        return True

    async def open(self, day: str, slots: Collection[int], now: float) -> float | None:
        """Open slots for rows that come late; return since when they are, None when the day's rows are deleted."""
        for _ in range(_TRIES):
            state = await self.get(day)
            if state.pruned:
                return None
            if state.damaged:  # then nothing is rolled up, and nothing will be
                return now
            since = min(state.late.get(slot, 0.0) for slot in slots)
            if since >= now - WRITE_WITHIN / 2:  # somebody else was late as well
                return since
            if await self.change(state.opened(slots, now)):
                return now
        message = f"The usage of {day} can't be opened for late rows: others change it all the time."
        raise StorageUnavailableError(message)


def _text(state: DayState) -> str:
    found = {
        "slots": {str(slot): (made.token, made.parts) for slot, made in sorted(state.slots.items())},
        "whole": None if state.whole is None else (state.whole.token, state.whole.parts),
        "hourly": None if state.hourly is None else (state.hourly.token, state.hourly.parts),
        "late": {str(slot): moment for slot, moment in sorted(state.late.items())},
        "pruned": state.pruned,
        "swept": state.swept,
    }
    return orjson.dumps(found).decode()

"""The slices of a batch: some hundred lines each, their outcomes in a partition of their own.

s~ID~NNNNNN   0               the HEAD: who runs the slice, which lines have an outcome, what they came to
              o~LLLLL~PPPPP   the result of a line that was answered, in pieces
              e~LLLLL~PPPPP   that of a line that was not

Every write replaces the head by its ETag in one transaction with the results. So a run that has been taken for dead can't write
any more once another has taken the slice, and no line can have two outcomes.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Final

from shared import pieces
from shared.batches.lines import Result, Spent
from shared.batches.rows import Counts, Part, counts_in, slice_row
from shared.core.errors import StorageUnavailableError
from shared.core.fields import Fields
from shared.ports import (
    MAX_TRANSACTION,
    Action,
    Clock,
    Entity,
    EntityChangedError,
    EntityExistsError,
    EntityNotFoundError,
    EntityTable,
    Op,
    Tables,
)
from shared.stored import json_in, text_of

SLICE_LINES: Final = 100
SLICE_BYTES: Final = 1024 * 1024
"""A slice ends with the line that takes it past either."""
LEASE_SECONDS: Final = 30.0
"""A run that has written nothing for so long is taken for dead."""
SEALED: Final = "sealed"
"""The owner of a slice that nobody may run any more."""
_HEAD: Final = "0"
_TRIES: Final = 4
_COMMIT_BYTES: Final = 2 * 1024 * 1024
_DIGEST: Final = struct.Struct(">BI16s")


@dataclass(frozen=True, slots=True)
class Index:
    """Where a slice stands in the input: its first byte, the number of its first line, how many requests it has."""

    number: int
    offset: int
    line: int
    count: int


@dataclass(frozen=True, slots=True)
class Later:
    """A line that is to be tried again: after which passes, when (epoch seconds), and what it has cost so far."""

    passes: int
    due: float
    spent: Spent = field(default_factory=Spent)


@dataclass(frozen=True, slots=True)
class Head:
    """Where a slice stands. ``ended`` has a bit for each line that has an outcome, in the order of its requests."""

    batch: str
    number: int
    count: int
    owner: str = ""
    beat: float = 0.0
    ended: int = 0
    later: Mapping[int, Later] = field(default_factory=dict)
    counts: Counts = field(default_factory=Counts)
    etag: str = ""

    @property
    def left(self) -> list[int]:
        """The places of the lines that have no outcome yet."""
        return [place for place in range(self.count) if not self.ended >> place & 1]


class LostSliceError(Exception):
    """Another run has taken the slice; nothing was written."""


class Slices:
    """The slices of batches, over the store that all instances share. Everything may raise `StorageUnavailableError`."""

    def __init__(self, tables: Tables, clock: Clock, table: str) -> None:
        self._table: EntityTable = tables.table(table)
        self._clock = clock

    # ---- what the input is made of -----------------------------------------------------------------------------------

    async def write_index(self, batch: str, found: Sequence[tuple[Index, bytes]]) -> None:
        """Write where slices stand, and the digests of their custom_ids. What is there already is the same."""
        for start in range(0, len(found), MAX_TRANSACTION):
            some = found[start : start + MAX_TRANSACTION]
            rows = [
                Entity("i~" + batch, slice_row(one.number), {"offset": one.offset, "line": one.line, "count": one.count})
                for one, _ in some
            ]
            await self._table.transact([Op(Action.UPSERT, row) for row in rows])
            digests = [Entity("h~" + batch, slice_row(one.number), {"digests": packed}) for one, packed in some]
            await self._table.transact([Op(Action.UPSERT, row) for row in digests])

    async def index(self, batch: str, number: int) -> Index:
        """Return where a slice stands; raise `ValueError` when it was never written."""
        row = await self._table.get("i~" + batch, slice_row(number))
        fields = Fields({} if row is None else row.properties)
        return Index(number, fields.whole("offset"), fields.whole("line"), fields.whole("count"))

    async def digests(self, batch: str) -> AsyncGenerator[tuple[int, list[tuple[int, int, bytes]]], None]:
        """Yield slices with (place, line, digest) of each custom_id in them, in the order of the input."""
        async for row in self._table.query("h~" + batch):
            packed = row.properties.get("digests", b"")
            yield int(row.row), list(_DIGEST.iter_unpack(packed)) if isinstance(packed, bytes) else []

    async def forget_digests(self, batch: str) -> None:
        """Forget what has been compared."""
        await self.clear("h~" + batch)

    async def write_repeated(self, batch: str, number: int, repeated: Mapping[int, int]) -> None:
        """Write which places of a slice have a custom_id that an earlier line has, and which line that is."""
        row = Entity("x~" + batch, slice_row(number), {"repeated": text_of({str(k): v for k, v in repeated.items()})})
        await self._table.transact([Op(Action.UPSERT, row)])

    async def repeated(self, batch: str, number: int) -> dict[int, int]:
        """Return the same."""
        row = await self._table.get("x~" + batch, slice_row(number))
        if row is None:
            return {}
        return {int(place): line for place, line in json_in(Fields(row.properties).text("repeated")).items()}

    # ---- who runs a slice --------------------------------------------------------------------------------------------

    async def find(self, batch: str, number: int) -> Head | None:
        """Return where a slice stands, None when nobody has begun it."""
        row = await self._table.get(_partition(batch, number), _HEAD)
        return None if row is None else _head_in(batch, number, row)

    async def take(self, batch: str, index: Index, owner: str) -> Head | float:
        """Take a slice for a run; return its head, or for how many more seconds it may be another's."""
        now = self._clock.now()
        known = await self.find(batch, index.number)
        mine = replace(known or Head(batch, index.number, index.count), owner=owner, beat=now)
        if known is not None and known.owner == SEALED:
            return LEASE_SECONDS
        if known is not None and known.owner not in {"", owner} and (left := known.beat + LEASE_SECONDS - now) > 0:
            return min(left, LEASE_SECONDS)
        entity = _head_entity(mine)
        try:
            etag = await (self._table.insert(entity) if known is None else self._table.replace(entity))
        except (EntityExistsError, EntityChangedError):
            return LEASE_SECONDS
        return replace(mine, etag=etag)

    async def seal(self, batch: str, number: int) -> Head | None:
        """Keep every run from a slice that is not complete; return where it stands, None when nobody has begun it."""
        for _ in range(_TRIES):
            known = await self.find(batch, number)
            if known is None or not known.left or known.owner == SEALED:
                return known
            try:
                sealed = replace(known, owner=SEALED)
                return replace(sealed, etag=await self._table.replace(_head_entity(sealed)))
            except EntityChangedError:
                continue
        message = f"Slice {number} of {batch} is still being written."
        raise StorageUnavailableError(message)

    async def commit(self, run: str, head: Head, results: Mapping[int, Result]) -> Head:
        """Write results (by their places) together with the head; return the head as it is stored then.

        ``head`` holds what else changes: `Later`, its owner. Results that are too large for one transaction take several. Raise
        `LostSliceError` when the slice is no longer this run's. After a `StorageUnavailableError` the same may be asked again:
        what was written is not counted twice.
        """
        for rows, places in _packed(head, results):
            head = await self._write(run, head, rows, {place: results[place] for place in places})
        return head

    async def _write(self, run: str, head: Head, rows: Sequence[Entity], results: Mapping[int, Result]) -> Head:
        for _ in range(_TRIES):
            after = _after(head, results, self._clock.now())
            ops = [Op(Action.REPLACE, _head_entity(after)), *(Op(Action.UPSERT, row) for row in rows)]
            try:
                return replace(after, etag=(await self._table.transact(ops))[0])
            except (EntityChangedError, EntityNotFoundError):
                known = await self.find(head.batch, head.number)
            if known is None or known.owner != run:
                break
            # Only this run writes under its name: the store did what was asked and its answer was lost.
            head = replace(head, ended=known.ended, counts=known.counts, etag=known.etag)
        raise LostSliceError

    # ---- what came of it ---------------------------------------------------------------------------------------------

    async def note(self, head: Head) -> None:
        """Copy what a slice has counted to where it can be added up quickly."""
        row = Entity("g~" + head.batch, slice_row(head.number), {"counts": text_of(asdict(head.counts))})
        await self._table.transact([Op(Action.UPSERT, row)])

    async def noted(self, batch: str) -> Counts:
        """Add up what slices have noted."""
        total = Counts()
        async for row in self._table.query("g~" + batch):
            total += counts_in(json_in(Fields(row.properties).text("counts")))
        return total

    async def results(self, batch: str, number: int, part: Part) -> AsyncGenerator[bytes, None]:
        """Yield the results of a slice, in the order of its lines."""
        head = await self.find(batch, number)
        if head is None:
            return
        prefix, wanted = part.value + "~", 0
        async for row in self._table.query(_partition(batch, number), start=prefix, end=prefix + "~"):
            _, place, piece = row.row.split("~")
            if not head.ended >> int(place) & 1:
                continue  # a run died between two pieces of a large result
            if piece == _FIRST:
                wanted = Fields(row.properties).whole("rows")
            if int(piece) < wanted:
                yield pieces.gather(row.properties)

    async def forget_results(self, batch: str, number: int, part: Part) -> None:
        """Delete the results of one kind."""
        await self.clear(_partition(batch, number), start=part.value + "~", end=part.value + "~~")

    async def forget(self, batch: str, slices: int) -> None:
        """Delete everything of a batch's slices."""
        for number in range(slices):
            await self.clear(_partition(batch, number))
        for prefix in ("i~", "h~", "x~", "g~"):
            await self.clear(prefix + batch)

    async def clear(self, partition: str, *, start: str = "", end: str | None = None) -> None:
        """Delete a range of rows."""
        keys = [row.row async for row in self._table.query(partition, start=start, end=end)]
        for first in range(0, len(keys), MAX_TRANSACTION):
            await self._delete(partition, keys[first : first + MAX_TRANSACTION])

    async def _delete(self, partition: str, keys: Sequence[str]) -> None:
        """Delete rows at once, or, when somebody else deletes them too, one by one."""
        try:
            await self._table.transact([Op(Action.DELETE, Entity(partition, row, etag="*")) for row in keys])
        except EntityNotFoundError:
            for row in keys:
                with contextlib.suppress(EntityNotFoundError):
                    await self._table.delete(partition, row)


_FIRST: Final = "00000"


def _after(head: Head, results: Mapping[int, Result], now: float) -> Head:
    counts, ended, later = head.counts, head.ended, dict(head.later)
    for place, result in results.items():
        later.pop(place, None)
        if not ended >> place & 1:
            counts, ended = counts + result.counts, ended | 1 << place
    return replace(head, counts=counts, ended=ended, later=later, beat=now)


def pack(digests: Sequence[tuple[int, int, bytes]]) -> bytes:
    """Return (place, line, digest) of custom_ids as they are stored."""
    return b"".join(_DIGEST.pack(*one) for one in digests)


def _packed(head: Head, results: Mapping[int, Result]) -> list[tuple[list[Entity], list[int]]]:
    """Return transactions: their rows, and the places that have all their rows with them."""
    done: list[tuple[list[Entity], list[int]]] = []
    rows: list[Entity] = []
    places: list[int] = []
    size = 0
    for place, result in results.items():
        mine = _rows(head, place, result)
        for row in mine:
            cost = min(len(result.content), pieces.CAPACITY)
            if rows and (size + cost > _COMMIT_BYTES or len(rows) >= MAX_TRANSACTION - 1):
                done.append((rows, places))
                rows, places, size = [], [], 0
            rows.append(row)
            size += cost
        places.append(place)
    return [*done, (rows, places)]


def _rows(head: Head, place: int, result: Result) -> list[Entity]:
    rows = pieces.rows_of(_partition(head.batch, head.number), f"{result.part.value}~{place:05}~", result.content)
    first = rows[0]
    return [replace(first, properties={**first.properties, "rows": len(rows)}), *rows[1:]]


def _partition(batch: str, number: int) -> str:
    return f"s~{batch}~{slice_row(number)}"


def _head_entity(head: Head) -> Entity:
    later = {str(k): [one.passes, one.due, one.spent.cost, one.spent.unpriced] for k, one in head.later.items()}
    return Entity(
        _partition(head.batch, head.number),
        _HEAD,
        {
            "count": head.count,
            "owner": head.owner,
            "beat": head.beat,
            "ended": f"{head.ended:x}",
            "later": text_of(later),
            "counts": text_of(asdict(head.counts)),
        },
        head.etag,
    )


def _head_in(batch: str, number: int, entity: Entity) -> Head:
    row = Fields(entity.properties)
    later = json_in(row.text("later"))
    return Head(
        batch,
        number,
        count=row.whole("count"),
        owner=row.text("owner"),
        beat=row.number("beat"),
        ended=int(row.text("ended"), 16),
        later={int(place): Later(one[0], one[1], Spent(one[2], one[3])) for place, one in later.items()},
        counts=counts_in(json_in(row.text("counts"))),
        etag=entity.etag,
    )

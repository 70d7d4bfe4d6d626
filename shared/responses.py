"""Responses kept for ``GET /v1/responses/{id}`` and ``previous_response_id``, over the store that all instances share.

r~ID     0              whose it is, and whether it has ended
         b~NNNNN        the response as it began, in pieces
         f~NNNNN        the response as it ended
         i~NNNNN        the conversation it answers: every item, those of earlier responses too
d~DAY    ID             responses by the day they began
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from shared import pieces
from shared.core.errors import NotFoundError
from shared.core.fields import Fields
from shared.core.records import Caller
from shared.ports import (
    MAX_TRANSACTION,
    Action,
    Clock,
    Entity,
    EntityChangedError,
    EntityExistsError,
    EntityTable,
    Op,
    Tables,
    Value,
)

TABLE: Final = "responses"
KEPT_DAYS: Final = 30
"""Days a response is kept, as OpenAI keeps them."""
MAX_CONVERSATION: Final = 32 * 1024 * 1024
"""Bytes of the longest conversation that is kept."""

_HEAD: Final = "0"
_BEGUN: Final = "b~"
_ENDED: Final = "f~"
_ITEMS: Final = "i~"
_MISSED_DAYS: Final = 8
"""How many days the timer may have been off without anything being left behind."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A response that is kept: ``response`` is OpenAI's object, as it ended or, until then, as it began.

    ``key_id`` asked for it, ``project`` may see it. ``background`` says that a chain of the same id answers it.
    """

    id: str
    project: str
    key_id: str
    created_at: float
    response: dict[str, Any]
    background: bool = False
    ended: bool = False


class Responses:
    """The responses of this gateway. Every method can raise `StorageUnavailableError`."""

    def __init__(self, tables: Tables, clock: Clock) -> None:
        self._table: EntityTable = tables.table(TABLE)
        self._clock = clock

    async def keep(self, kept: Kept, items: Sequence[Mapping[str, Any]]) -> Kept:
        """Keep a response with the conversation it answers; return the one that is there if its id is taken.

        The index comes first and the head last: what is found is whole, and what is not found is pruned.
        """
        index = Entity(day_of(kept.created_at), kept.id, {"at": kept.created_at})
        await self._table.transact([Op(Action.UPSERT, index)])
        rows = _rows(kept, items)
        try:
            if len(rows) <= pieces.IN_TRANSACTION:  # the usual case: one exchange with the store
                await self._table.transact([Op(Action.INSERT, _head(kept)), *[Op(Action.UPSERT, row) for row in rows]])
                return kept
            if (known := await self.find(kept.id)) is not None:
                return known
            await pieces.write(self._table, rows)
            await self._table.insert(_head(kept))
        except EntityExistsError:
            return await self.find(kept.id) or kept
        return kept

    async def end(self, kept: Kept) -> None:
        """Write down how a response ended. The same end may be written twice; a response deleted meanwhile stays so."""
        partition = partition_of(kept.id)
        before = await self._table.get(partition, _HEAD)
        if before is None:
            return
        rows = pieces.rows_of(partition, _ENDED, orjson.dumps(kept.response))
        await pieces.write(self._table, rows[pieces.IN_TRANSACTION :])
        head = Op(Action.REPLACE, Entity(partition, _HEAD, _head(kept).properties, before.etag))
        try:
            await self._table.transact([head, *[Op(Action.UPSERT, row) for row in rows[: pieces.IN_TRANSACTION]]])
        except EntityChangedError:
            return  # somebody else has written the same end
        except NotFoundError:
            await self._remove(partition, [entity.row async for entity in self._table.query(partition)])

    async def find(self, response_id: str) -> Kept | None:
        """Return a response, or None. A damaged row is a `ValueError`."""
        partition = partition_of(response_id)
        head = await self._table.get(partition, _HEAD)
        if head is None:
            return None
        row = Fields(head.properties)
        ended = row.flag("ended")
        written = await pieces.read(self._table, partition, _ENDED if ended else _BEGUN)
        if not written:  # it is being deleted, its head first
            return None
        return Kept(
            response_id,
            row.text("project"),
            row.text("key_id"),
            row.number("created_at"),
            _object(written),
            background=row.flag("background"),
            ended=ended,
        )

    async def visible(self, response_id: str, caller: Caller) -> Kept | None:
        """Return a response if its project is the caller's; administrators see all."""
        found = await self.find(response_id) if _is_key(response_id) else None
        return found if found is not None and (caller.admin or found.project == caller.project) else None

    async def items(self, response_id: str) -> list[dict[str, Any]]:
        """Return the conversation that a response answers."""
        written = await pieces.read(self._table, partition_of(response_id), _ITEMS)
        return list(orjson.loads(written)) if written else []

    async def delete(self, response_id: str) -> None:
        """Forget a response. The head goes first: from then on nobody finds it."""
        partition = partition_of(response_id)
        head = await self._table.get(partition, _HEAD)
        await self._remove(partition, [_HEAD] if head is not None else [])
        await self._remove(partition, [entity.row async for entity in self._table.query(partition)])
        if head is not None:
            await self._remove(day_of(Fields(head.properties).number("created_at")), [response_id])

    async def prune(self) -> int:
        """Forget what has been kept long enough: a few days' responses at a time, for a timer. Return how many."""
        gone = 0
        async for day, response_id in self._old():
            partition = partition_of(response_id)
            await self._remove(partition, [entity.row async for entity in self._table.query(partition)])
            await self._remove(day, [response_id])
            gone += 1
        return gone

    async def _old(self) -> AsyncGenerator[tuple[str, str], None]:
        today = datetime.fromtimestamp(self._clock.now(), UTC)
        for back in range(KEPT_DAYS + 1, KEPT_DAYS + 1 + _MISSED_DAYS):
            day = day_of((today - timedelta(days=back)).timestamp())
            for response_id in [entity.row async for entity in self._table.query(day)]:
                yield day, response_id

    async def _remove(self, partition: str, rows: Sequence[str]) -> None:
        for start in range(0, len(rows), MAX_TRANSACTION):
            part = rows[start : start + MAX_TRANSACTION]
            try:
                await self._table.transact([Op(Action.DELETE, Entity(partition, row, etag="*")) for row in part])
            except NotFoundError:  # somebody else deletes it too: what they have not reached goes one by one
                for row in part:
                    await self._remove_one(partition, row)

    async def _remove_one(self, partition: str, row: str) -> None:
        try:
            await self._table.delete(partition, row)
        except NotFoundError:
            return


def partition_of(response_id: str) -> str:
    """Return the partition of a response."""
    return f"r~{response_id}"


def day_of(moment: float) -> str:
    """Return the partition of the responses that began on the UTC day of ``moment``."""
    return f"d~{datetime.fromtimestamp(moment, UTC):%Y-%m-%d}"


def _is_key(name: str) -> bool:
    """Say whether a caller's text can be the id of a response: letters, digits and ``_``, as many as a row's key may have."""
    return name.isascii() and name.replace("_", "").isalnum() and len(name) <= 64  # noqa: PLR2004 - far above our 37


def _rows(kept: Kept, items: Sequence[Mapping[str, Any]]) -> list[Entity]:
    """Return the rows that hold a response and the conversation it answers."""
    partition, prefix = partition_of(kept.id), _ENDED if kept.ended else _BEGUN
    conversation = pieces.rows_of(partition, _ITEMS, orjson.dumps(items))
    return [*conversation, *pieces.rows_of(partition, prefix, orjson.dumps(kept.response))]


def _head(kept: Kept) -> Entity:
    properties: dict[str, Value] = {
        "project": kept.project,
        "key_id": kept.key_id,
        "created_at": kept.created_at,
        "background": kept.background,
        "ended": kept.ended,
    }
    return Entity(partition_of(kept.id), _HEAD, properties)


def _object(written: bytes) -> dict[str, Any]:
    value = orjson.loads(written)
    if not isinstance(value, dict):
        message = "not an object"
        raise ValueError(message)  # noqa: TRY004 - a damaged row, like any other
    return value

"""The batches of this gateway, over the store that all instances share."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, Protocol

from shared.batches import rows
from shared.batches.rows import Batch, Counts, Part, Progress
from shared.batches.slices import Slices
from shared.core.errors import ConflictError, InvalidRequestError, NotFoundError
from shared.ports import (
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

KEPT_DAYS: Final = 34
"""Days a batch and its results are kept once it is made: its files live 30 days from its end, which may be three days later."""
_TRIES: Final = 12
_SAFE: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")
_MAX_ID: Final = 64


class Composed(Protocol):
    """A file whose content is with a batch."""

    @property
    def id(self) -> str: ...  # noqa: D102
    @property
    def composed(self) -> str | None: ...  # noqa: D102


class Page(NamedTuple):
    """Some batches of a list, and whether more come after them."""

    batches: tuple[Batch, ...]
    more: bool


class Batches:
    """Batches with their slices and results."""

    def __init__(self, tables: Tables, clock: Clock) -> None:
        self._table: EntityTable = tables.table(rows.TABLE)
        self._clock = clock
        self.slices = Slices(tables, clock, rows.TABLE)

    # ---- batches -----------------------------------------------------------------------------------------------------

    async def create(self, batch: Batch) -> Batch:
        """Store a new batch, or return the one that has its id already. Raise `StorageUnavailableError`.

        The indexes come first: a batch that is not in them would be forgotten if nobody started it.
        """
        if (known := await self.find(batch.id)) is not None:
            return known
        marks = {"at": batch.created_at}
        places = [(rows.OPEN, batch.id), (_users(batch.input_file), batch.id), (rows.day_of(batch.created_at), batch.id)]
        for partition, row in [*places, *((listed, rows.newest_row(batch)) for listed in rows.listed_in(batch))]:
            await self._table.transact([Op(Action.UPSERT, Entity(partition, row, marks))])
        try:
            etag = await self._table.insert(rows.batch_entity(batch))
        except EntityExistsError:
            return await self.get(batch.id)
        return replace(batch, etag=etag)

    async def find(self, batch_id: str) -> Batch | None:
        """Return a batch, or None. A damaged row is a `ValueError`."""
        if not _SAFE.issuperset(batch_id) or len(batch_id) > _MAX_ID:
            return None
        entity = await self._table.get(rows.partition_of(batch_id), rows.HEAD)
        return None if entity is None else rows.batch_in(entity)

    async def get(self, batch_id: str, *, project: str | None = None) -> Batch:
        """Return a batch; raise `NotFoundError`, also for one of another project (None is everybody's)."""
        found = await self.find(batch_id)
        if found is None or project not in {None, found.caller.project}:
            message = f"There is no batch {batch_id[:80]!r}; it was never made, or it is older than {KEPT_DAYS} days."
            raise NotFoundError(message)
        return found

    async def change(self, batch_id: str, change: Callable[[Batch], Batch]) -> Batch:
        """Replace a batch by what ``change`` makes of it, which may be the same one; return what is stored then.

        ``change`` is called again when somebody else was faster. A batch that has ended is never changed.
        """
        for _ in range(_TRIES):
            before = await self.get(batch_id)
            after = before if before.status.ended else change(before)
            if after is before:
                return before
            try:
                etag = await self._table.replace(rows.batch_entity(after))
            except EntityChangedError:
                continue
            except EntityNotFoundError:
                break
            if after.status.ended:
                await self._close(after)
            return replace(after, etag=etag)
        message = f"{batch_id} is being changed by somebody else. Try again."
        raise ConflictError(message)

    async def _close(self, batch: Batch) -> None:
        await self._delete(_users(batch.input_file), batch.id)
        await self._delete(rows.OPEN, batch.id)

    async def _delete(self, partition: str, row: str) -> None:
        try:
            await self._table.delete(partition, row)
        except EntityNotFoundError:
            return

    # ---- lists -------------------------------------------------------------------------------------------------------

    async def page(self, project: str | None, *, after: str | None, limit: int) -> Page:
        """Return a project's batches (None is everybody's), the newest first, those that follow ``after``.

        Raise `InvalidRequestError` when ``after`` is no batch of that project.
        """
        start = ""
        if after is not None:
            known = await self.find(after)
            if known is None or project not in {None, known.caller.project}:
                message = f"`after` is {after[:60]!r}, which is no batch here. Give the last id of the page before."
                raise InvalidRequestError(message, param="after", code="invalid_value")
            start = rows.newest_row(known) + "~"
        found: list[Batch] = []
        async for entity in self._table.query(rows.ALL if project is None else rows.project_of(project), start=start):
            batch = await self.find(entity.row.partition("~")[2])
            if batch is None:
                continue
            if len(found) == limit:
                return Page(tuple(found), more=True)
            found.append(batch)
        return Page(tuple(found), more=False)

    async def unfinished(self) -> AsyncGenerator[Batch, None]:
        """Yield the batches that have not ended. What the index has besides is taken out of it in passing."""
        async for entity in self._table.query(rows.OPEN):
            batch = await self.find(entity.row)
            if batch is not None and not batch.status.ended:
                yield batch
            elif batch is not None:
                await self._close(batch)
            elif self._clock.now() - _at(entity) > 3600:  # noqa: PLR2004 - an hour: whoever made it has gone
                await self._delete(rows.OPEN, entity.row)

    async def uses(self, file_id: str) -> bool:
        """Say whether a batch that has not ended reads a file."""
        async for entity in self._table.query(_users(file_id)):
            batch = await self.find(entity.row)
            if batch is not None and not batch.status.ended:
                return True
            if batch is not None or self._clock.now() - _at(entity) > 3600:  # noqa: PLR2004 - an hour: whoever made it has gone
                await self._delete(_users(file_id), entity.row)
        return False

    async def counts(self, batch: Batch) -> Counts:
        """Return what a batch's lines have come to so far, or in the end."""
        return batch.counts if batch.status.ended else await self.slices.noted(batch.id)

    async def progress(self) -> list[Progress]:
        """Return every unfinished batch with what its lines have come to so far, the oldest first."""
        found = [batch async for batch in self.unfinished()]
        found.sort(key=lambda batch: batch.created_at)
        return [Progress(batch, await self.counts(batch)) for batch in found]

    # ---- results -----------------------------------------------------------------------------------------------------

    async def output(self, file: Composed) -> AsyncGenerator[bytes, None]:
        """Yield the content of a batch's output or error file, in the order of its input, a row at a time."""
        batch = await self.get(file.composed or "")
        part = Part.OUTPUT if file.id == batch.output_file else Part.ERRORS
        for number in range(batch.cursor.slices):
            async for piece in self.slices.results(batch.id, number, part):
                yield piece

    async def forget_output(self, file: Composed) -> None:
        """Delete the content of a batch's output or error file, before the file itself goes."""
        batch = await self.find(file.composed or "")
        if batch is not None:
            part = Part.OUTPUT if file.id == batch.output_file else Part.ERRORS
            for number in range(batch.cursor.slices):
                await self.slices.forget_results(batch.id, number, part)

    async def delete(self, batch: Batch) -> None:
        """Forget a batch with everything that belongs to it; its row last, so that doing it again comes to an end."""
        await self.slices.forget(batch.id, batch.cursor.slices)
        for listed in rows.listed_in(batch):
            await self._delete(listed, rows.newest_row(batch))
        await self._close(batch)
        await self._delete(rows.partition_of(batch.id), rows.HEAD)
        await self._delete(rows.day_of(batch.created_at), batch.id)

    async def prune(self) -> int:
        """Forget what has been kept long enough: for a timer. Return how many batches."""
        gone = 0
        today = datetime.fromtimestamp(self._clock.now(), UTC)
        for back in range(KEPT_DAYS + 1, KEPT_DAYS + 8):
            day = rows.day_of((today - timedelta(days=back)).timestamp())
            async for entity in self._table.query(day):
                batch = await self.find(entity.row)
                if batch is None:
                    await self._delete(day, entity.row)
                elif batch.status.ended:
                    await self.delete(batch)
                    gone += 1
        return gone


def _users(file_id: str) -> str:
    return "u~" + file_id


def _at(entity: Entity) -> float:
    at = entity.properties.get("at")
    return float(at) if isinstance(at, int | float) else 0.0

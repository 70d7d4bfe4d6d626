"""Tables that count what is asked of the store beneath."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Sequence

from shared.ports import Entity, EntityChangedError, EntityExistsError, EntityNotFoundError, EntityTable, Op, Tables

_CONFLICTS = (EntityChangedError, EntityExistsError, EntityNotFoundError)


class CountingTables:
    """A store whose requests are counted: each read, each page of a query and each write is one."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        self.requests = 0
        self.conflicts = 0
        self.writing: list[float] = []
        """How long each write took, in milliseconds."""

    def table(self, name: str) -> EntityTable:
        """Return the table of that name."""
        return _CountingTable(self._tables.table(name), self)

    async def aclose(self) -> None:
        """Leave the store open: it is its owner's."""


class _CountingTable:
    def __init__(self, table: EntityTable, counts: CountingTables) -> None:
        self._table = table
        self._counts = counts

    async def get(self, partition: str, row: str) -> Entity | None:
        self._counts.requests += 1
        return await self._table.get(partition, row)

    async def query(
        self, partition: str, *, start: str = "", end: str | None = None, limit: int | None = None
    ) -> AsyncGenerator[Entity, None]:
        self._counts.requests += 1
        async for entity in self._table.query(partition, start=start, end=end, limit=limit):
            yield entity

    async def insert(self, entity: Entity) -> str:
        with _Counted(self._counts):
            return await self._table.insert(entity)

    async def replace(self, entity: Entity) -> str:
        with _Counted(self._counts):
            return await self._table.replace(entity)

    async def delete(self, partition: str, row: str, etag: str = "*") -> None:
        with _Counted(self._counts):
            await self._table.delete(partition, row, etag)

    async def transact(self, ops: Sequence[Op]) -> list[str]:
        with _Counted(self._counts):
            return await self._table.transact(ops)


class _Counted:
    """One write."""

    __slots__ = ("_began", "_counts")

    def __init__(self, counts: CountingTables) -> None:
        self._counts = counts

    def __enter__(self) -> None:
        self._counts.requests += 1
        self._began = time.perf_counter()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        self._counts.conflicts += isinstance(error, _CONFLICTS)
        self._counts.writing.append((time.perf_counter() - self._began) * 1e3)

"""``python -m tests.bench.storage_host FILE``: the local host, counting what it asks of its store.

FILE gets the counts as JSON whenever the process receives SIGUSR1: of calls by table and operation, and of rows written.
A query counts once for each page that it would be in Table Storage.
"""

from __future__ import annotations

import json
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

from local.host import main
from shared import bootstrap
from shared.adapters.tables import open_tables
from shared.ports import Entity, EntityTable, Op, Tables

PAGE_ROWS = 1_000

Counts = Counter[str]


class CountedTable:
    """A table whose calls are counted."""

    def __init__(self, table: EntityTable, name: str, counts: Counts) -> None:
        self._table = table
        self._name = name
        self._counts = counts

    async def get(self, partition: str, row: str) -> Entity | None:
        """Read a row."""
        self._counts[f"{self._name} get"] += 1
        return await self._table.get(partition, row)

    async def query(
        self, partition: str, *, start: str = "", end: str | None = None, limit: int | None = None
    ) -> AsyncGenerator[Entity, None]:
        """Read rows."""
        self._counts[f"{self._name} query"] += 1
        read = 0
        async for entity in self._table.query(partition, start=start, end=end, limit=limit):
            read += 1
            if read % PAGE_ROWS == 1 and read > 1:
                self._counts[f"{self._name} query"] += 1
            yield entity

    async def insert(self, entity: Entity) -> str:
        """Write a row."""
        self._wrote(1)
        return await self._table.insert(entity)

    async def replace(self, entity: Entity) -> str:
        """Write a row."""
        self._wrote(1)
        return await self._table.replace(entity)

    async def delete(self, partition: str, row: str, etag: str = "*") -> None:
        """Delete a row."""
        self._wrote(1)
        await self._table.delete(partition, row, etag)

    async def transact(self, ops: Sequence[Op]) -> list[str]:
        """Write rows."""
        self._wrote(len(ops))
        return await self._table.transact(ops)

    def _wrote(self, rows: int) -> None:
        self._counts[f"{self._name} write"] += 1
        self._counts[f"{self._name} rows"] += rows


class CountedTables:
    """A store whose calls are counted."""

    def __init__(self, tables: Tables, counts: Counts) -> None:
        self._tables = tables
        self._counts = counts

    def table(self, name: str) -> EntityTable:
        """Return the table, counted."""
        return CountedTable(self._tables.table(name), name, self._counts)

    async def aclose(self) -> None:
        """Close it."""
        await self._tables.aclose()


def serve(file: Path) -> int:
    """Serve as the local host does; return its exit code."""
    counts: Counts = Counter()

    def counted(url: str, **needs: Any) -> Tables:
        return CountedTables(open_tables(url, **needs), counts)

    def tell(*_: object) -> None:
        unfinished = file.with_suffix(".part")
        unfinished.write_text(json.dumps(counts))
        unfinished.replace(file)

    vars(bootstrap)["open_tables"] = counted
    signal.signal(signal.SIGUSR1, tell)
    return main()


if __name__ == "__main__":
    sys.exit(serve(Path(sys.argv[1])))

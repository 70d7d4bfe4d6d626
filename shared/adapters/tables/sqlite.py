"""Tables in one SQLite file: the embedded default, nothing to start. In memory for tests and trials, with the same code.

One thread writes (see `worker`), another reads, each with its own connection to a database in WAL mode, so neither waits for
the other and the event loop waits for nobody. A write is acknowledged after the operating system has it on disk
(``synchronous=FULL``): it survives kill -9 and a power cut. Several processes may open one file; they take turns to write.

Rows come in the order of their keys' code points. Table Storage compares UTF-16 units, which is the same for every character
below U+E000 — for all keys Switchyard makes, which are ASCII.
"""

from __future__ import annotations

import itertools
import secrets
import sqlite3
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

from shared.adapters.tables import codec, rules
from shared.adapters.tables.worker import BUSY_SECONDS, Worker
from shared.core.errors import ConfigurationError, GatewayError, StorageUnavailableError
from shared.ports import (
    Action,
    Entity,
    EntityChangedError,
    EntityExistsError,
    EntityNotFoundError,
    Op,
)

PAGE_ROWS: Final = 200
PAGE_BYTES: Final = 2 * 1024 * 1024
"""Bounds of one step of a query: what is held in memory, and how long the reader is away from other callers."""

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entities (
    "table" TEXT NOT NULL, "partition" TEXT NOT NULL, "row" TEXT NOT NULL, etag TEXT NOT NULL, properties TEXT NOT NULL,
    PRIMARY KEY ("table", "partition", "row")
)
"""
_INSERT: Final = 'INSERT INTO entities ("table", "partition", "row", etag, properties) VALUES '
_UPSERT: Final = (
    _INSERT + "(?,?,?,?,?)"
    ' ON CONFLICT ("table", "partition", "row") DO UPDATE SET etag = excluded.etag, properties = excluded.properties'
)
_REPLACE: Final = (
    'UPDATE entities SET etag = ?, properties = ? WHERE "table" = ? AND "partition" = ? AND "row" = ? AND etag = ?'
)
_DELETE: Final = """DELETE FROM entities WHERE "table" = ? AND "partition" = ? AND "row" = ? AND ? IN (etag, '*')"""
_GET: Final = 'SELECT etag, properties FROM entities WHERE "table" = ? AND "partition" = ? AND "row" = ?'
_RANGE: Final = (
    'SELECT "row", etag, properties FROM entities WHERE "table" = ? AND "partition" = ? AND "row" >= ? AND "row" < ?'
    ' ORDER BY "row" LIMIT ?'
)
_NO_END: Final = b""
"""The bound after every key: SQLite sorts any BLOB after any TEXT."""


class _Change(NamedTuple):
    action: Action
    row: str
    etag: str  # the new one; "" for a delete
    expected: str  # the stored one; "" where nothing is expected
    properties: str


class SqliteTables:
    """The tables of one database. ``path`` None is a private database in memory."""

    def __init__(self, path: str | None) -> None:
        self._etags = _etags()
        try:
            self._writer = Worker(_connect(path), "switchyard-store-writer")
            # A database in memory belongs to its connection: there the writer reads too, after its commits.
            self._reader = self._writer if path is None else Worker(_connect(path), "switchyard-store-reader")
        except (sqlite3.Error, OSError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            message = f"SWITCHYARD_STORAGE: the database file {path} can't be opened: {reason}"
            raise ConfigurationError(message, problems=[message]) from error
        self._writer.connection.execute("PRAGMA busy_timeout = 0")  # it waits for its turn in its own way
        for worker in {id(worker): worker for worker in (self._writer, self._reader)}.values():
            worker.start()

    def table(self, name: str) -> SqliteTable:
        """Return the table of that name."""
        return SqliteTable(rules.check_table(name), writer=self._writer, reader=self._reader, etags=self._etags)

    async def aclose(self) -> None:
        """Write what is pending and close. May be called twice."""
        await self._reader.aclose()
        await self._writer.aclose()


class SqliteTable:
    """One table; see `shared.ports.EntityTable`."""

    def __init__(self, name: str, *, writer: Worker, reader: Worker, etags: Callable[[], str]) -> None:
        self._name = name
        self._writer = writer
        self._reader = reader
        self._etags = etags

    async def get(self, partition: str, row: str) -> Entity | None:
        """Return the row, or None."""
        rules.check_keys(partition, row)
        key = (self._name, partition, row)
        found = await self._reader.do(lambda connection: connection.execute(_GET, key).fetchone(), writes=False)
        return None if found is None else _entity(partition, row, found[0], found[1])

    async def query(
        self, partition: str, *, start: str = "", end: str | None = None, limit: int | None = None
    ) -> AsyncGenerator[Entity, None]:
        """Yield rows with ``start <= row < end``, page by page: no lock and no snapshot is held between pages."""
        rules.check_bounds(partition, start, end)
        left = limit
        upper = _NO_END if end is None else end
        while left is None or left > 0:
            size = PAGE_ROWS if left is None else min(PAGE_ROWS, left)
            bounds = (self._name, partition, start, upper, size)
            page, complete = await self._reader.do(partial(_page, bounds=bounds), writes=False)
            for row, etag, properties in page:
                yield _entity(partition, row, etag, properties)
            if complete:
                return
            if left is not None:
                left -= len(page)
            start = page[-1][0] + "\x00"  # the next key there can be

    async def insert(self, entity: Entity) -> str:
        """Store a new row; return its ETag."""
        rules.check_entity(entity)
        return (await self._write([Op(Action.INSERT, entity)]))[0]

    async def replace(self, entity: Entity) -> str:
        """Store over the row whose ETag is the entity's; return the new ETag."""
        rules.check_condition(Action.REPLACE, entity.etag)
        rules.check_entity(entity)
        return (await self._write([Op(Action.REPLACE, entity)]))[0]

    async def delete(self, partition: str, row: str, etag: str = "*") -> None:
        """Delete the row."""
        rules.check_condition(Action.DELETE, etag)
        rules.check_keys(partition, row)
        await self._write([Op(Action.DELETE, Entity(partition, row, etag=etag))])

    async def transact(self, ops: Sequence[Op]) -> list[str]:
        """Do all or nothing; return the new ETags ("" for deletes)."""
        rules.check_transaction(ops)
        return await self._write(ops)

    async def _write(self, ops: Sequence[Op]) -> list[str]:
        partition = ops[0].entity.partition
        changes = [self._change(op) for op in ops]
        table = self._name
        await self._writer.do(lambda connection: _apply(connection, table, partition, changes), writes=True)
        return [change.etag for change in changes]

    def _change(self, op: Op) -> _Change:
        if op.action is Action.DELETE:
            return _Change(op.action, op.entity.row, "", op.entity.etag, "")
        expected = op.entity.etag if op.action is Action.REPLACE else ""
        return _Change(op.action, op.entity.row, self._etags(), expected, codec.encode(op.entity.properties))


def _apply(connection: sqlite3.Connection, table: str, partition: str, changes: list[_Change]) -> None:
    """Do one caller's changes wholly or not at all, inside the group's transaction."""
    if all(change.action is Action.INSERT for change in changes):
        _insert_all(connection, table, partition, changes)
    elif len(changes) == 1:
        _STEPS[changes[0].action](connection, table, partition, changes[0])
    else:
        connection.execute("SAVEPOINT caller")
        try:
            for change in changes:
                _STEPS[change.action](connection, table, partition, change)
        except GatewayError:
            connection.execute("ROLLBACK TO caller")
            raise
        finally:
            if connection.in_transaction:  # a full disk ends the whole transaction
                connection.execute("RELEASE caller")


def _insert_all(connection: sqlite3.Connection, table: str, partition: str, changes: list[_Change]) -> None:
    """Insert with one statement, which is atomic by itself: the thread gives up Python's lock once, not once a row."""
    values: list[str] = []
    for change in changes:
        values += (table, partition, change.row, change.etag, change.properties)
    try:
        connection.execute(_INSERT + ",".join(["(?,?,?,?,?)"] * len(changes)), values)
    except sqlite3.IntegrityError as error:
        for change in changes:
            if connection.execute(_GET, (table, partition, change.row)).fetchone() is not None:
                raise _taken(table, change.row) from error
        raise


def _insert(connection: sqlite3.Connection, table: str, partition: str, change: _Change) -> None:
    _insert_all(connection, table, partition, [change])


def _upsert(connection: sqlite3.Connection, table: str, partition: str, change: _Change) -> None:
    connection.execute(_UPSERT, (table, partition, change.row, change.etag, change.properties))


def _replace(connection: sqlite3.Connection, table: str, partition: str, change: _Change) -> None:
    key = (table, partition, change.row)
    if connection.execute(_REPLACE, (change.etag, change.properties, *key, change.expected)).rowcount == 0:
        raise _missed(connection, key)


def _delete(connection: sqlite3.Connection, table: str, partition: str, change: _Change) -> None:
    key = (table, partition, change.row)
    if connection.execute(_DELETE, (*key, change.expected)).rowcount == 0:
        raise _missed(connection, key)


_STEPS: Final = {
    Action.INSERT: _insert,
    Action.UPSERT: _upsert,
    Action.REPLACE: _replace,
    Action.DELETE: _delete,
}


def _taken(table: str, row: str) -> EntityExistsError:
    return EntityExistsError(f"There is a row {row} in {table} already.")


def _missed(connection: sqlite3.Connection, key: tuple[str, str, str]) -> GatewayError:
    """Say why a conditional write found nothing."""
    table, _, row = key
    if connection.execute(_GET, key).fetchone() is None:
        return EntityNotFoundError(f"There is no row {row} in {table}.")
    return EntityChangedError(f"The row {row} in {table} has changed. Read it again.")


def _page(connection: sqlite3.Connection, bounds: tuple[Any, ...]) -> tuple[list[tuple[str, str, str]], bool]:
    """Return the next rows and whether they are the last ones of the range."""
    rows: list[tuple[str, str, str]] = []
    size = 0
    for found in (cursor := connection.execute(_RANGE, bounds)):
        rows.append(found)
        size += len(found[2])
        if size >= PAGE_BYTES:
            cursor.close()
            return rows, False
    return rows, len(rows) < bounds[-1]


def _entity(partition: str, row: str, etag: str, properties: str) -> Entity:
    try:
        return Entity(partition, row, codec.decode(properties), etag)
    except (ValueError, TypeError) as error:
        message = f"The row {row} in {partition} is damaged: it was not written by Switchyard."
        raise StorageUnavailableError(message) from error


def _connect(path: str | None) -> sqlite3.Connection:
    if path is not None:
        Path(path).expanduser().parent.mkdir(parents=True, exist_ok=True)
        path = str(Path(path).expanduser())
    connection = sqlite3.connect(
        path or ":memory:",
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )
    try:
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA temp_store = MEMORY")
        _prepare(connection)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    """Make the schema. Two processes may do so at once, and switching to WAL does not wait for its lock by itself."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute(_SCHEMA)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return


def _etags() -> Callable[[], str]:
    """Return a source of ETags that no other process and no later run makes."""
    origin = secrets.token_hex(6)
    counter = itertools.count(1)
    return lambda: f"{origin}-{next(counter):x}"

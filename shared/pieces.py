"""Contents of any size in rows: a property holds 64 KiB, a row 1 MiB, a transaction 4 MiB."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import Final

from shared.ports import Action, Entity, EntityTable, Op, Value

CHUNK: Final = 60 * 1024
MAX_CHUNKS: Final = 12
"""The emulator counts what is in a row as base64: more chunks than these it does not take."""
CAPACITY: Final = CHUNK * MAX_CHUNKS
"""Bytes a row holds. Files find their bytes by it: with another number those that are stored could not be read."""
IN_TRANSACTION: Final = 3
"""Full rows that fit into one transaction, beside a few small ones."""


def spread(content: bytes) -> dict[str, Value]:
    """Return the properties that hold ``content``, which is at most `CAPACITY` bytes."""
    pieces = [content[start : start + CHUNK] for start in range(0, len(content), CHUNK)]
    return {"chunks": len(pieces), **{f"chunk{index:02}": piece for index, piece in enumerate(pieces)}}


def gather(properties: Mapping[str, Value]) -> bytes:
    """Return what `spread` took."""
    count = properties.get("chunks", 0)
    pieces = [properties[f"chunk{index:02}"] for index in range(count if isinstance(count, int) else 0)]
    return b"".join(piece for piece in pieces if isinstance(piece, bytes))


def rows_of(partition: str, prefix: str, content: bytes) -> list[Entity]:
    """Return rows ``prefix00000``, ``prefix00001`` … that hold ``content``; none for no content."""
    return [
        Entity(partition, f"{prefix}{number:05}", spread(content[start : start + CAPACITY]))
        for number, start in enumerate(range(0, len(content), CAPACITY))
    ]


async def write(table: EntityTable, rows: list[Entity]) -> None:
    """Write such rows, over what is there; raise `StorageUnavailableError`, and then do it again: it does no harm."""
    for start in range(0, len(rows), IN_TRANSACTION):
        await table.transact([Op(Action.UPSERT, row) for row in rows[start : start + IN_TRANSACTION]])


async def read(table: EntityTable, partition: str, prefix: str) -> bytes:
    """Return the content that is in such rows."""
    return b"".join([piece async for piece in stream(table, partition, prefix)])


async def stream(table: EntityTable, partition: str, prefix: str) -> AsyncGenerator[bytes, None]:
    """Yield the content that is in such rows, a row at a time."""
    async for row in table.query(partition, start=prefix, end=prefix + "~"):
        yield gather(row.properties)

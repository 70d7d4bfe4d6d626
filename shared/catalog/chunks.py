"""Bytes spread over the properties of a row: a property holds 64 KiB, a row 1 MiB."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from shared.ports import Value

CHUNK: Final = 60 * 1024
MAX_CHUNKS: Final = 15
CAPACITY: Final = CHUNK * MAX_CHUNKS


def spread(content: bytes) -> dict[str, Value]:
    """Return the properties that hold ``content``, which is at most `CAPACITY` bytes."""
    pieces = [content[start : start + CHUNK] for start in range(0, len(content), CHUNK)]
    return {"chunks": len(pieces), **{f"chunk{index:02}": piece for index, piece in enumerate(pieces)}}


def gather(properties: Mapping[str, Value]) -> bytes:
    """Return what `spread` took."""
    count = properties.get("chunks", 0)
    pieces = [properties[f"chunk{index:02}"] for index in range(count if isinstance(count, int) else 0)]
    return b"".join(piece for piece in pieces if isinstance(piece, bytes))

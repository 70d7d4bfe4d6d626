"""Files uploaded for batches, and those batches write."""

from __future__ import annotations

from shared.ports import Clock, Tables


class Files:
    """Files uploaded for batches, and those batches write."""

    def __init__(self, tables: Tables, clock: Clock) -> None:
        self._table = tables.table("files")
        self._clock = clock

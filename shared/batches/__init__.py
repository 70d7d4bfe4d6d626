"""Batches: many requests in one file, answered in the background."""

from __future__ import annotations

from shared.ports import Clock, Tables


class Batches:
    """Batches: many requests in one file, answered in the background."""

    def __init__(self, tables: Tables, clock: Clock) -> None:
        self._table = tables.table("batches")
        self._clock = clock

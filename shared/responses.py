"""Responses kept for ``GET /v1/responses/{id}`` and ``previous_response_id``."""

from __future__ import annotations

from shared.ports import Clock, Tables


class Responses:
    """Responses kept for ``GET /v1/responses/{id}`` and ``previous_response_id``."""

    def __init__(self, tables: Tables, clock: Clock) -> None:
        self._table = tables.table("responses")
        self._clock = clock

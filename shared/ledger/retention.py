"""Forgetting: rows of sessions that were closed long ago. What they added up to stays in the heads."""

from __future__ import annotations

import contextlib
from typing import Final

from shared.core.fields import Fields
from shared.ledger import rows
from shared.ports import MAX_TRANSACTION, Action, Entity, EntityNotFoundError, EntityTable, Op

KEPT_DAYS: Final = 62
"""Days for which the ledger can be audited row by row: this month and the last."""
MAX_SESSIONS: Final = 500
"""Sessions forgotten in one run: a timer's time is limited."""


async def prune(table: EntityTable, before_day: str) -> int:
    """Delete what sessions closed before a day (``2026-11-22``) have left; return how many sessions. Safe to do twice."""
    doomed = [
        (entity.row, Fields(entity.properties).text("session"))
        async for entity in table.query(rows.CLOSED, end=before_day, limit=MAX_SESSIONS)
    ]
    for row, session in doomed:
        await _forget(table, session)
        with contextlib.suppress(EntityNotFoundError):
            await table.delete(rows.CLOSED, row)
    return len(doomed)


async def _forget(table: EntityTable, session: str) -> None:
    partition = rows.session_partition(session)
    left = [entity async for entity in table.query(partition)]
    for entity in left:
        if entity.row.startswith(rows.LEASE):
            with contextlib.suppress(EntityNotFoundError):
                await table.delete(rows.account_partition(rows.marked(entity)), rows.lease_row(session))
    for at in range(0, len(left), MAX_TRANSACTION):
        group = [Op(Action.DELETE, Entity(partition, entity.row, etag="*")) for entity in left[at : at + MAX_TRANSACTION]]
        with contextlib.suppress(EntityNotFoundError):  # another instance forgets it too
            await table.transact(group)

"""Reading the rows of requests: which days there are, and what their rows say, a range of time after the other."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from typing import Final

from shared.core import ids
from shared.ports import Entity, EntityTable
from shared.usage import rows
from shared.usage.rows import Document

LATEST: Final = 253_402_300_799.0
"""The end of the year 9999: what a date can say."""

_log = logging.getLogger(__name__)


async def days_with_rows(table: EntityTable, first: float, beyond: float) -> list[str]:
    """Return the days with requests that may have begun in a stretch of time, `rows.UNDATED` the last of them."""
    dated = table.query(rows.DAYS, start=rows.day_of(first), end=f"{rows.day_of(beyond)}~")
    days = [entity.row async for entity in dated]
    return days if await table.get(rows.DAYS, rows.UNDATED) is None else [*days, rows.UNDATED]


async def documents(
    table: EntityTable, day: str, first: float, beyond: float
) -> AsyncGenerator[tuple[Entity, Document | None], None]:
    """Yield the rows of one day's requests that began in a stretch of time, with what they say; None is a damaged row.

    Rows come ordered by time within each partition. A damaged row that does not tell its time is yielded always.
    """
    dated = day != rows.UNDATED
    lower = rows.REQUEST + (ids.lowest(first) if dated else "")
    upper = rows.REQUEST + (ids.lowest(beyond) if dated else "~")
    for partition in rows.partitions_of(day):
        async for entity in table.query(partition, start=lower, end=upper):
            try:
                found = rows.document(entity)
            except ValueError as error:
                report_damage(entity, error)
                yield entity, None
                continue
            if dated or first <= _requested_at(found) < beyond:
                yield entity, found


def report_damage(entity: Entity, error: ValueError) -> None:
    """Say that a row could not be read."""
    _log.error("The usage row %s in %s is damaged and left out: %s", entity.row, entity.partition, error)


def _requested_at(found: Document) -> float:
    moment = found.get("started_at")
    return moment if isinstance(moment, int | float) else -1.0

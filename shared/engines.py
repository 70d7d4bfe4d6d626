"""Which engines of chains are alive: each one that forgets at its process's end says every few seconds that it is there.

Table ``engines``, partition ``engines``, a row for each engine: ``beat``, epoch seconds, and ``place``, which process it is in.
What an engine that is gone has begun is lost: whoever finds such work ends it and settles what it holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from shared.core.fields import Fields
from shared.ports import Action, Clock, Entity, EntityNotFoundError, EntityTable, Op, Tables

TABLE: Final = "engines"
BEAT_SECONDS: Final = 5.0
"""How often a living engine says so."""
GONE_SECONDS: Final = 20.0
"""After which one that has said nothing is taken for gone."""


@dataclass(frozen=True, slots=True)
class Beat:
    """The last sign of an engine. ``place`` is ``HOST/PID`` of its process."""

    name: str
    place: str
    at: float


class Engines:
    """The engines that forget, of all processes over this store."""

    def __init__(self, tables: Tables, clock: Clock) -> None:
        self._table: EntityTable = tables.table(TABLE)
        self._clock = clock

    async def beat(self, name: str, place: str) -> None:
        """Write down that an engine lives. Raise `StorageUnavailableError`."""
        row = Entity(TABLE, name, {"beat": self._clock.now(), "place": place})
        await self._table.transact([Op(Action.UPSERT, row)])

    async def bury(self, name: str) -> None:
        """Write down that an engine is gone. Raise `StorageUnavailableError`."""
        try:
            await self._table.delete(TABLE, name)
        except EntityNotFoundError:
            return

    async def beats(self) -> list[Beat]:
        """Return the last sign of every engine that is not known to be gone."""
        found = []
        async for entity in self._table.query(TABLE):
            fields = Fields(entity.properties)
            found.append(Beat(entity.row, fields.text("place"), fields.number("beat")))
        return found

    async def living(self) -> set[str]:
        """Return the names of the engines that have said in the last `GONE_SECONDS` that they live."""
        now = self._clock.now()
        return {beat.name for beat in await self.beats() if now - beat.at <= GONE_SECONDS}

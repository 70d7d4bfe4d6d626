"""What the tests of the stores share: a store, a clock, a store that fails to order, and records."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from shared.adapters.tables import open_tables
from shared.core import ids
from shared.core.chat import Operation, Usage
from shared.core.errors import StorageUnavailableError
from shared.core.records import AttemptRecord, RequestRecord
from shared.ports import Entity, EntityTable, Op, Tables
from shared.usage import UsageLog
from tests.fakes import FakeClock

Record = Callable[..., RequestRecord]
Attempt = Callable[..., AttemptRecord]


@dataclass
class Weather:
    """Whether the store answers. ``after`` says that it does what is asked and loses the answer."""

    down: bool = False
    after: bool = False
    writes: int = 0
    reads: int = 0
    sizes: list[int] = field(default_factory=list)
    slow: asyncio.Event | None = None
    """What a reader waits for after it has read."""

    def strike(self) -> None:
        """Fail as the store does when it does not answer."""
        if self.down:
            message = "The store did not answer."
            raise StorageUnavailableError(message)


class WeatheredTable:
    """A table that is reached through the weather."""

    def __init__(self, table: EntityTable, weather: Weather) -> None:
        self._table = table
        self._weather = weather

    async def get(self, partition: str, row: str) -> Entity | None:
        """Read, if the weather lets it."""
        self._weather.reads += 1
        self._weather.strike()
        found = await self._table.get(partition, row)
        if self._weather.slow is not None:
            await self._weather.slow.wait()
        return found

    async def query(self, partition: str, **bounds: Any) -> AsyncGenerator[Entity, None]:
        """Read, if the weather lets it."""
        self._weather.strike()
        async for entity in self._table.query(partition, **bounds):
            yield entity

    async def insert(self, entity: Entity) -> str:
        """Write, if the weather lets it."""
        self._weather.strike()
        return await self._table.insert(entity)

    async def replace(self, entity: Entity) -> str:
        """Write, if the weather lets it."""
        self._weather.strike()
        return await self._table.replace(entity)

    async def delete(self, partition: str, row: str, etag: str = "*") -> None:
        """Write, if the weather lets it."""
        self._weather.strike()
        await self._table.delete(partition, row, etag)

    async def transact(self, ops: Sequence[Op]) -> list[str]:
        """Write, if the weather lets it."""
        self._weather.writes += 1
        self._weather.sizes.append(len(ops))
        if not self._weather.after:
            self._weather.strike()
        try:
            return await self._table.transact(ops)
        finally:
            self._weather.strike()


class WeatheredTables:
    """A store that is reached through the weather."""

    def __init__(self, tables: Tables, weather: Weather) -> None:
        self._tables = tables
        self._weather = weather

    def table(self, name: str) -> EntityTable:
        """Return the table."""
        return WeatheredTable(self._tables.table(name), self._weather)

    async def aclose(self) -> None:
        """Close."""
        await self._tables.aclose()


@pytest.fixture
def clock() -> FakeClock:
    """Return a clock that is moved by hand."""
    return FakeClock()


@pytest.fixture
def weather() -> Weather:
    """Return fair weather."""
    return Weather()


@pytest.fixture
async def tables(weather: Weather) -> AsyncIterator[Tables]:
    """Return an empty store."""
    opened = open_tables("memory:")
    yield WeatheredTables(opened, weather)
    await opened.aclose()


@pytest.fixture
def attempt() -> Attempt:
    """Return a maker of attempts."""

    def make(number: int = 1, **changes: Any) -> AttemptRecord:
        values: dict[str, Any] = {
            "deployment": "azure/large",
            "model": "large",
            "provider": "azure",
            "started_at": 1_795_000_000.25,
            "duration_ms": 812.5,
            "outcome": "succeeded",
            "status": 200,
            "usage": Usage(100, 20, cache_read=50, cache_creation=5, reasoning=7, service_tier="default"),
            "cost": 1_234,
        }
        return AttemptRecord(number=number, **{**values, **changes})

    return make


@pytest.fixture
def record(clock: FakeClock, attempt: Attempt) -> Record:
    """Return a maker of records, each of a request of its own that begins now."""
    made = 0

    def make(**changes: Any) -> RequestRecord:
        nonlocal made
        made += 1
        values: dict[str, Any] = {
            "request_id": ids.request_id(clock.now(), made * 7_919),
            "key_id": "key_0123456789ab",
            "project": "search",
            "operation": Operation.CHAT,
            "original_model": "auto",
            "task": "conversation",
            "stream": False,
            "started_at": clock.now(),
            "duration_ms": 900.0,
            "outcome": "succeeded",
            "attempts": (attempt(),),
            "model": "large",
            "deployment": "azure/large",
            "cost": 1_234,
            "trace": {"draw": 0.25, "candidates": ["azure/large"]},
        }
        return RequestRecord(**{**values, **changes})

    return make


@pytest.fixture
def log(tables: Tables, clock: FakeClock) -> UsageLog:
    """Return an empty log."""
    return UsageLog(tables, clock)

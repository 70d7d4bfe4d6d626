"""A world in virtual time for the rate limits: an event loop that never waits, a store with latency, and demand."""

from __future__ import annotations

import asyncio
import math
import random
import selectors
from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from shared.core.errors import StorageUnavailableError
from shared.ports import (
    Action,
    Entity,
    EntityChangedError,
    EntityExistsError,
    EntityNotFoundError,
    EntityTable,
    Op,
)

Result = TypeVar("Result")
LATENCY = 0.006
"""Median seconds of a store operation: the assumption made for Table Storage, log-normal with sigma 0.5."""


class _Skipping(selectors.SelectSelector):
    """Instead of waiting, it says how long it would have waited."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Let time pass at once."""
        if timeout is None:
            message = "everybody waits, and nobody for a time"
            raise RuntimeError(message)
        self.now += max(0.0, timeout)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is virtual."""

    def __init__(self) -> None:
        self._skipping = _Skipping()
        super().__init__(self._skipping)

    def time(self) -> float:
        """Return the virtual seconds."""
        return self._skipping.now


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run to the end in virtual time."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()


@dataclass
class LoopClock:
    """A clock over the running loop's time; ``skew`` is how wrong its wall clock is."""

    chance: random.Random
    skew: float = 0.0

    def now(self) -> float:
        """Return the wall clock."""
        return 1_795_000_000.0 + self.skew + asyncio.get_running_loop().time()

    def monotonic(self) -> float:
        """Return the loop's time."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

    def draw(self) -> float:
        """Return chance."""
        return self.chance.random()


@dataclass
class Store:
    """Tables in memory with latency. ``down`` makes it fail, half the time after it has done what was asked."""

    chance: random.Random
    latency: float = LATENCY
    down: bool = False
    reads: int = 0
    writes: int = 0
    conflicts: int = 0
    rows: dict[tuple[str, str, str], Entity] = field(default_factory=dict)
    etags: int = 0

    def table(self, name: str) -> EntityTable:
        """Return a table."""
        return _Table(self, name)

    async def aclose(self) -> None:
        """Close."""

    async def way(self) -> None:
        """Take the time of half a round trip."""
        await asyncio.sleep(self.latency / 2 * math.exp(self.chance.gauss(0, 0.5)))

    def strike(self, *, share: float = 1.0) -> None:
        """Fail while the store is down."""
        if self.down and self.chance.random() < share:
            message = "The store did not answer."
            raise StorageUnavailableError(message)


class _Table:
    def __init__(self, store: Store, name: str) -> None:
        self._store = store
        self._name = name

    async def get(self, partition: str, row: str) -> Entity | None:
        self._store.reads += 1
        await self._store.way()
        self._store.strike()
        found = self._store.rows.get((self._name, partition, row))
        await self._store.way()
        return found

    async def query(
        self, partition: str, *, start: str = "", end: str | None = None, limit: int | None = None
    ) -> AsyncGenerator[Entity, None]:
        self._store.reads += 1
        await self._store.way()
        self._store.strike()
        found = [entity for key, entity in self._store.rows.items() if key[:2] == (self._name, partition)]
        await self._store.way()
        for entity in sorted(found, key=lambda one: one.row)[:limit]:
            if entity.row >= start and (end is None or entity.row < end):
                yield entity

    async def insert(self, entity: Entity) -> str:
        return (await self.transact([Op(Action.INSERT, entity)]))[0]

    async def replace(self, entity: Entity) -> str:
        return (await self.transact([Op(Action.REPLACE, entity)]))[0]

    async def delete(self, partition: str, row: str, etag: str = "*") -> None:
        await self.transact([Op(Action.DELETE, Entity(partition, row, etag=etag))])

    async def transact(self, ops: Sequence[Op]) -> list[str]:
        self._store.writes += 1
        await self._store.way()
        self._store.strike(share=0.5)
        etags = [self._do(op) for op in ops]
        self._store.strike()
        await self._store.way()
        return etags

    def _do(self, op: Op) -> str:
        key = (self._name, op.entity.partition, op.entity.row)
        stored = self._store.rows.get(key)
        if op.action is Action.INSERT and stored is not None:
            self._store.conflicts += 1
            message = "taken"
            raise EntityExistsError(message)
        if op.action in (Action.REPLACE, Action.DELETE):
            if stored is None:
                message = "gone"
                raise EntityNotFoundError(message)
            if op.entity.etag not in ("*", stored.etag):
                self._store.conflicts += 1
                message = "changed"
                raise EntityChangedError(message)
        if op.action is Action.DELETE:
            del self._store.rows[key]
            return ""
        self._store.etags += 1
        etag = str(self._store.etags)
        self._store.rows[key] = Entity(op.entity.partition, op.entity.row, dict(op.entity.properties), etag)
        return etag


def worst_minute(times: Sequence[float], amounts: Sequence[int] | None = None, *, window: float = 60.0) -> int:
    """Return the most in any window of time."""
    counts = amounts or [1] * len(times)
    order = sorted(range(len(times)), key=times.__getitem__)
    worst = total = first = 0
    for index in order:
        total += counts[index]
        while times[order[first]] <= times[index] - window:
            total -= counts[order[first]]
            first += 1
        worst = max(worst, total)
    return worst

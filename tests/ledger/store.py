"""Table Storage as the simulation has it: exact rules about ETags and transactions behind a wire that may do anything.

`Store` is the truth: what it applies has happened. `Wire` is one instance's way to it: every request and every answer may be
late, lost, doubled or refused, and a write whose sender was told "no answer" may land two minutes later, if its conditions
still hold then. Observers see each change of a row the moment it happens.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from random import Random
from typing import Any, NamedTuple

from shared.adapters.tables import rules
from shared.core.errors import GatewayError, StorageUnavailableError
from shared.ports import (
    Action,
    Entity,
    EntityChangedError,
    EntityExistsError,
    EntityNotFoundError,
    Op,
    Value,
)
from tests.ledger.loop import VirtualLoop

TIMEOUT = 3.0
"""Seconds after which a client is told that there was no answer."""
PAGE = 200
OPENING = "opening"
MEDIAN = 0.006
"""Seconds one way takes, as a lognormal median (an assumption about Azure, not a measurement)."""


class Change(NamedTuple):
    """A row that has just changed. None: there was, or is, no such row."""

    table: str
    partition: str
    row: str
    before: Mapping[str, Value] | None
    after: Mapping[str, Value] | None


Observer = Callable[[Sequence[Change]], None]


class Store:
    """The tables, in memory. All methods are immediate."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, dict[str, Entity]]] = {}
        self.observers: list[Observer] = []
        self.transactions = 0
        self.conflicts = 0
        self._etags = 0

    def partition(self, table: str, partition: str) -> dict[str, Entity]:
        """Return the rows of a partition, to look at."""
        return self.tables.get(table, {}).get(partition, {})

    def apply(self, table: str, ops: Sequence[Op]) -> list[str]:
        """Do all or nothing; raise what the port says."""
        rows = self.tables.setdefault(table, {}).setdefault(ops[0].entity.partition, {})
        try:
            for op in ops:
                _check(rows.get(op.entity.row), op)
        except GatewayError:
            self.conflicts += 1
            raise
        self.transactions += 1
        changes: list[Change] = []
        etags: list[str] = []
        for op in ops:
            entity = op.entity
            before = rows.get(entity.row)
            if op.action is Action.DELETE:
                rows.pop(entity.row, None)
                etags.append("")
                after = None
            else:
                self._etags += 1
                etag = f"e{self._etags}"
                etags.append(etag)
                after = dict(entity.properties)
                rows[entity.row] = Entity(entity.partition, entity.row, after, etag)
            changes.append(Change(table, entity.partition, entity.row, before.properties if before else None, after))
        for observer in self.observers:
            observer(changes)
        return etags

    def get(self, table: str, partition: str, row: str) -> Entity | None:
        """Return the row, or None."""
        return self.partition(table, partition).get(row)

    def page(self, table: str, partition: str, start: str, end: str | None, size: int) -> list[Entity]:
        """Return the first rows of a range."""
        rows = self.partition(table, partition)
        keys = sorted(row for row in rows if row >= start and (end is None or row < end))
        return [rows[row] for row in keys[:size]]


def _check(stored: Entity | None, op: Op) -> None:
    """Raise what Table Storage would answer to one operation."""
    row = op.entity.row
    if op.action is Action.INSERT and stored is not None:
        message = f"There is a row {row} already."
        raise EntityExistsError(message)
    if op.action in {Action.REPLACE, Action.DELETE}:
        if stored is None:
            message = f"There is no row {row}."
            raise EntityNotFoundError(message)
        if op.entity.etag not in {stored.etag, "*"}:
            message = f"The row {row} has changed."
            raise EntityChangedError(message)


class Fate(StrEnum):
    """What the wire does to one request."""

    WELL = "well"
    REQUEST_LOST = "request lost"  # it never happened; the sender waits for its time-out
    ANSWER_LOST = "answer lost"  # it happened; the sender is told that there was no answer
    LATE = "late"  # the sender is told so, and then it happens, if its conditions still hold
    DOUBLED = "doubled"  # it is delivered twice; the sender hears of one of them
    BUSY = "busy"  # refused at once: it never happened


@dataclass(frozen=True, slots=True)
class Weather:
    """How likely each fate is. ``late`` is how late at most, seconds; ``slow`` multiplies how long everything takes."""

    request_lost: float = 0.0
    answer_lost: float = 0.0
    late_share: float = 0.0
    doubled: float = 0.0
    busy: float = 0.0
    late: float = 120.0
    slow: float = 1.0

    def fate(self, draw: float) -> Fate:
        """Return the fate that a draw (0..1) stands for."""
        for fate, chance in (
            (Fate.REQUEST_LOST, self.request_lost),
            (Fate.ANSWER_LOST, self.answer_lost),
            (Fate.LATE, self.late_share),
            (Fate.DOUBLED, self.doubled),
            (Fate.BUSY, self.busy),
        ):
            if draw < chance:
                return fate
            draw -= chance
        return Fate.WELL


CALM = Weather()


@dataclass(slots=True)
class Trap:
    """A fate for one write to come, and what happens to its sender at that moment: ``spring`` freezes or kills it."""

    prefix: str  # of the partition it waits for; OPENING: for the first write of a session
    fate: Fate
    spring: Callable[[], None]
    row: str = ""  # only a write with a row that begins like that


@dataclass(slots=True)
class Network:
    """What all wires share: the weather, the outage, the counts."""

    loop: VirtualLoop
    store: Store
    random: Random
    weather: Weather = CALM
    down_until: float = 0.0
    frozen_until: float = 0.0
    late_by: float | None = None  # how late a late write is; None: by chance
    broken: float = 0.3  # the share of unanswered writes of which the sender hears at once: its connection broke
    faults: Counter[str] = field(default_factory=Counter)
    log: Callable[..., None] = lambda *_: None

    def calm(self) -> None:
        """Heal."""
        self.weather = replace(CALM)
        self.down_until = self.frozen_until = 0.0

    def way(self) -> float:
        """Return how long one way takes."""
        return MEDIAN / 2 * self.weather.slow * self.random.lognormvariate(0.0, 0.6)


class Wire:
    """One instance's `Tables`: everything it asks goes through the network."""

    def __init__(self, network: Network, name: str) -> None:
        self.network = network
        self.name = name
        self.trap: Trap | None = None
        self.trouble_at = -1e9

    def table(self, name: str) -> WireTable:
        """Return the table of that name."""
        return WireTable(self, rules.check_table(name))

    async def aclose(self) -> None:
        """Do nothing: the store outlives its clients."""

    async def read(self, ask: Callable[[], Any]) -> Any:
        """Ask; raise `StorageUnavailableError` after the time-out."""
        network = self.network
        fate = network.weather.fate(network.random.random())
        future = self._future()
        if fate in {Fate.WELL, Fate.DOUBLED}:
            network.loop.at(self._arrival(), self._answer_read, future, ask)
        else:
            self._trouble(f"read {'busy' if fate is Fate.BUSY else 'lost'}")
            self._give_up(future, soon=fate is Fate.BUSY)
        return await self._wait(future)

    def _answer_read(self, future: asyncio.Future[Any], ask: Callable[[], Any]) -> None:
        network = self.network
        if network.loop.time() < network.down_until:
            self._refuse_down(future)
        else:
            found = ask()
            network.loop.at(network.loop.time() + network.way(), _resolve, future, found)

    async def write(self, table: str, ops: Sequence[Op]) -> list[str]:
        """Send a transaction. What becomes of it does not depend on whether its sender lives."""
        network = self.network
        rules.check_transaction(ops)
        ops = tuple(Op(op.action, replace(op.entity, properties=dict(op.entity.properties))) for op in ops)
        fate = network.weather.fate(network.random.random())
        future = self._future()
        trap = self.trap
        if trap is not None and _trapped(trap, ops):
            self.trap = None
            fate = trap.fate
            network.faults[f"trap {fate}"] += 1
            trap.spring()
        if fate is not Fate.WELL:
            self._trouble(f"write {fate}")
            network.log(self.name, fate, ops[0].entity.partition, [op.entity.row for op in ops])
        self._carry(future, fate, table, ops)
        etags: list[str] = await self._wait(future)
        return etags

    def _carry(self, future: asyncio.Future[Any], fate: Fate, table: str, ops: Sequence[Op]) -> None:
        network = self.network
        arrival = self._arrival()
        heard: asyncio.Future[Any] | None = future
        if fate in {Fate.ANSWER_LOST, Fate.LATE, Fate.REQUEST_LOST, Fate.BUSY}:
            # A connection that breaks tells at once that there will be no answer.
            self._give_up(future, soon=fate is Fate.BUSY or network.random.random() < network.broken)
            heard = None
        if fate in {Fate.REQUEST_LOST, Fate.BUSY}:
            return
        if fate is Fate.LATE:
            # Mostly within the time in which a frozen sender wakes and a sweep passes; some as late as can be.
            span = network.random.choice((0.5, 10.0, network.weather.late, network.weather.late))
            by_chance = TIMEOUT * network.random.random() + span * network.random.random()
            arrival += by_chance if network.late_by is None else network.late_by
        if fate is Fate.DOUBLED:
            second = arrival + network.random.choice((0.001, 0.05, 2.0)) * network.random.random()
            first_heard = network.random.random() < 0.5
            network.loop.at(second, self._land, None if first_heard else future, table, ops)
            heard = future if first_heard else None
        network.loop.at(arrival, self._land, heard, table, ops)

    def _land(self, future: asyncio.Future[Any] | None, table: str, ops: Sequence[Op]) -> None:
        network = self.network
        now = network.loop.time()
        if now < network.down_until:
            if future is not None:
                self._refuse_down(future)
            return
        outcome: object
        try:
            outcome = network.store.apply(table, ops)
        except GatewayError as error:
            outcome = error
        if future is not None:
            network.loop.at(now + network.way(), _resolve, future, outcome)

    def _arrival(self) -> float:
        """Return when a request reaches the store. A frozen store takes its time; then everything arrives."""
        network = self.network
        arrival = network.loop.time() + network.way()
        if arrival < network.frozen_until:
            self._trouble("met a frozen store")
            return network.frozen_until + network.way()
        return arrival

    def _refuse_down(self, future: asyncio.Future[Any]) -> None:
        self._trouble("met an outage")
        self._give_up(future, soon=self.network.random.random() < 0.5)

    def _give_up(self, future: asyncio.Future[Any], *, soon: bool) -> None:
        delay = self.network.way() * 2 if soon else TIMEOUT
        self.network.loop.at(self.network.loop.time() + delay, _resolve, future, StorageUnavailableError("no answer"))

    def _trouble(self, kind: str) -> None:
        self.network.faults[kind] += 1
        self.trouble_at = self.network.loop.time()

    def _future(self) -> asyncio.Future[Any]:
        return self.network.loop.create_future()

    async def _wait(self, future: asyncio.Future[Any]) -> Any:
        """Wait for the answer, at most the time-out; whatever comes later is not heard."""
        loop = self.network.loop
        timer = loop.call_later(TIMEOUT, _resolve, future, StorageUnavailableError("no answer"))
        try:
            return await future
        finally:
            timer.cancel()


def _trapped(trap: Trap, ops: Sequence[Op]) -> bool:
    first = ops[0]
    if not any(op.entity.row.startswith(trap.row) for op in ops):
        return False
    if trap.prefix == OPENING:
        return first.action is Action.INSERT and first.entity.partition.startswith("s~")
    return first.entity.partition.startswith(trap.prefix)


def _resolve(future: asyncio.Future[Any], outcome: object) -> None:
    if future.done():
        return
    if isinstance(outcome, Exception):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)


class WireTable:
    """`EntityTable` over a wire."""

    def __init__(self, wire: Wire, name: str) -> None:
        self._wire = wire
        self._name = name
        self._store = wire.network.store

    async def get(self, partition: str, row: str) -> Entity | None:
        """Return the row, or None."""
        rules.check_keys(partition, row)
        found: Entity | None = await self._wire.read(lambda: self._store.get(self._name, partition, row))
        return found

    async def query(
        self, partition: str, *, start: str = "", end: str | None = None, limit: int | None = None
    ) -> AsyncGenerator[Entity, None]:
        """Yield rows with ``start <= row < end``, page by page: the store moves on between pages."""
        rules.check_bounds(partition, start, end)
        left = limit
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page: list[Entity] = await self._wire.read(_asking(self._store, (self._name, partition, start, end, size)))
            for entity in page:
                yield entity
            if len(page) < size:
                return
            if left is not None:
                left -= len(page)
            start = page[-1].row + "\x00"

    async def insert(self, entity: Entity) -> str:
        """Store a new row; return its ETag."""
        return (await self.transact([Op(Action.INSERT, entity)]))[0]

    async def replace(self, entity: Entity) -> str:
        """Store over the row whose ETag is the entity's; return the new ETag."""
        return (await self.transact([Op(Action.REPLACE, entity)]))[0]

    async def delete(self, partition: str, row: str, etag: str = "*") -> None:
        """Delete the row."""
        await self.transact([Op(Action.DELETE, Entity(partition, row, etag=etag))])

    async def transact(self, ops: Sequence[Op]) -> list[str]:
        """Do all or nothing; return the new ETags ("" for deletes)."""
        return await self._wire.write(self._name, ops)


def _asking(store: Store, bounds: tuple[str, str, str, str | None, int]) -> Callable[[], list[Entity]]:
    return lambda: store.page(*bounds)

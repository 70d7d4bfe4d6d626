"""A primary that dies under 50 instances, in virtual time: what is wasted, when all know, when its traffic is back.

    python -m tests.bench.breaker_simulated [--seeds 3]

The shipped breaker, book, exchange and failover run on an event loop whose time jumps; the deployments and the store are
made up: a store that answers in about 6 ms, a primary and a fallback that answer in about 0.8 s. The primary is dead for 120 s,
either refusing at once or never answering (attempts give up after 10 s). Requests come at random times to random instances.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import selectors
from collections.abc import AsyncGenerator, Coroutine, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from random import Random
from typing import Any, TypeVar

from shared.core.errors import GatewayError, StorageUnavailableError
from shared.core.failover import Attempt, AttemptFailed, Event, Outcome, Succeeded, Wait, Waited, failover
from shared.core.failures import Failed, FailureKind
from shared.core.health import BreakerState
from shared.core.registry import FailoverPolicy
from shared.core.route import Candidate, Route
from shared.health_book import HealthBook
from shared.ports import Entity, EntityChangedError, EntityExistsError, EntityNotFoundError, Op
from shared.shared_health import SharedHealth

T = TypeVar("T")
PRIMARY, FALLBACK = "north/large", "south/large"
EPOCH = 1_795_000_000.0
WARM_UP, DEAD, AFTER = 20.0, 120.0, 45.0
WINDOW = 4.0
"""Seconds over which the primary's share of the traffic is counted, around each moment."""


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that jumps to its next timer instead of waiting for it."""

    def __init__(self) -> None:
        selector = selectors.SelectSelector()
        super().__init__(selector)
        self._virtual = 0.0
        really = selector.select

        def select(timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
            if timeout is None:
                message = "nothing is left to happen, and somebody waits"
                raise RuntimeError(message)
            self._virtual += timeout
            return really(0)

        selector.select = select  # type: ignore[method-assign]  # the one place where the loop waits

    def time(self) -> float:
        """Return virtual seconds."""
        return self._virtual


def run_virtually(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on a loop of its own, in no time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(coroutine)


@dataclass
class SimulatedClock:
    """One instance's clock; its wall is off by ``skew`` seconds."""

    random: Random
    skew: float = 0.0

    def now(self) -> float:
        """Return the wall clock."""
        return EPOCH + self.monotonic() + self.skew

    def monotonic(self) -> float:
        """Return the loop's time."""
        return asyncio.get_running_loop().time()

    async def sleep(self, seconds: float) -> None:
        """Wait, virtually."""
        await asyncio.sleep(seconds)

    def draw(self) -> float:
        """Return chance."""
        return self.random.random()


@dataclass
class SimulatedStore:
    """`Tables` and its one table: rows with ETags, a few milliseconds away; ``down`` makes it not answer."""

    random: Random
    down: bool = False
    rows: dict[tuple[str, str], Entity] = field(default_factory=dict)
    numbers: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    reads: int = 0
    writes: int = 0
    conflicts: int = 0

    def table(self, name: str) -> SimulatedStore:
        """Return the table, whatever its name."""
        del name
        return self

    async def _way(self) -> None:
        await asyncio.sleep(self.random.lognormvariate(math.log(0.003), 0.4))
        if self.down:
            await asyncio.sleep(1)
            message = "The store did not answer."
            raise StorageUnavailableError(message)

    async def get(self, partition: str, row: str) -> Entity | None:
        """Return the row."""
        self.reads += 1
        await self._way()
        found = self.rows.get((partition, row))
        await self._way()
        return found

    async def query(self, partition: str, **bounds: object) -> AsyncGenerator[Entity, None]:
        """Yield the rows."""
        del bounds
        self.reads += 1
        await self._way()
        found = [entity for key, entity in sorted(self.rows.items()) if key[0] == partition]
        await self._way()
        for entity in found:
            yield entity

    async def insert(self, entity: Entity) -> str:
        """Store a new row."""
        return await self._write(entity, None)

    async def replace(self, entity: Entity) -> str:
        """Store over a row with the same ETag."""
        return await self._write(entity, entity.etag)

    async def _write(self, entity: Entity, etag: str | None) -> str:
        self.writes += 1
        await self._way()
        key = (entity.partition, entity.row)
        stored = self.rows.get(key)
        error: GatewayError | None = None
        if etag is None and stored is not None:
            error = EntityExistsError("The row is there.")
        elif etag is not None and stored is None:
            error = EntityNotFoundError("There is no such row.")
        elif stored is not None and stored.etag != etag:
            error = EntityChangedError("The row has changed.")
        if error is None:
            self.rows[key] = Entity(*key, dict(entity.properties), str(next(self.numbers)))
        else:
            self.conflicts += 1
        await self._way()
        if error is not None:
            raise error
        return self.rows[key].etag

    async def delete(self, partition: str, row: str, etag: str = "*") -> None:
        """Delete a row."""
        raise NotImplementedError

    async def transact(self, ops: Sequence[Op]) -> list[str]:
        """Do all or nothing."""
        raise NotImplementedError

    async def aclose(self) -> None:
        """Close."""


class Death(StrEnum):
    """How the primary is dead."""

    ERRORS = "errors"
    HANGS = "hangs"


@dataclass(frozen=True)
class Scenario:
    """What happens; ``skew`` spreads the instances' wall clocks by so many seconds either way."""

    death: Death = Death.ERRORS
    rate: float = 10.0
    shared: bool = True
    instances: int = 50
    seed: int = 1
    skew: float = 0.0
    dead: float = DEAD
    sick: int = 0
    """Instances that can't reach the primary although it is well."""

    @property
    def dies(self) -> float:
        """When the primary dies."""
        return WARM_UP

    @property
    def mended(self) -> float:
        """When it answers again."""
        return WARM_UP + self.dead


@dataclass
class Result:
    """What was seen. Times are seconds after the death, or after the recovery."""

    requests: int = 0
    attempts: int = 0
    wasted: int = 0
    probes: int = 0
    answered: int = 0
    all_requests: int = 0
    opened_everywhere: float = math.inf
    back: float = math.inf
    store_reads: float = 0.0
    store_writes: float = 0.0
    conflicts: int = 0
    by: list[tuple[float, str]] = field(default_factory=list)

    def share_of_primary(self, at: float) -> float:
        """Return the share of the requests that arrived around a moment which the primary answered."""
        near = [name for arrived, name in self.by if at - WINDOW / 2 <= arrived < at + WINDOW / 2]
        return near.count(PRIMARY) / len(near) if near else 0.0


class Instance:
    """One instance: its book, and its exchange with the others if it has one."""

    def __init__(self, scenario: Scenario, number: int, store: SimulatedStore, random: Random) -> None:
        self.clock = SimulatedClock(random, skew=random.uniform(-scenario.skew, scenario.skew))
        self.book = HealthBook()
        self.sick = number < scenario.sick
        self.shared = SharedHealth(store, self.clock, self.book, f"i{number}") if scenario.shared else None

    def route(self) -> Route:
        """Return the plan the router would make of a primary and a fallback."""
        snapshot = self.book.snapshot(self.clock.monotonic())
        candidates = []
        for name in (PRIMARY, FALLBACK):
            health = snapshot.of(name)
            open_now = health.admits_in > 0
            candidates.append(
                Candidate(
                    name,
                    "large",
                    name.partition("/")[0],
                    (),
                    not_before=health.admits_in,
                    last_resort=open_now and not health.cooling,
                )
            )
        return Route("chat", tuple(sorted(candidates, key=lambda one: one.not_before > 0)))

    def opened(self) -> bool:
        """Say whether the primary's breaker is open here."""
        return self.book.snapshot(self.clock.monotonic()).of(PRIMARY).breaker is not BreakerState.CLOSED


class Simulation:
    """One run of a scenario."""

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        self.random = Random(scenario.seed)
        self.store = SimulatedStore(self.random)
        self.result = Result()
        self.instances = [Instance(scenario, number, self.store, self.random) for number in range(scenario.instances)]

    async def run(self) -> Result:
        """Let it all happen."""
        loop = asyncio.get_running_loop()
        tasks: set[asyncio.Task[None]] = set()
        watcher = asyncio.create_task(self._watch())
        end = self.scenario.mended + AFTER
        while loop.time() < end:
            await asyncio.sleep(self.random.expovariate(self.scenario.rate))
            task = asyncio.create_task(self._request(self.random.choice(self.instances)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)
        await watcher
        for instance in self.instances:
            if instance.shared is not None:
                await instance.shared.aclose()
        self._sum_up(end)
        return self.result

    async def _watch(self) -> None:
        await asyncio.sleep(self.scenario.dies)
        while not all(instance.opened() for instance in self.instances):
            await asyncio.sleep(0.1)
            if asyncio.get_running_loop().time() >= self.scenario.mended:
                return
        self.result.opened_everywhere = asyncio.get_running_loop().time() - self.scenario.dies

    def _in_death(self, at: float) -> bool:
        return self.scenario.dies <= at < self.scenario.mended

    async def _request(self, instance: Instance) -> None:
        arrived = instance.clock.monotonic()
        if instance.shared is not None:
            instance.shared.touch(arrived)

        outcome = await self._drive(instance, arrived)
        self.result.all_requests += 1
        self.result.answered += outcome.candidate is not None
        self.result.by.append((arrived, outcome.candidate.deployment if outcome.candidate else ""))
        self.result.requests += self._in_death(arrived)

    async def _drive(self, instance: Instance, arrived: float) -> Outcome:
        flow = failover(instance.route(), FailoverPolicy(), jitter=self.random.random())
        event: Event | None = None
        while True:
            try:
                step = next(flow) if event is None else flow.send(event)
            except StopIteration as stop:
                outcome: Outcome = stop.value
                return outcome
            if isinstance(step, Wait):
                await instance.clock.sleep(step.seconds)
                event = Waited(instance.clock.monotonic() - arrived)
            else:
                event = await self._attempt(instance, step, arrived)

    async def _attempt(self, instance: Instance, step: Attempt, arrived: float) -> Succeeded | AttemptFailed:
        name, book, now = step.candidate.deployment, instance.book, instance.clock.monotonic
        if instance.shared is not None and book.needs_lease(name, now()):
            await instance.shared.claim(name)
        began = now()
        refusal = book.admit(name, began, forced=step.forced)
        if refusal is not None:
            failed = Failed(FailureKind.NOT_ADMITTED, refusal.reason, retry_after=refusal.retry_after)
            return AttemptFailed(now() - arrived, failed)
        probe = book.snapshot(began).of(name).breaker is BreakerState.HALF_OPEN
        self.result.attempts += self._in_death(arrived)
        dead = name == PRIMARY and (self._in_death(began) or instance.sick)
        if not dead:
            await asyncio.sleep(self.random.lognormvariate(math.log(0.8), 0.4))
            book.succeeded(name, started_at=began, now=now())
            return Succeeded(now() - arrived)
        self.result.wasted += 1
        self.result.probes += probe
        hangs = self.scenario.death is Death.HANGS
        await asyncio.sleep(10.0 if hangs else self.random.lognormvariate(math.log(0.2), 0.4))
        kind = FailureKind.TIMEOUT if hangs else FailureKind.SERVER_ERROR
        book.failed(name, kind, now=now(), started_at=began)
        return AttemptFailed(now() - arrived, Failed(kind, "It is dead."))

    def _sum_up(self, end: float) -> None:
        result = self.result
        result.store_reads, result.store_writes = self.store.reads / end, self.store.writes / end
        result.conflicts = self.store.conflicts
        result.by.sort()
        after = 0.0
        while after < AFTER - WINDOW:
            if result.share_of_primary(self.scenario.mended + after) >= 0.9:
                result.back = after
                return
            after += 0.25


def simulate(scenario: Scenario) -> Result:
    """Run a scenario."""
    return run_virtually(Simulation(scenario).run())


def _line(scenario: Scenario, results: list[Result]) -> str:
    def mean(values: Sequence[float]) -> float:
        return sum(values) / len(values)

    wasted, probes = mean([one.wasted for one in results]), mean([one.probes for one in results])
    share = 100 * sum(one.wasted for one in results) / sum(one.attempts for one in results)
    ratio = sum(one.attempts for one in results) / sum(one.requests for one in results)
    answered = 100 * sum(one.answered for one in results) / sum(one.all_requests for one in results)
    opened, back = max(one.opened_everywhere for one in results), max(one.back for one in results)
    reads, writes = mean([one.store_reads for one in results]), mean([one.store_writes for one in results])
    knows = "shared" if scenario.shared else "alone"
    return (
        f"{scenario.death:7} {scenario.rate:5.0f} {knows:7} {wasted:8.0f} {share:8.2f} {probes:7.0f} "
        f"{opened:8.1f} {back:8.1f} {ratio:9.3f} {answered:9.2f} {reads:8.1f} {writes:8.2f}"
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    seeds = parser.parse_args().seeds
    print("primary dead 120 s, 50 instances; open and back: seconds, the worst of the seeds; the rest: means")
    print(
        f"{'death':7} {'rps':>5} {'knows':7} {'wasted':>8} {'%':>8} {'probes':>7} {'open':>8} {'back':>8} {'att/req':>9} "
        f"{'answered%':>9} {'reads/s':>8} {'writes/s':>8}"
    )
    for death in Death:
        for rate in (10.0, 200.0):
            for shared in (False, True):
                scenarios = [Scenario(death, rate, shared=shared, seed=seed) for seed in range(1, seeds + 1)]
                print(_line(scenarios[0], [simulate(one) for one in scenarios]), flush=True)


if __name__ == "__main__":
    main()

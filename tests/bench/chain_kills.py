"""Kill -9 at every point of a chain's way: afterwards each attempt is charged once, and the answer is there.

    python -m tests.bench.chain_kills [--store sqlite|azurite|both] [--quick]

A process performs the chain's activities, over a real store and a provider on loopback, and is killed at exactly one point.
Then another process is given the same activity with the same input, as an engine that never forgets would, and goes on to the
end, its recovery running on a timer. What the tables say then is read back and added up, beside what the provider has billed.
In the end a whole host is killed with work in flight, and started again over the same file: see `tests.bench.chain_kills_host`.
Exits with 1 when anything is not as it must be. See `tests.bench.chain_kills_books` for what that is.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from functions.http import new_request_id
from functions.work import Stored
from functions.works import WORKS
from shared import background
from shared.background import NewChain
from shared.bootstrap import open_gateway
from shared.chains import Chain, Kind
from shared.core.records import Caller
from shared.gateway import Gateway
from shared.ledger.rows import SESSIONS, TABLE
from shared.settings import Settings
from tests.bench import chain_kills_host
from tests.bench.chain_kills_books import Books, read
from tests.bench.chain_kills_scene import BILL, CATALOG, Deliveries, Delivery, Provider, Worker, providing
from tests.bench.chain_kills_worker import QUIET_SECONDS, Orders, Place
from tests.bench.money.scene import stage
from tests.bench.tables import table

PATH = "/v1/chat/completions"
LIMIT = 1_000_000_000
TTL, QUICK_TTL = 30.0, 4.0
END_SECONDS = 180.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """One chain and its troubles. ``deaths`` are those of its processes, in their order.

    ``killed`` and ``stopped`` tell what happens to the first process once the provider has its call; with both ``deaths`` and
    ``stopped`` it is stopped where it would have died. What is stopped goes on when the chain has ended, and nobody counts on
    it any more. ``calls`` is how many calls the provider must see.
    """

    name: str
    calls: int
    deaths: tuple[Place | None, ...] = ()
    delivery: Delivery = Delivery.ONCE
    killed: bool = False
    stopped: bool = False


def _dying(place: Place, calls: int, *after: Place) -> Scenario:
    return Scenario(", then ".join((place, *after)), calls, (place, *after))


def _stopping(place: Place, calls: int) -> Scenario:
    return Scenario(f"stopped, goes on at the end: {place}", calls, (place,), stopped=True)


SCENARIOS = (
    Scenario("not killed", 1),
    _dying(Place.BEFORE_HOLD, 1),
    _dying(Place.BEFORE_CLAIM, 1),
    _dying(Place.BEFORE_SEND, 1),
    Scenario("sent, the provider is answering", 2, killed=True),
    _dying(Place.BEFORE_WRITTEN, 2),
    _dying(Place.SETTLED_NOT_WRITTEN, 2),
    _dying(Place.BEFORE_SETTLED, 1),
    _dying(Place.AFTER_SETTLED, 1),
    _dying(Place.BEFORE_USAGE, 1),
    _dying(Place.AFTER_USAGE, 1),
    _dying(Place.BEFORE_INDEX, 1),
    _dying(Place.BEFORE_CLAIM, 1, Place.BEFORE_SEND),
    _dying(Place.BEFORE_WRITTEN, 2, Place.LOST_NOT_WRITTEN),
    _dying(Place.BEFORE_SETTLED, 1, Place.IN_RECOVERY),
    _dying(Place.BEFORE_CLAIM, 1, Place.IN_RECOVERY),
    _dying(Place.BEFORE_SETTLED, 1, Place.IN_RECOVERY_LATE),
    Scenario(f"run {Delivery.TWICE}", 1, delivery=Delivery.TWICE),
    Scenario(f"run {Delivery.AT_ONCE} in two processes", 1, delivery=Delivery.AT_ONCE),
    Scenario(f"run {Delivery.AT_ONCE}, the one that claimed dies", 1, (Place.BEFORE_SEND, Place.BEFORE_SEND), Delivery.AT_ONCE),
    _stopping(Place.BEFORE_CLAIM, 1),
    _stopping(Place.BEFORE_SEND, 2),
    Scenario("stopped, goes on at the end: sent, the provider is answering", 2, stopped=True),
    _stopping(Place.BEFORE_WRITTEN, 2),
    _stopping(Place.BEFORE_SETTLED, 1),
    _stopping(Place.BEFORE_USAGE, 1),
)
FEW = (Place.BEFORE_CLAIM, Place.BEFORE_SEND, Place.BEFORE_SETTLED, Place.AFTER_USAGE)
QUICK = tuple(one for one in SCENARIOS if len(one.deaths) == 1 and one.deaths[0] in FEW and not one.stopped)
"""Enough for a test."""


@dataclass(slots=True)
class Result:
    """What a scenario came to."""

    scenario: Scenario
    books: Books | None = None
    answers: Sequence[str] = ()
    billed: int = 0
    kills: int = 0
    seconds: float = 0.0
    wrong: list[str] = field(default_factory=list)


class Scene:
    """One scenario, played."""

    def __init__(self, scenario: Scenario, orders: Orders, provider: Provider, folder: Path) -> None:
        self._scenario = scenario
        self._orders = orders
        self._provider = provider
        self._folder = folder
        self._begun = False

    async def play(self) -> Result:
        """Play it to its end, then read what is there."""
        began = time.monotonic()
        async with self._gateway() as gateway:
            budget = (await gateway.budgets.create(self._budget())).budget.id
            engine = Deliveries(gateway, self._worker, deaths=self._scenario.deaths, delivery=self._scenario.delivery)
            self._provider.when_asked[self._orders.name] = lambda: self._asked(engine.workers[0])
            try:
                chain = await self._run(gateway, engine)
                await asyncio.wait_for(engine.running[chain.id], END_SECONDS)
                await asyncio.wait_for(self._until_recovered(gateway, engine), END_SECONDS)
                for worker in engine.workers:
                    await worker.go_on()
            finally:
                await asyncio.gather(*(worker.close() for worker in engine.workers))
            await background.sweep(gateway, engine)
            books = await read(gateway, chain.id, budget=budget, limit=LIMIT)
        result = self._result(books, engine)
        result.seconds = time.monotonic() - began
        return result

    @asynccontextmanager
    async def _gateway(self) -> AsyncIterator[Gateway]:
        gateway = await open_gateway(Settings(catalog=self._orders.catalog, storage=self._orders.storage), environment={})
        try:
            yield gateway
        finally:
            await gateway.aclose()

    def _budget(self) -> dict[str, object]:
        scope = {"kind": "project", "name": self._orders.name}
        return {"name": self._orders.name, "scope": scope, "limit_usd": "1", "cycle": "total"}

    async def _worker(self, number: int, dies: Place | None) -> Worker:
        orders = self._orders
        own = Orders(f"{orders.name}-{number}", orders.storage, orders.catalog, orders.ttl, dies, self._scenario.stopped)
        return await Worker.start(own, self._folder)

    def _asked(self, worker: Worker) -> None:
        if self._begun:
            return
        self._begun = True
        if self._scenario.killed:
            worker.kill()
        elif self._scenario.stopped and not self._scenario.deaths:
            asyncio.get_running_loop().call_later(QUIET_SECONDS, worker.stop)

    async def _run(self, gateway: Gateway, engine: Deliveries) -> Chain:
        caller = Caller(f"key_{self._orders.name}", self._orders.name)
        body = {"model": "small", "max_tokens": 50, "messages": [{"role": "user", "content": self._orders.name}]}
        request = await WORKS[PATH].read(Stored(gateway, caller), dict(body))
        new = NewChain(f"chain_{secrets.token_hex(8)}", new_request_id(), Kind.ASYNC, PATH, orjson.dumps(body), 3600.0)
        return await background.start(gateway, engine, caller, request, new)

    async def _until_recovered(self, gateway: Gateway, engine: Deliveries) -> None:
        """Wait until the sessions of all who have died are closed, while somebody lives who recovers."""
        while True:
            gone = {worker.orders.name for worker in engine.workers if not worker.performs}
            listed = [one.properties["instance"] async for one in gateway.tables.table(TABLE).query(SESSIONS)]
            if gone.isdisjoint(listed):
                return
            await engine.worker()
            await asyncio.sleep(0.2)

    def _result(self, books: Books, engine: Deliveries) -> Result:
        scenario, name = self._scenario, self._orders.name
        answers, billed = self._provider.answers[name], self._provider.billed(name)
        kills = sum(worker.killed for worker in engine.workers)
        wrong = books.wrong(answers=answers, billed=billed)
        exact = self._orders.ttl >= TTL  # below, a busy machine may take the living for dead: then they are made up for too
        if len(answers) > len(books.claims) or (exact and len(answers) != scenario.calls):
            wrong.append(f"the provider saw {len(answers)} calls of {len(books.claims)} attempts, expected {scenario.calls}")
        if not scenario.stopped and kills < min(1, len(scenario.deaths) + scenario.killed):
            wrong.append("nothing was killed")
        if scenario.stopped and not any(worker.was_stopped for worker in engine.workers):
            wrong.append("nothing was stopped")
        wrong += [f"{activity} told its two deliveries different things" for activity in engine.differing]
        broken = [worker for worker in engine.workers if not (worker.killed or worker.ended_in_order)]
        wrong += [f"{worker} broke: {_said(self._folder, worker.orders.name)}" for worker in broken]
        return Result(scenario, books, answers, billed, kills, wrong=wrong)


async def run(store: str, *, scenarios: Sequence[Scenario] = SCENARIOS, ttl: float = TTL) -> list[Result]:
    """Play scenarios at the same time: on SQLite each over a file of its own, on Azurite all over one emulator."""
    with tempfile.TemporaryDirectory(prefix="switchyard-chains-") as made:
        folder = Path(made)
        with stage(store, folder) as scene:
            async with providing() as provider:
                catalog = folder / "catalog.yaml"
                catalog.write_text(CATALOG.format(url=provider.url), encoding="utf-8")
                orders = [
                    Orders(f"s{number}", scene.setting.replace("kill-run", f"s{number}"), str(catalog), ttl)
                    for number in range(len(scenarios))
                ]
                scenes = [Scene(one, own, provider, folder) for one, own in zip(scenarios, orders, strict=True)]
                played = await asyncio.gather(*(one.play() for one in scenes), return_exceptions=True)
            logs = [_said(folder, f"{own.name}-") for own in orders]
    return [
        one if isinstance(one, Result) else Result(scenario, wrong=[f"{type(one).__name__}: {one}; {log}"])
        for scenario, one, log in zip(scenarios, played, logs, strict=True)
    ]


def _said(folder: Path, worker: str) -> str:
    return "".join(log.read_text()[-2000:] for log in sorted(folder.glob(f"{worker}*.log")))


def report(store: str, results: Sequence[Result]) -> None:
    """Print what was found."""
    head = ["dies", "kills", "calls", "answer", "charges per attempt", "billed", "charged", "spent = rows = usage", "held"]
    table(f"Chains killed, on {store} (micro-USD)", [*head, "claims", "index", "s", ""], [_row(result) for result in results])
    for result in results:
        for text in result.wrong:
            print(f"WRONG on {store}, {result.scenario.name}: {text}")


def _row(result: Result) -> list[object]:
    books = result.books
    if books is None:
        return [result.scenario.name, *["-"] * 11, "WRONG"]
    attempts = "; ".join(f"{number}: " + ", ".join(f"{one / 1000:g}" for one in live) for number, live in books.live().items())
    usage = None if books.usage is None else books.usage.record.cost
    equal = books.head.spent == books.charged == usage
    return [
        result.scenario.name,
        result.kills,
        len(result.answers),
        "right" if books.text in result.answers else "WRONG",
        attempts,
        f"{result.billed / 1000:g}",
        f"{books.charged / 1000:g}",
        "yes" if equal else "NO",
        f"{books.head.reserved / 1000:g}",
        ", ".join(claim.state.value for claim in books.claims),
        "listed" if books.listed else "empty",
        f"{result.seconds:.0f}",
        "WRONG" if result.wrong else "ok",
    ]


async def _all(store: str, *, ttl: float) -> bool:
    """Play everything on a store, on SQLite with a host as well; print it, and say whether anything is wrong."""
    playing = asyncio.create_task(run(store, ttl=ttl))
    work = await chain_kills_host.run() if store == "sqlite" else []
    results = await playing
    report(store, results)
    if work:
        chain_kills_host.report(work)
    return any(result.wrong for result in results) or any(piece.wrong for piece in work)


def main() -> int:
    """Run what is asked for; return the process's exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", choices=("sqlite", "azurite", "both"), default="both")
    parser.add_argument("--quick", action="store_true", help=f"take a session for dead after {QUICK_TTL:g} s, not {TTL:g}")
    asked = parser.parse_args()
    stores = ("sqlite", "azurite") if asked.store == "both" else (asked.store,)
    failed = [asyncio.run(_all(store, ttl=QUICK_TTL if asked.quick else TTL)) for store in stores]
    print(f"\nA call costs {BILL / 1000:g} micro-USD. Killed before it knew what a call cost, a process is charged its bound.")
    return 1 if any(failed) else 0


if __name__ == "__main__":
    sys.exit(main())

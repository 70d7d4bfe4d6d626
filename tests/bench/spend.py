"""Spend a hard budget to its end through gateways that are killed, with a failing provider and callers that leave; then audit.

    python -m tests.bench.spend PROMPTS.jsonl.gz [--count 2000] [--failing 0.2] [--store sqlite|azurite] [--at-once 24]

Rows are those of `tests.bench.replay`. Two gateway processes share one store; every request is charged to one hard budget, of
which a dry pass over some of the requests says how large it must be to run out half way, and its project's to a soft one. Some
callers drop the connection, before the first byte or in mid-stream; the gateways are killed (SIGKILL) in turn while requests
are in flight, and started again. Those in flight count as lost, and are asked again of the other gateway.

After the last question and the recovery of what the dead left, the same questions go on being asked until they are refused, and
then small ones, with less and less `max_tokens`, until the smallest is refused while nothing is held. Prints tables, and exits
with 1 unless every promise in `tests.bench.spend_audit` is kept.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import uvloop

from shared.core.budgets import Account
from shared.ledger import rows
from shared.ports import Tables
from shared.usage import rows as usage_rows
from tests.azurite.process import Azurite
from tests.bench.audit import Verdict, attempts_of
from tests.bench.money.books import read
from tests.bench.money.stores import opened
from tests.bench.process import Process, free_port
from tests.bench.replay import CATALOG, Question, Simulator, faults, get, questions
from tests.bench.spend_audit import Evidence, audit
from tests.bench.spend_scene import Callers, Instance, Sample, Watcher, post
from tests.bench.tables import table
from tests.bench.targets import ROOT, switchyard

HARD: Final = "everything"
SOFT: Final = "replay"
PERIOD: Final = "total"
ENDLESS: Final = 10**15
LIMITS: Final = (48, 96, 160, 256, 384)
"""The `max_tokens` of the questions: what an attempt of unknown outcome is charged is bounded by them."""
LAST: Final = (256, 64, 16, 4, 1)
"""The `max_tokens` of the last, small questions."""
LONGEST: Final = 2_000
EVERY: Final = 10
"""The dry pass asks one question of so many, but at least `LEAST`."""
LEAST: Final = 60
REFUSING: Final = 0.42
"""From this share of the questions on, what fails does so by refusing the whole account."""
KILLS: Final = (0.06, 0.14, 0.22, 0.3, 0.38, 0.7)
"""At which shares of the questions a gateway is killed."""
MANNERS: Final = {"latency_ms": 25.0, "jitter_ms": 50.0, "chunk_gap_ms": 4.0}
"""The providers take their time, so that requests are in flight when something happens."""
QUIET_SECONDS: Final = 120.0


@dataclass(frozen=True, slots=True)
class World:
    """What a run takes place in."""

    options: argparse.Namespace
    folder: Path
    setting: str
    simulator: Simulator
    stack: ExitStack

    def instance(self, name: str, storage: str = "") -> Instance:
        """Return a gateway that is not started yet."""
        extra = {"BENCH_SIMULATOR": self.simulator.url, "SWITCHYARD_STORAGE": storage or self.setting}
        instance = Instance(switchyard("", CATALOG, **extra), self.folder, name)
        self.stack.callback(instance.stop)
        return instance

    def fail(self, *, refused: bool) -> None:
        """Script what the primary's next attempts meet."""
        self.simulator.script(faults(4 * self.options.count + 400, self.options.failing, refused=refused))


@contextmanager
def store(name: str, folder: Path) -> Iterator[str]:
    """Set up the store of that name; yield the setting that gateways find it by."""
    if name == "sqlite":
        yield f"sqlite:{folder}/state.db"
        return
    with Azurite() as azurite:
        yield azurite.setting


async def dry_pass(world: World, asked: Sequence[Question]) -> int:
    """Return what these questions cost under a hard budget that does not end, in nano-USD; nothing is killed."""
    instance = world.instance("dry", f"sqlite:{world.folder}/dry.db")
    instance.start()
    await set_up(instance, hard=ENDLESS)
    callers = Callers([instance], random.Random(1))
    await callers.ask_all(asked, world.options.at_once)
    instance.admin.close()
    await asyncio.sleep(2.0)
    shown = await get(instance.admin, f"/budgets/{HARD}")
    instance.admin.close()
    instance.stop()
    return int(shown["spent_nano_usd"]) + int(shown["held_nano_usd"])


async def set_up(instance: Instance, *, hard: int) -> str:
    """Make the budgets, and a key for the callers; return its token."""
    amounts = {HARD: (hard, True, {"kind": "organization"}), SOFT: (hard // 5, False, {"kind": "project", "name": SOFT})}
    for name, (limit, is_hard, scope) in amounts.items():
        usd = str(Decimal(limit) / 10**9)
        budget = {"id": name, "name": name, "scope": scope, "limit_usd": usd, "cycle": PERIOD, "hard": is_hard}
        await post(instance.admin, "/budgets", budget)
    made = await post(instance.admin, "/keys", {"name": "callers", "project": SOFT})
    instance.use_key(token := str(made["key"]))
    return token


class Run:
    """One run, from the first question to what is left in the tables."""

    def __init__(self, world: World, tables: Tables, limit: int) -> None:
        self._world = world
        self._tables = tables
        self._limit = limit
        self._instances = [world.instance(name) for name in ("first", "second")]
        self._callers = Callers(self._instances, random.Random(2))
        self._key = rows.AccountKey(HARD, PERIOD)
        self._watcher = Watcher(tables.table(rows.TABLE), self._key, self._instances)

    async def run(self, asked: Sequence[Question]) -> Evidence:
        """Ask everything and then some; return what there is to be judged."""
        first, second = self._instances
        await asyncio.to_thread(first.start)
        token = await set_up(first, hard=self._limit)
        second.use_key(token)
        await asyncio.to_thread(second.start)
        async with self._watched():
            await self._main(asked)
            await self._quiet("what the dead held is recovered")
            await self._tail(asked)
            await self._quiet("nothing is held any more, no session is open", closed=True)
            usage, shown, soft = await self._settled()
            told = [await self._told_of(one["request_id"]) async for one in requests_in(self._tables) if one["recovered"]]
        for instance in self._instances:
            instance.admin.close()
            instance.target.close()
            await asyncio.to_thread(instance.stop)
        return replace(await self._evidence(usage, shown, soft), recovered_shown=sum(told))

    async def _main(self, asked: Sequence[Question]) -> None:
        began = time.monotonic()
        part = int(len(asked) * REFUSING)
        killing = asyncio.create_task(self._kill(len(asked)))
        self._world.fail(refused=False)
        await self._callers.ask_all(asked[:part], self._world.options.at_once)
        self._world.fail(refused=True)
        await self._callers.ask_all(asked[part:], self._world.options.at_once)
        await killing
        print(f"{len(asked):,} requests in {time.monotonic() - began:.1f} s, {self._world.options.at_once} at once", flush=True)

    async def _kill(self, count: int) -> None:
        for place, share in enumerate(KILLS):
            while self._callers.asked < share * count:
                await asyncio.sleep(0.01)
            await self._instances[place % len(self._instances)].kill()

    async def _tail(self, asked: Sequence[Question]) -> None:
        """Ask until everything is refused, the smallest while nothing is held."""
        began, before = time.monotonic(), self._callers.asked
        await self._until_refused(itertools.cycle(asked), 8)
        while True:
            for max_tokens in LAST:
                await self._until_refused(itertools.repeat(_small(max_tokens)), 2)
            before_it = await self._quiet("nothing is held for the last question")
            told = await self._callers.ask(_small(LAST[-1]))
            if told.outcome == "refused" and (await self._watcher.look()).spent == before_it.spent:
                break
        print(f"{self._callers.asked - before:,} more until the last in {time.monotonic() - began:.1f} s", flush=True)

    async def _until_refused(self, asked: Iterator[Question], at_once: int) -> None:
        async def caller() -> None:
            for question in asked:
                if (await self._callers.ask(question)).outcome not in {"answered", "interrupted"}:
                    return

        await asyncio.gather(*(caller() for _ in range(at_once)))

    async def _quiet(self, what: str, *, closed: bool = False) -> Sample:
        """Wait until nothing is held, and all sessions are ``closed``; return what the head says then."""
        began = time.monotonic()
        look = await self._watcher.look()
        while True:
            await asyncio.sleep(1.0)
            before, look = look, await self._watcher.look()
            if before.held == look.held == 0 and not (closed and await self._watcher.sessions()):
                print(f"{what}: after {look.at - began:.1f} s", flush=True)
                return look
            if look.at - began > QUIET_SECONDS:
                print(f"{what}: NOT after {QUIET_SECONDS:.0f} s, {look.held:,} nano-USD are held", flush=True)
                return look

    async def _settled(self) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
        """Return what `GET /v1/usage` and the two budgets say once they say it twice."""
        found: tuple[dict[str, Any], ...] = ({}, {}, {})
        while True:
            before = found
            paths = ("/usage", f"/budgets/{HARD}", f"/budgets/{SOFT}")
            found = tuple([await get(self._instances[0].admin, path) for path in paths])
            if [one.get("total", one.get("spent_nano_usd")) for one in found] == [
                one.get("total", one.get("spent_nano_usd")) for one in before
            ]:
                return found[0]["total"], found[1], found[2]
            await asyncio.sleep(2.0)

    async def _told_of(self, request_id: str) -> bool:
        """Say whether the gateway tells that recovery wrote this request down."""
        return (await get(self._instances[1].admin, f"/requests/{request_id}")).get("recovered") is True

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        watching = asyncio.create_task(self._watcher.run())
        try:
            yield
        finally:
            watching.cancel()
            for ended in await asyncio.gather(watching, return_exceptions=True):
                if isinstance(ended, Exception):
                    raise ended

    async def _evidence(self, usage: dict[str, Any], shown: dict[str, Any], soft: dict[str, Any]) -> Evidence:
        accounts = (Account(HARD, PERIOD, self._limit, hard=True), Account(SOFT, PERIOD, self._limit // 5, hard=False))
        return Evidence(
            limit=self._limit,
            hard=self._key,
            soft=rows.AccountKey(SOFT, PERIOD),
            told=self._callers.told,
            kills=sorted((kill for one in self._instances for kill in one.kills), key=lambda kill: kill.at),
            samples=self._watcher.samples,
            shown=self._watcher.shown,
            usage=usage,
            hard_shown=shown,
            soft_shown=soft,
            requests=[one async for one in requests_in(self._tables)],
            books=await read(self._tables.table(rows.TABLE), accounts, ""),
            received=attempts_of(self._world.simulator.log()),
            overruns=[line for one in self._instances for line in one.said("overrun")],
            catalog=CATALOG,
        )


def _small(max_tokens: int) -> Question:
    body = {"model": "spare", "messages": [{"role": "user", "content": "hi"}], "max_tokens": max_tokens}
    return Question(json.dumps(body).encode(), stream=False)


async def requests_in(tables: Tables) -> AsyncIterator[usage_rows.Document]:
    """Yield every request in the usage table, as its row says."""
    usage = tables.table(usage_rows.TABLE)
    for day in [entity.row async for entity in usage.query(usage_rows.DAYS)]:
        for partition in usage_rows.partitions_of(day):
            async for entity in usage.query(partition):
                yield usage_rows.document(entity)


async def spend(world: World) -> Verdict:
    """Do it all; return the verdict."""
    options = world.options
    world.simulator.tell(MANNERS)
    asked = questions(options.prompts, options.count, max_tokens=LIMITS, longest=LONGEST)
    sample = random.Random(3).sample(asked, min(len(asked), max(LEAST, len(asked) // EVERY)))
    world.fail(refused=False)
    cost = await dry_pass(world, sample)
    limit = cost * len(asked) // (2 * len(sample))
    print(f"a dry pass of {len(sample)} requests cost {cost:,} nano-USD: the limit is {limit:,}", flush=True)
    world.simulator.reset()
    world.simulator.tell(MANNERS)
    async with opened(world.setting) as tables:
        return audit(await Run(world, tables, limit).run(asked))


def simulated(folder: Path, stack: ExitStack) -> Simulator:
    """Start the simulator."""
    port = free_port()
    command = [sys.executable, "-m", "local.simulator", "--port", str(port)]
    upstream = Process("simulator", command, folder=folder, env={"PYTHONPATH": str(ROOT)})
    stack.callback(upstream.stop)
    upstream.until_listening(port)
    return Simulator(port)


def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path, help="JSON lines, gzipped or not, with a field `prompt`")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--failing", type=float, default=0.2, help="the share of the primary's attempts that fail")
    parser.add_argument("--store", choices=("sqlite", "azurite"), default="sqlite")
    parser.add_argument("--at-once", type=int, default=24)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="switchyard-spend-") as made, ExitStack() as stack:
        folder = Path(made)
        setting = stack.enter_context(store(options.store, folder))
        world = World(options, folder, setting, simulated(folder, stack), stack)
        verdict = uvloop.run(spend(world))
    table(f"A hard budget spent to its end, on {options.store}", ["what", "number", "must be", ""], verdict.rows)
    table("How the primary failed", ["fault", "attempts", "then the caller saw"], verdict.faults)
    for problem in verdict.problems[:40]:
        print(f"- {problem}")
    print("\nevery promise kept" if verdict.kept else "\na promise was not kept")
    return 0 if verdict.kept else 1


if __name__ == "__main__":
    sys.exit(main())

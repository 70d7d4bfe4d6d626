"""Real kills: workers in processes that are SIGKILLed, a store that freezes and restarts, and the money read back afterwards.

    python -m tests.bench.kill_run [--store sqlite|azurite|both] [--seconds 40] [--seed N] [--quick]

Prints what was found, and exits with 1 when an invariant is violated. See `tests.bench.money.books` for what must be true.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

from shared.adapters.clock import SystemClock
from shared.core.budgets import Account
from shared.core.errors import StorageUnavailableError
from shared.ledger import Ledger
from shared.ledger.rows import TABLE
from shared.ports import Tables
from tests.bench.money.books import Books, Violation, read
from tests.bench.money.plan import BILLED, MEAN_CHARGE, REFUSED, Plan
from tests.bench.money.scene import Cast, Stage, stage
from tests.bench.money.stores import opened
from tests.bench.process import free_port
from tests.bench.tables import number, table

SAMPLE_SECONDS = 0.1
FRACTION = 0.36
"""The hard budget pays for this part of the calls there would be time for, were there no trouble."""
SPENDABLE = 0.999
ALMOST = 0.9
SPENDING_SECONDS = 15.0
RECOVERY_SECONDS = 60.0


class Sample(NamedTuple):
    """What the head of the hard budget of every call said, as shares of its limit."""

    at: float
    spent: float
    used: float  # spent or held


@dataclass(slots=True)
class Outcome:
    """What a run came to."""

    plan: Plan
    books: Books
    samples: list[Sample]
    refusals: list[tuple[float, str]]
    kills: int
    troubles: list[str]
    violations: list[Violation] = field(default_factory=list)

    @property
    def spent(self) -> float:
        """The share of the hard budget that is spent."""
        return self.books.accounts[_key(self.plan.organization)].head.spent / self.plan.limit

    @property
    def exhausted(self) -> bool:
        """Whether there was more demand than money."""
        return any(budget == self.plan.organization.budget for _, budget in self.refusals)


def plan_of(store: str, setting: str, folder: Path, *, seconds: float, quick: bool, seed: int) -> Plan:
    """Return the plan of a run, long or quick."""
    processes, workers = (2, 8) if quick else (5, 10)
    call = 0.3 if quick else 1.0
    calls = seconds * processes * workers / (call * 1.1)
    return Plan(
        store=store,
        setting=setting,
        folder=str(folder),
        provider=free_port(),
        seconds=seconds,
        processes=processes,
        workers=workers,
        call=call,
        ttl=1.5 if quick else 3.0,
        freeze=2.0 if quick else 6.0,
        kills=2 if quick else 6,
        limit=int(calls * FRACTION * MEAN_CHARGE),
        seed=seed,
    )


class Run:
    """One run: the processes work while this one kills, freezes, looks at the heads and, in the end, at everything."""

    def __init__(self, plan: Plan, scene: Stage, tables: Tables) -> None:
        self._plan = plan
        self._scene = scene
        self._tables = tables
        self._table = tables.table(TABLE)
        self._random = Random(f"{plan.seed}/{plan.store}")
        path = Path(plan.folder) / "plan.json"
        plan.save(path)
        self._cast = Cast(plan, path)
        self._samples: list[Sample] = []
        self._violations: list[Violation] = []
        self._troubles: list[str] = []

    async def run(self) -> Outcome:
        """Run it all."""
        try:
            await self._cast.open()
            watching = asyncio.create_task(self._watch())
            await self._trouble()
            await self._cast.ready()
            await self._until_spent()
            self._violations += [Violation("crash", text) for text in await self._cast.close()]
            await self._settle()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)
        finally:
            self._cast.end()
        books = await read(self._table, self._plan.accounts, self._log(BILLED))
        self._violations += books.violations()
        refusals = [(one["at"], one["budget"]) for one in map(json.loads, self._log(REFUSED).splitlines())]
        return Outcome(self._plan, books, self._samples, refusals, self._cast.kills, self._troubles, self._violations)

    def _log(self, name: str) -> str:
        return (Path(self._plan.folder) / name).read_text(encoding="utf-8")

    async def _trouble(self) -> None:
        """Let all happen that shall, and the time pass."""
        plan = self._plan
        part = plan.seconds / 10
        coming = [self._at(self._random.uniform(1, 8) * part, "kill", self._kill()) for _ in range(plan.kills)]
        coming += [
            self._at(2 * part, f"store frozen {plan.freeze:g} s", self._scene.freeze(plan.freeze)),
            self._at(4.5 * part, "process paused", self._cast.pause(self._random.randrange(100), plan.ttl * 2)),
            self._at(6.5 * part, "store restarted", self._scene.restart()),
            self._at(plan.seconds, "", asyncio.sleep(0)),
        ]
        await asyncio.gather(*coming)

    async def _until_spent(self) -> None:
        """Go on for a while if the money is all but spent: what the last calls free is for others, as long as there are any."""
        for _ in range(int(SPENDING_SECONDS / SAMPLE_SECONDS)):
            last = self._samples[-1].spent if self._samples else 0.0
            if not ALMOST < last < SPENDABLE:
                return
            await asyncio.sleep(SAMPLE_SECONDS)

    async def _at(self, after: float, what: str, trouble: Coroutine[Any, Any, object]) -> None:
        await asyncio.sleep(after)
        if await trouble is not False and what:
            self._troubles.append(what)

    async def _kill(self) -> None:
        self._cast.kill(self._random.randrange(100))

    async def _watch(self) -> None:
        """Look at the heads as long as the run lasts: within the limit at every moment."""
        hard = [account for account in self._plan.accounts if account.hard]
        ledger = Ledger(self._tables, SystemClock(), "watcher", policy=self._plan.policy)
        while True:
            for account in hard:
                try:
                    balance = await ledger.balance(account.budget, account.period, account.limit)
                except StorageUnavailableError:
                    continue
                used = balance.spent + balance.held
                if used > account.limit:
                    self._violations.append(Violation("over", f"{account.budget}: {used} of {account.limit} seen in the head"))
                if account == self._plan.organization:
                    self._samples.append(Sample(time.time(), balance.spent / account.limit, used / account.limit))
            await asyncio.sleep(SAMPLE_SECONDS)

    async def _settle(self) -> None:
        """Recover what the dead have left, until nothing is open."""
        ledger = Ledger(self._tables, SystemClock(), "closer", policy=self._plan.policy)
        deadline = time.monotonic() + RECOVERY_SECONDS
        while time.monotonic() < deadline:
            try:
                for found in await ledger.recover():
                    await ledger.finish(found)
                if not [entity async for entity in self._table.query("sessions", limit=1)]:
                    return
            except StorageUnavailableError:
                pass
            await asyncio.sleep(0.1)
        self._violations.append(Violation("open", f"not all was recovered within {RECOVERY_SECONDS} s"))


async def run(store: str, *, seconds: float, quick: bool = False, seed: int = 1) -> Outcome:
    """Do one run on a store of its own."""
    with tempfile.TemporaryDirectory(prefix="switchyard-kills-") as made:
        folder = Path(made)
        with stage(store, folder) as scene:
            plan = plan_of(store, scene.setting, folder, seconds=seconds, quick=quick, seed=seed)
            async with opened(plan.setting) as tables:
                return await Run(plan, scene, tables).run()


def report(outcomes: Sequence[Outcome]) -> None:
    """Print what was found, a column for each store."""
    columns = [_column(outcome) for outcome in outcomes]
    rows = [[what, *(column[what] for column in columns)] for what in columns[0]]
    table("Kill runs: what the tables say afterwards", ["", *(outcome.plan.store for outcome in outcomes)], rows)
    for outcome in outcomes:
        for violation in outcome.violations[:20]:
            print(f"VIOLATED on {outcome.plan.store}: [{violation.kind}] {violation.text}")


def _column(outcome: Outcome) -> dict[str, str]:
    books, plan = outcome.books, outcome.plan
    mine = books.accounts[_key(plan.organization)]
    kinds = [violation.kind for violation in outcome.violations]
    states = books.states()
    first = min((at for at, budget in outcome.refusals if budget == plan.organization.budget), default=None)
    before = [sample for sample in outcome.samples if first is None or sample.at <= first]
    return {
        "processes x workers": f"{plan.processes} x {plan.workers}",
        "SIGKILLs": str(outcome.kills),
        "other trouble": ", ".join(what for what in outcome.troubles if what != "kill"),
        "sessions / recovered": f"{books.sessions} / {books.recovered}",
        "attempts: settled, void, charged at the estimate": f"{states['d']}, {states['v']}, {states['x']}",
        "corrections of what a paused process settled late": str(books.correction_rows),
        "attempts the provider billed": str(len(books.billed)),
        "billed / limit": number(mine.billed / plan.limit, 5),
        "spent / limit": number(outcome.spent, 5),
        "the same of the key's budget": _shares(outcome, plan.key),
        "the same of the project's soft budget": _shares(outcome, plan.project),
        "most seen spent or held / limit": number(max(sample.used for sample in outcome.samples), 5),
        "looks at the head": str(len(outcome.samples)),
        "spent, or spent or held, at the first refusal": f"{before[-1].spent:.3f}, {before[-1].used:.3f}" if first else "-",
        "overspent": str(kinds.count("over")),
        "lost": str(kinds.count("lost")),
        "twice": str(kinds.count("twice")),
        "charged too little": str(kinds.count("less")),
        "head differs from the sum of the rows": str(kinds.count("sum")),
        "left open": str(kinds.count("open")),
    }


def _shares(outcome: Outcome, account: Account) -> str:
    books = outcome.books.accounts[_key(account)]
    return f"{books.billed / account.limit:.4f}, {books.head.spent / account.limit:.4f}"


def _key(account: Account) -> Any:
    return (account.budget, account.period)


def main() -> int:
    """Run what is asked for; return the process's exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", choices=("sqlite", "azurite", "both"), default="both")
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--quick", action="store_true")
    asked = parser.parse_args()
    seconds = asked.seconds or (6.0 if asked.quick else 40.0)
    stores = ("sqlite", "azurite") if asked.store == "both" else (asked.store,)
    outcomes = []
    for store in stores:
        outcome = asyncio.run(run(store, seconds=seconds, quick=asked.quick, seed=asked.seed))
        if outcome.exhausted and outcome.spent < SPENDABLE and not asked.quick:
            outcome.violations.append(Violation("unspent", f"only {outcome.spent:.5f} of the budget was spent"))
        outcomes.append(outcome)
    print(f"seed {asked.seed}")
    report(outcomes)
    return 1 if any(outcome.violations for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())

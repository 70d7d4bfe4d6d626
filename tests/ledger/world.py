"""One simulated world: instances with workers, a provider, budgets, and everything that can go wrong, from one seed."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import itertools
import zlib
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any

from shared.core.budgets import Account
from shared.core.errors import BudgetExceededError, StorageUnavailableError
from shared.ledger import Hold, Intent, Ledger
from shared.ledger.policy import LedgerPolicy
from shared.ports import Clock, Tables
from tests.ledger.invariants import Attempt, Auditor, Death
from tests.ledger.loop import DeadlockError, Gate, SimClock, VirtualLoop
from tests.ledger.plan import Plan, plan_of
from tests.ledger.settings import LAG, Settings
from tests.ledger.store import OPENING, Change, Network, Store, Trap, Wire
from tests.ledger.usage import UsageLog

LOG_LINES = 4_000
RECOVERY_EVERY = 10.0
LATEST = 125.0
"""Seconds after which every late write has landed."""
RECOVERING = 0.1
"""Seconds that recovery may take for one session: some answers of the store."""
SETTLING = 10.0
"""Seconds after the last trouble from which an instance counts as well."""


MakeLedger = Callable[[Tables, Clock, str, LedgerPolicy, UsageLog], Ledger]


def shipped(tables: Tables, clock: Clock, instance: str, policy: LedgerPolicy, usage: UsageLog) -> Ledger:
    """Return the ledger as it is shipped; only its sessions' names are not drawn but counted."""
    numbers = itertools.count(1)
    return Ledger(
        tables,
        clock,
        instance,
        policy=policy,
        usage_until=usage.written_until,
        make_name=lambda: f"{instance}-{next(numbers)}",
    )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a seed came to."""

    seed: int
    counts: Counter[str]
    violations: list[str]
    log: list[str]
    digest: int


@dataclass(slots=True)
class Instance:
    """One process."""

    name: str
    gate: Gate
    wire: Wire
    clock: SimClock
    ledger: Ledger
    usage: UsageLog
    lag: float = 0.0  # seconds after which it knows of changed budgets
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)
    thawed_at: float = 0.0
    end: asyncio.Task[None] | None = None

    @property
    def closing(self) -> bool:
        """Whether it has been told to end in order."""
        return self.end is not None

    @property
    def alive(self) -> bool:
        """Whether it can still be killed or frozen."""
        return not self.gate.dead and not (self.end is not None and self.end.done())


class World:
    """Runs one seed. Everything random comes from streams that the seed names; nothing reads the machine's clock."""

    def __init__(self, seed: int, *, make: MakeLedger = shipped, plan: Plan | None = None) -> None:
        self.seed = seed
        self.plan = plan or plan_of(seed)
        self.loop = VirtualLoop()
        self.store = Store()
        self.settings = Settings(self.plan.accounts, self.loop.time)
        self.usage: set[str] = set()
        self.auditor = Auditor(self.store, self.settings, stale=self.plan.stale)
        self.log: deque[tuple[float, tuple[Any, ...]]] = deque(maxlen=LOG_LINES)
        self.network = Network(self.loop, self.store, Random(f"{seed}/network"), log=self.note)
        self.store.observers.append(self._note_changes)
        self.instances: list[Instance] = []
        self.deaths: dict[str, Death] = {}
        self.counts: Counter[str] = Counter()
        self._random = Random(f"{seed}/world")
        self._make = make
        self._requests = 0
        self._stopping = False
        self._heal_at = 0.0
        self._last_beat = 0.0

    def note(self, *words: Any) -> None:
        """Put an event into the log."""
        self.log.append((self.loop.time(), words))

    def _note_changes(self, changes: Sequence[Change]) -> None:
        """Put what happened to the tables into the log."""
        for change in changes:
            if change.after is None:
                self.note("   ", change.partition, change.row, "is gone")
            elif change.partition == "sessions":
                self._last_beat = self.loop.time()
            elif change.partition.startswith("b~"):
                what = {name: value for name, value in change.after.items() if name not in {"limit", "facts"}}
                self.note("   ", change.partition, change.row, what)
            elif change.partition.startswith("s~"):
                if change.row == "0" and change.after["state"] == "open":
                    self._last_beat = self.loop.time()
                states = change.after.get("state", ""), change.after.get("token", ""), change.after.get("charged", "")
                self.note("   ", change.partition, change.row, *states)

    # ---- running -----------------------------------------------------------------------------------------------------

    def run(self) -> Outcome:
        """Live through it all; return what came of it."""
        gc.disable()  # nothing is to be collected at a moment that differs from run to run
        try:
            try:
                self.loop.run_until_complete(self._live())
            except DeadlockError as error:
                self.auditor.violated(7, str(error))
            for text in self.loop.errors:
                self.auditor.violated(7, f"an error nobody handled: {text}")
            return self._outcome()
        finally:
            self.loop.bury()
            gc.enable()

    def _outcome(self) -> Outcome:
        counts = self.counts + self.auditor.counts + self.network.faults
        counts["transactions"] = self.store.transactions
        counts["conflicts"] = self.store.conflicts
        lines = [f"{at:9.3f}  " + " ".join(map(str, words)) for at, words in self.log]
        violations = list(self.auditor.violations)
        return Outcome(self.seed, counts, violations, lines, zlib.crc32("\n".join([*lines, *violations]).encode()))

    async def _live(self) -> None:
        self.network.weather = self.plan.weather
        for _ in range(self.plan.instances):
            self._start()
        nature = [self.loop.create_task(self._chaos()), self.loop.create_task(self._changes())]
        await asyncio.sleep(self.plan.seconds)
        for task in nature:
            task.cancel()
        await self._heal()
        await self._wind_up()
        self.auditor.close(self.deaths, usage=self.usage)
        if self.plan.calm and (early := self.auditor.counts["refused below 75 %"] + self.counts["not served: store"]):
            self.auditor.violated(
                6, f"nothing went wrong, and {early} requests were refused below 75 % or for the store's sake"
            )

    def _start(self, *, recovers: bool | None = None, works: bool = True) -> Instance:
        name = f"i{len(self.instances)}"
        random = Random(f"{self.seed}/{name}")
        gate = Gate(name)
        wire = Wire(self.network, name)
        clock = SimClock(self.loop, skew=self._random.uniform(-1, 1) * self.plan.skew, random=random)
        usage = UsageLog(clock, self.usage, lag=self.plan.usage_lag, random=random)
        ledger: Ledger = gate.context.run(self._make, wire, clock, name, self.plan.policy, usage)
        instance = Instance(name, gate, wire, clock, ledger, usage, lag=random.random() * LAG)
        self.instances.append(instance)
        self.note(name, "starts")
        self.loop.run_in(gate, usage.run())
        if recovers if recovers is not None else self._random.random() < self.plan.recovering:
            self.loop.run_in(gate, self._recovers(instance, self._random.choice((0.0, self._random.random() * RECOVERY_EVERY))))
        for _ in range(self.plan.workers if works else 0):
            instance.tasks.append(self.loop.run_in(gate, self._works(instance, Random(f"{self.seed}/{random.random()}"))))
        return instance

    async def _recovers(self, instance: Instance, first: float) -> None:
        await asyncio.sleep(first)
        while not instance.closing:
            try:
                for found in await instance.ledger.recover():
                    self.note(instance.name, "recovers", found.session, found.charged)
                    names = {f"{attempt.request_id}~{attempt.attempt}" for attempt in found.attempts}
                    self.counts["usage written by recovery"] += len(names - self.usage)
                    self.usage |= names
                    await instance.ledger.finish(found)
                    self.counts["sessions recovered"] += 1
            except StorageUnavailableError:
                self.counts["recoveries interrupted"] += 1
            await asyncio.sleep(RECOVERY_EVERY)

    # ---- requests ----------------------------------------------------------------------------------------------------

    async def _works(self, instance: Instance, random: Random) -> None:
        while not self._stopping and not instance.closing:
            await asyncio.sleep(random.expovariate(1 / self.plan.think))
            if not self._stopping and not instance.closing:
                await self._request(instance, random)

    async def _request(self, instance: Instance, random: Random) -> None:
        """Make a request: one attempt, or two. What it has used is given to the usage log when it has ended."""
        self._requests += 1
        name, budgets, amount = f"q{self._requests}", self.plan.pick(random, self.settings.budgets), self.plan.amount(random)
        tried: list[str] = []
        for number in (1, 2) if random.random() < self.plan.retrying else (1,):
            accounts = tuple([self.settings.seen(budget, instance.lag) for budget in budgets])
            attempt = Attempt(name, instance.name, accounts, self.loop.time(), number=number)
            self.auditor.asked(attempt, amount)
            hold = await self._reserve(instance, attempt, amount, random)
            if hold is None:
                break
            tried.append(attempt.name)
            self.auditor.admitted(attempt, hold.amount)
            self.note(instance.name, attempt.name, "holds", hold.amount, [one.budget for one in attempt.accounts])
            if random.random() < self.plan.pausing:
                self.counts["senders paused"] += 1
                await asyncio.sleep(random.random() * 120)
            await self._call(instance, attempt, hold, random)
        instance.usage.record(tried)
        instance.ledger.ended(name)

    async def _reserve(self, instance: Instance, attempt: Attempt, amount: int, random: Random) -> Hold | None:
        least = amount // 4 if random.random() < 0.15 else None
        patience = random.choice((0.001, 0.02, 0.5)) if random.random() < self.plan.leaving else None
        intent = Intent(attempt.request_id, attempt.number, {"model": "m"})
        try:
            async with asyncio.timeout(patience):
                hold = await instance.ledger.reserve(intent, attempt.accounts, amount, least=least)
        except BudgetExceededError as error:
            slept = instance.thawed_at > attempt.asked_at
            self.auditor.refused(attempt, error.budget, amount if least is None else least, slept=slept)
            return None
        except StorageUnavailableError:
            self.counts["not served: store"] += 1
            return None
        except TimeoutError:
            self.counts["left while reserving"] += 1
            self.note(instance.name, attempt.name, "leaves")
            return None
        if hold.amount > amount or hold.amount < (amount if least is None else least):
            self.auditor.violated(1, f"{attempt.name} asked for {amount} (at least {least}) and holds {hold.amount}")
        return hold

    async def _call(self, instance: Instance, attempt: Attempt, hold: Hold, random: Random) -> None:
        """Call the provider. It decides on the spot what it will bill, and when; whether the caller lives does not matter."""
        self.counts["requests"] += 1
        kind = random.random()
        billed = 0 if kind < 0.1 else int(hold.amount * random.random() ** 2)
        if kind > 1 - self.plan.overruns:
            billed = int(hold.amount * (1 + random.random()))
            self.counts["overruns"] += 1
        elif kind > 0.95:
            billed = hold.amount
        took = random.lognormvariate(-0.5, 0.8) if random.random() < 0.95 else random.random() * 40
        if billed:
            self.loop.at(self.loop.time() + took * random.random(), self.auditor.billed, attempt, billed)
        await asyncio.sleep(took)
        unknown = random.random() < 0.05
        charged = max(billed, hold.amount) if unknown else billed
        self.note(instance.name, attempt.name, "ends", charged)
        self.auditor.told(attempt, charged)
        if charged or random.random() < 0.5:
            instance.ledger.settle(hold, charged, facts={"unknown": unknown})
        else:
            instance.ledger.void(hold)
            self.counts["voids"] += 1
        if random.random() < self.plan.again:  # twice is as good as once, whenever the second time comes
            self.counts["settled again"] += 1
            await asyncio.sleep(random.choice((0.0, random.random() * 5.0)))
            random.choice((instance.ledger.void, lambda hold: instance.ledger.settle(hold, hold.amount)))(hold)

    # ---- budgets that change -----------------------------------------------------------------------------------------

    async def _changes(self) -> None:
        random = self._random
        while self.plan.changing:
            await asyncio.sleep(random.expovariate(1 / self.plan.changing))
            account = self.settings.seen(random.choice(self.settings.budgets))
            kind, changed = random.choice(_CHANGES)
            head = self.store.get("ledger", f"b~{account.budget}~{account.period}", "h")
            spent = 0 if head is None else int(head.properties["spent"]) + int(head.properties["reserved"])
            self.settings.change(changed(account, spent))
            self.counts[kind] += 1
            self.note("change:", kind, self.settings.seen(account.budget))

    # ---- what goes wrong ---------------------------------------------------------------------------------------------

    async def _chaos(self) -> None:
        plan, random = self.plan, self._random
        if not plan.trouble:
            return
        while True:
            await asyncio.sleep(random.expovariate(1 / plan.trouble))
            _TROUBLES[random.choices(tuple(_TROUBLES), plan.troubles)[0]](self)

    def _anyone(self) -> Instance | None:
        living = [one for one in self.instances if one.alive and not one.gate.frozen]
        return self._random.choice(living) if living else None

    def kill(self, instance: Instance) -> None:
        """End an instance as SIGKILL does; another one takes its place sometime."""
        if not instance.alive:
            return
        self.note(instance.name, "is killed")
        self.counts["kills"] += 1
        self.deaths[instance.name] = Death(self.loop.time(), self._trouble_of(instance) + SETTLING)
        instance.gate.kill()
        self.loop.at(self.loop.time() + self._random.random() * 10, self._replace)

    def _trouble_of(self, instance: Instance) -> float:
        """Return when an instance, or its way to the store, was last in trouble."""
        return self.loop.time() if instance.gate.frozen else max(instance.wire.trouble_at, instance.thawed_at)

    def _replace(self) -> None:
        if not self._stopping:
            self._start()

    def freeze(self, instance: Instance, seconds: float) -> None:
        """Stop an instance's time for so long."""
        if instance.gate.shut:
            return
        self.note(instance.name, f"freezes for {seconds:.1f} s")
        self.counts["freezes"] += 1
        instance.gate.frozen = True
        self.loop.at(self.loop.time() + seconds, self._thaw, instance)

    def _thaw(self, instance: Instance) -> None:
        if instance.gate.frozen and not instance.gate.dead:
            self.note(instance.name, "thaws")
            instance.thawed_at = self.loop.time()
            self.loop.thaw(instance.gate)

    def _trouble_kill(self) -> None:
        if (instance := self._anyone()) is not None:
            self.kill(instance)

    def _trouble_freeze(self) -> None:
        if (instance := self._anyone()) is not None:
            self.freeze(instance, self._random.uniform(5, 90))

    def _trouble_close(self) -> None:
        """An instance is scaled in: it ends in order, and may be killed before it is done."""
        instance = self._anyone()
        if instance is None or instance.closing:
            return
        self.counts["instances closed"] += 1
        instance.end = self.loop.run_in(instance.gate, self._closes(instance))
        self.loop.at(self.loop.time() + self._random.random() * 10, self._replace)

    async def _closes(self, instance: Instance) -> None:
        await self._finished(instance.tasks, "a worker")
        self.note(instance.name, "closes")
        instance.usage.flush()
        untroubled = self._stopping and not self._trouble_of(instance) > self.loop.time() - SETTLING
        await instance.ledger.aclose()
        self.note(instance.name, "has closed")
        if not untroubled:  # what it could not do in time, it left to recovery
            self.deaths[instance.name] = Death(self.loop.time(), self._trouble_of(instance) + SETTLING)

    def _trouble_outage(self) -> None:
        self.counts["outages"] += 1
        self.network.down_until = self.loop.time() + self._random.uniform(3, 12)
        self.note("the store is down until", self.network.down_until)

    def _trouble_frozen_store(self) -> None:
        self.counts["frozen stores"] += 1
        self.network.frozen_until = self.loop.time() + self._random.uniform(2, 12)
        self.note("the store is frozen until", self.network.frozen_until)

    def _trouble_trap(self) -> None:
        """The next write of an instance has a fate, and at that moment its process freezes, or dies."""
        instance, random = self._anyone(), self._random
        if instance is None:
            return
        prefix = random.choice(("s~", "s~", "b~", "sessions", OPENING, ""))
        fate = random.choice(self.plan.trap_fates)
        dies = random.random() < 0.3
        span = random.uniform(20, 90)
        spring: Callable[[], None] = (lambda: self.kill(instance)) if dies else (lambda: self.freeze(instance, span))
        instance.wire.trap = Trap(prefix, fate, spring)

    # ---- the end -----------------------------------------------------------------------------------------------------

    async def _heal(self) -> None:
        """End all trouble; let what was begun come to its end."""
        self.note("all is well")
        self._stopping = True
        self._heal_at = self.loop.time()
        self.network.calm()
        for instance in self.instances:
            instance.wire.trap = None
            self._thaw(instance)
        for instance in self.instances:
            if not instance.gate.dead:
                await self._finished(instance.tasks, "a worker")

    async def _wind_up(self) -> None:
        """Kill some, close the others; then recovery must come to its end, and requests must succeed."""
        for instance in [one for one in self.instances if one.alive]:
            if self._random.random() < self.plan.killed_at_end:
                self.kill(instance)
            elif instance.end is None:
                instance.end = self.loop.run_in(instance.gate, self._closes(instance))
        ends = [one.end for one in self.instances if one.end is not None and not one.gate.dead]
        janitor = self._start(recovers=True, works=False)
        work = RECOVERING * len(self.store.partition("ledger", "sessions"))
        deadline = self.loop.time() + self.plan.policy.ttl + 17.0 + work
        await self._finished(ends, "an end in order", deadline)
        await self._until_closed(deadline)
        await asyncio.sleep(LATEST)
        await self._finished([self.loop.run_in(janitor.gate, self._probe(janitor))], "a request when all was well")
        janitor.end = self.loop.run_in(janitor.gate, self._closes(janitor))
        deadline = self.loop.time() + self.plan.policy.ttl
        await self._finished([janitor.end], "the last one's end", deadline)
        await self._until_closed(deadline)

    async def _finished(self, tasks: Sequence[asyncio.Task[Any]], name: str, deadline: float | None = None) -> None:
        """Wait for tasks, none of which may fail or go on beyond the deadline."""
        if not tasks:
            return
        done, late = await asyncio.wait(tasks, timeout=None if deadline is None else deadline - self.loop.time())
        if late:
            self.auditor.violated(7, f"{name} took too long")
        for task in tasks:
            if task in done and (error := task.exception()) is not None:
                self.auditor.violated(7, f"{name} failed: {error!r}")

    async def _until_closed(self, deadline: float) -> None:
        while self.store.partition("ledger", "sessions"):
            # A write that lands late is a sign of life: recovery waits anew.
            if self.loop.time() > max(deadline, self._last_beat + self.plan.policy.ttl + 17.0):
                left = ", ".join(self.store.partition("ledger", "sessions"))
                self.auditor.violated(7, f"sessions are still open after {deadline - self._heal_at:.0f} s: {left}")
                return
            await asyncio.sleep(0.5)

    async def _probe(self, instance: Instance) -> None:
        """Ask each account for something that it has: it must be given, and be settled."""
        for account in self.settings.accounts().values():
            head = self.store.get("ledger", f"b~{account.budget}~{account.period}", "h")
            left = account.limit
            if head is not None:
                left -= int(head.properties["spent"]) + int(head.properties["reserved"])
            amount = max(1, left // 3)
            if account.hard and left < amount:
                continue
            self._requests += 1
            attempt = Attempt(f"q{self._requests}", instance.name, (account,), self.loop.time())
            self.auditor.asked(attempt, amount)
            try:
                hold = await instance.ledger.reserve(Intent(attempt.request_id, 1, {}), (account,), amount)
            except (BudgetExceededError, StorageUnavailableError) as error:
                self.auditor.violated(7, f"all is well, {account.budget} has {left}, but {amount} was refused: {error!r}")
                continue
            self.auditor.admitted(attempt, hold.amount)
            self.auditor.billed(attempt, amount // 2)
            self.auditor.told(attempt, amount // 2)
            instance.ledger.settle(hold, amount // 2)
            instance.usage.record([attempt.name])
            instance.ledger.ended(attempt.request_id)
        with contextlib.suppress(StorageUnavailableError):
            await instance.ledger.flush()


_CHANGES: tuple[tuple[str, Callable[[Account, int], Account]], ...] = (
    ("limits raised", lambda account, _: replace(account, limit=account.limit * 2)),
    ("limits lowered", lambda account, _: replace(account, limit=account.limit // 2)),
    ("limits lowered below what is held", lambda account, spent: replace(account, limit=min(account.limit, spent * 9 // 10))),
    ("turned hard or soft", lambda account, _: replace(account, hard=not account.hard)),
    ("periods begun", lambda account, _: replace(account, period=f"2026-{int(account.period[5:]) + 1:02}")),
)

_TROUBLES: dict[str, Callable[[World], None]] = {
    "kill": World._trouble_kill,
    "freeze": World._trouble_freeze,
    "close": World._trouble_close,
    "outage": World._trouble_outage,
    "frozen store": World._trouble_frozen_store,
    "trap": World._trouble_trap,
}

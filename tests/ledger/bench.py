"""What a schedule is played on: one instance to which things happen, another one that is well, a store, and an auditor."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Coroutine, Sequence
from random import Random

from shared.core.budgets import Account
from shared.core.errors import BudgetExceededError, StorageUnavailableError
from shared.ledger import Hold, Intent, Ledger, LedgerPolicy
from tests.ledger.invariants import Attempt, Auditor, Death
from tests.ledger.loop import DeadlockError, Gate, SimClock, VirtualLoop
from tests.ledger.settings import Settings
from tests.ledger.store import Change, Fate, Network, Store, Trap, Wire
from tests.ledger.usage import UsageLog

LIMIT = 1_000
HARD = Account("hard", "2026-11", LIMIT, hard=True)
OTHER = Account("other", "2026-11", LIMIT, hard=True)
SOFT = Account("soft", "2026-11", LIMIT, hard=False)
POLICY = LedgerPolicy(idle=3.0, ttl=15.0)
ENOUGH = 1_000.0
"""Seconds in which every schedule ends."""


class Bench:
    """A store, two instances of the ledger, an auditor. ``one`` is the instance that the schedule is about."""

    def __init__(self, *, usage_lag: float = 0.2) -> None:
        self.loop = VirtualLoop()
        self.store = Store()
        self.network = Network(self.loop, self.store, Random(1), broken=0.0)
        self.settings = Settings((HARD, OTHER, SOFT), self.loop.time)
        self.auditor = Auditor(self.store, self.settings, stale=20.0)
        self.deaths: dict[str, Death] = {}
        self.written: set[str] = set()
        self.gate = Gate("one")
        self.wire, self.usage, self.one = self._ledger("one", self.gate, usage_lag)
        self.others_gate = Gate("two")
        _, _, self.two = self._ledger("two", self.others_gate, usage_lag)

    def _ledger(self, name: str, gate: Gate, usage_lag: float) -> tuple[Wire, UsageLog, Ledger]:
        wire, clock, numbers = Wire(self.network, name), SimClock(self.loop, skew=0.0, random=Random(name)), itertools.count(1)
        usage = UsageLog(clock, self.written, lag=usage_lag, random=Random(name))
        return (
            wire,
            usage,
            gate.context.run(
                lambda: Ledger(
                    wire,
                    clock,
                    name,
                    policy=POLICY,
                    usage_until=usage.written_until,
                    make_name=lambda: f"{name}-{next(numbers)}",
                )
            ),
        )

    # ---- what goes wrong ---------------------------------------------------------------------------------------------

    def fate(self, partition: str, fate: Fate, then: Callable[[], None] = lambda: None, *, row: str = "") -> None:
        """Give the next write of the first instance to such a partition, and such a row, a fate."""
        self.wire.trap = Trap(partition, fate, then, row)

    def cut(self, partition: str) -> None:
        """Let no write of the first instance to such a partition arrive any more."""
        self.fate(partition, Fate.REQUEST_LOST, lambda: self.cut(partition))

    def kill(self) -> None:
        """Kill the first instance."""
        self.deaths["one"] = Death(self.loop.time(), self.loop.time())
        self.gate.kill()

    def freeze(self, seconds: float = 60.0, gate: Gate | None = None) -> None:
        """Freeze the first instance, or the other one."""
        gate = gate or self.gate
        gate.frozen = True
        self.loop.at(self.loop.time() + seconds, self.loop.thaw, gate)

    async def frozen(self, seconds: float = 60.0) -> None:
        """Freeze, and go on where it was afterwards: for a schedule, which lives in the first instance."""
        self.freeze(seconds)
        await asyncio.sleep(0.001)

    def when(self, seen: Callable[[Change], bool], then: Callable[[], None]) -> None:
        """Let something happen at the moment of the first such change."""

        def observe(changes: Sequence[Change]) -> None:
            if any(map(seen, changes)):
                self.store.observers.remove(observe)
                then()

        self.store.observers.append(observe)

    def down(self, seconds: float) -> None:
        """Let the store be out of reach."""
        self.network.down_until = self.loop.time() + seconds

    # ---- requests ----------------------------------------------------------------------------------------------------

    async def hold(
        self, name: str, accounts: tuple[Account, ...], amount: int, *, least: int | None = None, at: str = "one"
    ) -> Hold:
        """Reserve."""
        attempt = Attempt(name, at, accounts, self.loop.time())
        self.auditor.asked(attempt, amount)
        ledger = self.one if at == "one" else self.two
        reserving = ledger.reserve(Intent(name, 1), accounts, amount, least=least)
        try:
            hold = await (reserving if at == "one" else self.loop.run_in(self.others_gate, reserving))
        except (BudgetExceededError, StorageUnavailableError):
            ledger.ended(name)
            raise
        self.auditor.admitted(attempt, hold.amount)
        return hold

    async def refused(self, name: str, accounts: tuple[Account, ...], amount: int, *, at: str = "one") -> None:
        """See a reservation be refused for want of money."""
        with contextlib.suppress(BudgetExceededError):
            hold = await self.hold(name, accounts, amount, at=at)
            self.billed(hold, amount)
            message = f"{amount} should have been refused"
            raise AssertionError(message)

    async def unreachable(self, name: str, accounts: tuple[Account, ...], amount: int) -> None:
        """See a reservation fail because the store can't be reached."""
        with contextlib.suppress(StorageUnavailableError):
            await self.hold(name, accounts, amount)
            message = "the store should have been out of reach"
            raise AssertionError(message)

    def billed(self, hold: Hold, amount: int) -> None:
        """Let the provider bill."""
        self.auditor.billed(self.auditor.attempts[f"{hold.intent.request_id}~1"], amount)

    def settle(self, hold: Hold, charged: int, *, billed: int | None = None, at: str = "one") -> None:
        """Be billed, settle, and write the usage down."""
        self.billed(hold, charged if billed is None else billed)
        self.auditor.told(self.auditor.attempts[f"{hold.intent.request_id}~1"], charged)
        gate, ledger = (self.gate, self.one) if at == "one" else (self.others_gate, self.two)
        gate.context.copy().run(ledger.settle, hold, charged)
        self.ended(hold, at=at)

    def ended(self, hold: Hold, *, at: str = "one") -> None:
        """Let its request have ended."""
        name = hold.intent.request_id
        if at == "one":
            self.usage.record([f"{name}~1"])
            self.one.ended(name)
        else:
            self.written.add(f"{name}~1")
            self.two.ended(name)

    async def recover(self) -> None:
        """Let the second instance look for dead sessions, long enough to tell that they are."""
        for _ in range(4):
            with contextlib.suppress(StorageUnavailableError):
                for found in await self.two.recover():
                    self.written |= {f"{attempt.request_id}~{attempt.attempt}" for attempt in found.attempts}
                    await self.two.finish(found)
            await asyncio.sleep(POLICY.ttl / 2)

    def recovering(self) -> asyncio.Task[None]:
        """Let the second instance do so meanwhile."""
        return self.loop.run_in(self.others_gate, self.recover())

    # ---- playing -----------------------------------------------------------------------------------------------------

    def play(self, schedule: Callable[[Bench], Coroutine[None, None, None]]) -> list[str]:
        """Live through a schedule and wind up; return what went wrong: everything must be settled, nothing violated."""
        try:
            self.loop.run_until_complete(self._live(schedule))
        except DeadlockError as error:
            self.auditor.violated(7, str(error))
        finally:
            self.loop.bury()
        left = sorted(self.store.partition("ledger", "sessions"))
        return [*self.auditor.violations, *self.loop.errors, *[f"the session {session} is never closed" for session in left]]

    async def _live(self, schedule: Callable[[Bench], Coroutine[None, None, None]]) -> None:
        self.loop.run_in(self.gate, self.usage.run())
        await self._end(self.loop.run_in(self.gate, schedule(self)))
        if not self.gate.dead:
            self.usage.flush()
            await self._end(self.loop.run_in(self.gate, self.one.aclose()))
        await self.loop.run_in(self.others_gate, self.two.aclose())
        await self.recovering()
        await asyncio.sleep(150)  # whatever is late has landed
        await self.recovering()
        self.auditor.close(self.deaths, usage=self.written)

    async def _end(self, task: asyncio.Task[None]) -> None:
        """Wait until a task of the first instance has ended, or that has."""
        deadline = self.loop.time() + ENOUGH
        while not task.done() and not self.gate.dead and self.loop.time() < deadline:
            await asyncio.sleep(0.25)
        if task.done() and (error := task.exception()) is not None:
            self.auditor.violated(7, f"the schedule failed: {error!r}")
        elif not task.done() and not self.gate.dead:
            self.auditor.violated(7, "it does not come to an end")

"""A session: one stretch of a process's life as a writer, with its journal and its leases."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Final

from shared.core.budgets import Account
from shared.core.errors import BudgetExceededError, StorageUnavailableError
from shared.ledger import rows
from shared.ledger.journal import Journal, SessionLostError
from shared.ledger.leases import Lease
from shared.ledger.policy import LedgerPolicy
from shared.ledger.recovery import forget
from shared.ports import Clock, EntityTable
from shared.tracing import serve_nobody

SPREAD: Final = 0.05
"""Seconds between looks at an account whose money others hold at the moment."""
FRESH: Final = 0.5
"""Seconds for which an account that was seen to be spent is not looked at again."""


class Session:
    """One session. It is ``draining`` when another one has taken its place and only its calls in flight are left."""

    def __init__(
        self,
        table: EntityTable,
        clock: Clock,
        name: str,
        *,
        instance: str,
        policy: LedgerPolicy,
        usage_until: Callable[[], float],
    ) -> None:
        self.name = name
        self.journal = Journal(table, clock, name, instance=instance, policy=policy, usage_until=usage_until)
        self.leases: dict[rows.AccountKey, Lease] = {}
        self.opened_at = self.used_at = clock.monotonic()
        self.draining = False
        self.holds = 0
        self.busy = 0  # reservations on their way
        self.unwritten = 0  # requests with attempts here whose usage is not written
        self._table = table
        self._clock = clock
        self._policy = policy
        self._waiting: list[_Waiter] = []
        self._round = 0
        self._pump: asyncio.Task[None] | None = None
        self._asking: dict[Lease, asyncio.Task[None]] = {}
        self._failures: dict[rows.AccountKey, int] = {}
        self._prefetching: dict[rows.AccountKey, asyncio.Task[None]] = {}

    @property
    def lost(self) -> bool:
        """Say whether recovery has taken it over."""
        return self.journal.lost

    def lose(self) -> None:
        """Take note that recovery has taken it over: a lease was found closed."""
        self.journal.lose()

    def lease(self, account: Account) -> Lease:
        """Return the lease on an account, marked in the session's partition before anything else is."""
        key = rows.AccountKey(account.budget, account.period)
        lease = self.leases.get(key)
        if lease is None:
            lease = self.leases[key] = Lease(account, self.name, table=self._table, clock=self._clock, policy=self._policy)
            self.journal.put(
                rows.marker_row(key), {"budget": key.budget, "period": key.period}, urgent=account.hard, landed=lease.mark
            )
        elif lease.account != account:
            lease.account = account  # the limit was changed, or the budget turned from soft to hard
        return lease

    def holder(self, account: Account) -> Lease:
        """Return the lease an amount was held on. What is known of the account by now stays: a hold is older than that."""
        return self.leases.get(rows.AccountKey(account.budget, account.period)) or self.lease(account)

    async def take(self, accounts: Sequence[Account], amount: int, *, least: int, deadline: float) -> int:
        """Promise ``amount`` (or what there is, but at least ``least``) on every account at once; return how much.

        Waits until ``deadline`` (monotonic) for money that others hold. Raise `BudgetExceededError`,
        `StorageUnavailableError` or `SessionLostError`.
        """
        leases = tuple([self.lease(account) for account in accounts])
        waiter = _Waiter(leases, amount, least, self._clock.monotonic(), deadline, self._round)
        if not self._contended(leases) and self._served(waiter):
            return waiter.outcome()
        self._waiting.append(waiter)
        waiter.done = asyncio.get_running_loop().create_future()
        if self._pump is None or self._pump.done():
            self._pump = asyncio.get_running_loop().create_task(self._ask(), name="switchyard-ledger-leases")
        try:
            async with asyncio.timeout(deadline - self._clock.monotonic() + self._policy.grace):
                await waiter.done
        except BaseException as error:
            if waiter.taken is not None:
                waiter.give_back()
            elif waiter in self._waiting:
                self._waiting.remove(waiter)
            if isinstance(error, TimeoutError):
                if waiter.short is not None:
                    raise _refusal(waiter.short) from error
                message = "The ledger could not be reached in time to hold this request's cost. Try again."
                raise StorageUnavailableError(message, retry_after=1.0) from error
            raise
        return waiter.outcome()

    def _contended(self, leases: Sequence[Lease]) -> bool:
        """Say whether somebody waits for the same money: who comes later waits behind. Other budgets' calls don't."""
        return bool(self._waiting) and any(not waiter.leases_apart(leases) for waiter in self._waiting)

    def serve(self) -> None:
        """Give those who wait longest what there is for them: to be called when a settlement has freed something."""
        served = 0
        for waiter in self._waiting:
            if not self._served(waiter):
                break
            served += 1
        if served:
            del self._waiting[:served]

    def _serve_all(self) -> int:
        """Look at everybody who waits, also behind one who can't be served yet; return how many were told something."""
        left = [waiter for waiter in self._waiting if not self._served(waiter)]
        served = len(self._waiting) - len(left)
        self._waiting = left
        return served

    def _served(self, waiter: _Waiter) -> bool:
        """Serve one who waits, if it can be told what to."""
        if self.lost:
            return waiter.refuse(SessionLostError())
        # None is hard any more when the budget was turned soft meanwhile.
        affordable = min([lease.available for lease in waiter.leases if lease.account.hard], default=waiter.amount)
        if affordable >= waiter.amount:
            return waiter.take(waiter.amount)
        if waiter.round < self._round and affordable >= waiter.least and waiter.leases_apart(self._asking):
            return waiter.take(affordable)
        now = self._clock.monotonic()
        for lease in waiter.leases:
            if not lease.account.hard or lease.available >= waiter.least:
                continue
            # Only a look at the head since it was asked, or just before, can refuse: else it is the store that is late.
            known = lease.seen_at >= waiter.asked_at - FRESH
            if known and not lease.could_get(waiter.least):
                waiter.short = lease
                if now >= waiter.deadline or lease.out_of_money(waiter.least):
                    return waiter.refuse(_refusal(lease))
        return False

    async def _ask(self) -> None:
        """Ask the heads for what is missing, as long as somebody waits. A head that does not answer holds up no other."""
        serve_nobody()
        loop = asyncio.get_running_loop()
        while self._waiting:
            self._round += 1
            for lease, (amount, least) in self._needs().items():
                if lease not in self._asking:
                    task = loop.create_task(self._more(lease, amount, least), name="switchyard-ledger-more")
                    self._asking[lease] = task
            if self._asking:
                await asyncio.wait(self._asking.values(), timeout=SPREAD)
            late = {lease: task for lease, task in self._asking.items() if not task.done()}
            self._asking, done = late, [task for task in self._asking.values() if task.done()]
            for task in done:
                task.result()
            self._round += 1
            if not self._serve_all() and not late:
                await self._clock.sleep(SPREAD * (1 + self._clock.draw()))
                self._serve_all()
            await asyncio.sleep(0)

    def _needs(self) -> dict[Lease, tuple[int, int]]:
        """Return who is short of money, with the smallest amount that is waited for, and the least of it that would do."""
        needs: dict[Lease, tuple[int, int]] = {}
        wanted: dict[Lease, int] = {}
        for waiter in self._waiting:
            for lease in waiter.leases:
                if lease.account.hard and lease.available < waiter.amount:
                    amount, least = needs.get(lease, (waiter.amount, waiter.least))
                    needs[lease] = min(amount, waiter.amount), min(least, waiter.least)
                    wanted[lease] = wanted.get(lease, 0) + waiter.amount
        for lease, amount in wanted.items():
            lease.wanted = amount
        return needs

    async def _more(self, lease: Lease, amount: int, least: int) -> None:
        try:
            if lease.marked or await self.journal.written(rows.marker_row(lease.key)):
                await lease.more(amount, least=least)
            else:
                self.lose()
        except SessionLostError:
            self.lose()
        except StorageUnavailableError:
            failures = self._failures[lease.key] = self._failures.get(lease.key, 0) + 1
            await self._clock.sleep(self._policy.backoff(failures, self._clock.draw()))
        else:
            self._failures.pop(lease.key, None)

    def prefetch(self, leases: Sequence[Lease]) -> None:
        """Start asking for more where what is left won't last, so that the next call need not wait for it."""
        for lease in leases:
            if lease.account.hard and lease.running_low and lease.key not in self._prefetching:
                task = asyncio.get_running_loop().create_task(self._prefetch(lease), name="switchyard-ledger-prefetch")
                self._prefetching[lease.key] = task

    async def _prefetch(self, lease: Lease) -> None:
        try:
            await lease.more(1 + lease.available, least=1)
        except SessionLostError:
            self.lose()
        except StorageUnavailableError:
            pass
        finally:
            self._prefetching.pop(lease.key, None)

    # ---- housekeeping ------------------------------------------------------------------------------------------------

    @property
    def worn(self) -> bool:
        """Say whether it has served so long, or written so much, that recovering it would take long."""
        age = self._clock.monotonic() - self.opened_at
        return age >= self._policy.rotate_after or self.journal.rows_put >= self._policy.rotate_rows

    @property
    def unused(self) -> bool:
        """Say whether nobody has needed it for a while."""
        idle = self._clock.monotonic() - self.used_at >= self._policy.idle
        return idle and not self.holds and not self.busy and self.journal.quiet

    async def fold(self) -> None:
        """Have the heads count what is settled; raise `StorageUnavailableError`."""
        for lease in list(self.leases.values()):
            if lease.marked and lease.used != lease.folded and not self.lost:
                await self._fold(lease, keep=lease.available)

    async def _fold(self, lease: Lease, *, keep: int) -> None:
        try:
            await lease.fold(keep=keep)
        except SessionLostError:
            self.lose()

    async def tend(self) -> None:
        """Fold and give back what is due, keep the heartbeat; close leases nobody uses any more. Errors wait for next time."""
        now = self._clock.monotonic()
        for lease in list(self.leases.values()):
            unused = self.draining or now - lease.taken_at >= self._policy.tick
            due = now - lease.folded_at >= self._policy.fold_every and lease.used != lease.folded
            keep = 0 if self.draining else lease.standby if unused else lease.needed
            if (due or (unused and lease.is_off(keep))) and lease.marked and not self.lost:
                with contextlib.suppress(StorageUnavailableError):
                    await self._fold(lease, keep=keep)
        if now - self.journal.last_commit >= self._policy.ttl / 3 and not self.lost:
            await self.journal.beat()

    @property
    def finished(self) -> bool:
        """Say whether it is draining and nothing is left but to close it. What a lost one used is for recovery to count."""
        return self.draining and not self.lost and not self.holds and not self.busy and self.journal.quiet

    async def close(self) -> None:
        """Close leases, then the fence, then forget the session; raise `SessionLostError` or `StorageUnavailableError`."""
        if tasks := self._tasks():
            await asyncio.wait(tasks)
        if self.journal.opened:
            for lease in self.leases.values():
                await lease.close()
            await self.journal.close()
            await forget(self._table, self.name, self._clock.now())

    def _tasks(self) -> list[asyncio.Task[None]]:
        return [*self._prefetching.values(), *self._asking.values(), *([] if self._pump is None else [self._pump])]

    async def stop(self) -> None:
        """Stop at once; what is unfinished is left to recovery."""
        tasks = self._tasks()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.journal.stop()


@dataclass(eq=False, slots=True)
class _Waiter:
    """A reservation that waits for money. ``round`` is the round of asking it came in."""

    leases: tuple[Lease, ...]
    amount: int
    least: int
    asked_at: float
    deadline: float
    round: int
    done: asyncio.Future[None] | None = None
    taken: int | None = None
    refusal: Exception | None = None
    short: Lease | None = None  # where a look at the head, since it was asked, has found too little

    def leases_apart(self, others: Collection[Lease]) -> bool:
        """Say whether none of its leases is among others."""
        return not any([lease in others for lease in self.leases])  # noqa: C419  (a list is faster for one or two)

    def take(self, amount: int) -> bool:
        """Take the money."""
        self.taken = amount
        for lease in self.leases:
            lease.take(amount)
        return self._end()

    def refuse(self, error: Exception) -> bool:
        """Get none."""
        self.refusal = error
        return self._end()

    def give_back(self) -> None:
        """Return what was taken: nothing was sent, nothing was written."""
        for lease in self.leases:
            lease.give(self.taken or 0, 0)
            lease.landed(self.taken or 0, 0)

    def outcome(self) -> int:
        """Return what was taken, or raise why nothing was."""
        if self.taken is None:
            raise self.refusal or SessionLostError()
        return self.taken

    def _end(self) -> bool:
        if self.done is not None and not self.done.done():
            self.done.set_result(None)
        return True


def _refusal(lease: Lease) -> BudgetExceededError:
    message = (
        f"The budget {lease.account.budget} does not cover this request in the period {lease.account.period}. "
        "Ask its administrator for more, wait for the next period, or make a smaller request (`max_tokens`)."
    )
    return BudgetExceededError(message, budget=lease.account.budget)

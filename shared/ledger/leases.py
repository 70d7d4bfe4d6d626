"""A session's lease on an account: the part of its money this session may promise without asking anybody.

Everything here is about one row in the account's partition, and the head it is changed with in one transaction. Such a write is
sent again, same content and same ETags, until it is answered; a conflict is told from one's own success by the lease's token.
"""

from __future__ import annotations

import asyncio
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from shared.core.budgets import Account, Balance, slice_of
from shared.core.errors import StorageUnavailableError
from shared.ledger import rows
from shared.ledger.journal import CONFLICTS, SessionLostError
from shared.ledger.policy import LedgerPolicy
from shared.ports import Action, Clock, Entity, EntityTable, Op

NEVER: Final = float("-inf")

Decide = Callable[[rows.Head], int | None]
"""How much to add to what a lease was granted (below 0: give back); None to leave it as it is."""


@dataclass(frozen=True, slots=True)
class _Move:
    """A transaction of lease and head that was sent, and what is true once it is known to have happened."""

    ops: list[Op]
    token: str
    after: rows.Head
    delta: int
    used: int
    closing: bool


class Lease:
    """What one session holds of one account. Amounts are nano-USD.

    ``granted`` is the session's for as long as it lives; ``used`` of it is settled, ``held`` is promised to calls in flight;
    ``unsettled`` is what settlements freed that have not landed yet: it may be promised again, but not given back. The part
    ``folded`` of ``used`` is what the head counts as spent.
    """

    def __init__(self, account: Account, session: str, *, table: EntityTable, clock: Clock, policy: LedgerPolicy) -> None:
        self.account = account
        self.key = rows.AccountKey(account.budget, account.period)
        self.granted = 0
        self.used = 0
        self.held = 0
        self.unsettled = 0
        self.folded = 0
        self.wanted = 0
        self.marked = False
        self.closed = False
        self.seen: Balance | None = None
        self.seen_at = NEVER
        self.open_leases = 0
        self.taken_at = clock.monotonic()
        self.folded_at = clock.monotonic()
        self.transactions = 0
        self.conflicts = 0
        self._session = session
        self._table = table
        self._clock = clock
        self._policy = policy
        self._stored = 0  # what the lease's row says was granted: `granted`, but while some is being given back
        self._rate = 0.0
        self._usual = 0  # what calls lately took, the larger ones rather
        self._rate_at = clock.monotonic()
        self._token = ""
        self._tokens = itertools.count(1)
        self._etag = ""
        self._moving = asyncio.Lock()
        self._unanswered: _Move | None = None

    @property
    def available(self) -> int:
        """What may be promised now."""
        return self.granted - self.used - self.held

    def is_off(self, keep: int) -> bool:
        """Say whether what is granted is not what is used, promised and to be kept; for a soft account, used and promised."""
        return self._surplus(keep, self._spare(self.seen.left if self.seen else 0)) != 0

    @property
    def standby(self) -> int:
        """What to keep while nobody calls, so that the next call finds its money here: little of what is left, for a while."""
        idle = self._clock.monotonic() - self.taken_at >= self._policy.idle
        return 0 if idle or self.seen is None or self._usual > self._spare(self.seen.left) else self._usual

    @property
    def needed(self) -> int:
        """What to keep while calls come: what they will take soon, or would be granted now. Freed money is not to pile up."""
        if self.seen is None:
            return self.available
        now = self._clock.monotonic()
        soon = self._rate * math.exp((self._rate_at - now) / self._policy.horizon) * self._policy.horizon
        part = self.seen.left * self._policy.share / (self.open_leases + 1)
        return min(self.available, max(self._usual, int(soon), int(part)))

    def _spare(self, left: int) -> int:
        """Return how much of what is left nobody will miss if a lease keeps it unused."""
        return int(left * self._policy.standby / (self.open_leases + 1))

    def out_of_money(self, need: int) -> bool:
        """Say whether so much can't become free any more: the account is spent, not just held by calls in flight."""
        return self.seen is not None and self.account.limit - self.seen.spent - (self.used - self.folded) < need

    def could_get(self, need: int) -> bool:
        """Say whether the head, as last seen, has what is missing."""
        return self.seen is not None and self.seen.left >= need - self.available

    def mark(self) -> None:
        """Take note that the session's partition tells of this lease."""
        self.marked = True

    def take(self, amount: int) -> None:
        """Promise an amount to a call."""
        now = self._clock.monotonic()
        self.held += amount
        self._usual = max(amount, self._usual - self._usual // 8)
        self._rate = self._rate * math.exp((self._rate_at - now) / self._policy.horizon) + amount / self._policy.horizon
        self._rate_at = self.taken_at = now

    def give(self, amount: int, charged: int) -> None:
        """End a promise: of ``amount``, ``charged`` is used. What that frees may leave the session once `landed` is called."""
        self.held -= amount
        self.used += charged
        self.unsettled += max(0, amount - charged)

    def landed(self, amount: int, charged: int) -> None:
        """Take note that such a settlement is in the store."""
        self.unsettled -= max(0, amount - charged)

    # ---- money from and to the head ----------------------------------------------------------------------------------

    async def more(self, need: int, *, least: int) -> None:
        """Ask the head for enough to promise ``need``, or at least ``least``, and for what will be needed soon.

        Afterwards ``seen`` tells what was left. Raise `SessionLostError` and `StorageUnavailableError` (nothing was asked).
        """
        async with self._moving:
            if self.available < need:
                await self._move(lambda head: self._wish(head, need, least))

    def _wish(self, head: rows.Head, need: int, least: int) -> int | None:
        left = self.account.limit - head.spent - head.reserved
        short, least_short = need - self.available, least - self.available
        if short <= 0:
            return None
        if left < short:
            return left if 0 < least_short <= left else None
        now = self._clock.monotonic()
        rate = self._rate * math.exp((self._rate_at - now) / self._policy.horizon)
        soon = max(rate, (self.wanted - self.available) / self._policy.horizon)
        others = max(0, head.open - (1 if self._etag else 0))
        return slice_of(short, left=left, rate=soon, open_leases=others, horizon=self._policy.horizon, share=self._policy.share)

    @property
    def running_low(self) -> bool:
        """Say whether to ask for more before it is needed: there is a demand, and enough left that asking hoards nothing."""
        if self.seen is None or not self._etag:
            return False
        now = self._clock.monotonic()
        soon = self._rate * math.exp((self._rate_at - now) / self._policy.horizon) * self._policy.horizon
        plenty = soon <= self.seen.left * self._policy.share / (self.open_leases + 1)
        return plenty and self.available < soon * self._policy.prefetch

    async def fold(self, *, keep: int) -> None:
        """Have the head count as spent what is used, and give back what is not needed but for ``keep``, or ask for that.

        A soft account is granted just what is used and held: nothing is kept from anybody.
        """

        def decide(head: rows.Head) -> int:
            return self._surplus(keep, self._spare(self.account.limit - head.spent - head.reserved))

        async with self._moving:
            await self._move(decide, fold=True)

    def _surplus(self, keep: int, spare: int) -> int:
        promised = self.used + self.held
        if not self.account.hard:
            return promised + self.unsettled - self.granted
        if self.granted < promised:  # an overrun: it is spent, whatever the limit says
            return promised - self.granted
        if 0 < keep - self.available <= spare:
            return keep - self.available
        # What was freed and promised again is in both `held` and `unsettled`: that is no reason to ask for more.
        return -max(0, self.granted - promised - self.unsettled - keep)

    async def close(self) -> None:
        """End the lease: the head counts what was used and gets the rest back. Only when nothing is held or unsettled.

        Done once: a session that could close only some of its leases asks all of them again.
        """
        async with self._moving:
            if self._unanswered is not None or (not self.closed and (self._etag or self.used)):
                await self._move(lambda _: self.used - self.granted, fold=True, closing=True)

    async def _move(self, decide: Decide, *, fold: bool = False, closing: bool = False) -> None:
        conflicts = 0
        if self._unanswered is not None:
            await self._answered(self._unanswered)
        while not self.closed:
            head = await self._head()
            delta = decide(head)
            if delta is None or (delta == 0 and not closing and not (fold and self.used != self.folded)):
                return
            if await self._moved(head, delta, closing=closing):
                return
            conflicts += 1
            self.conflicts += 1
            await self._clock.sleep(self._policy.backoff(conflicts, self._clock.draw()))

    async def _head(self) -> rows.Head:
        entity = await self._table.get(rows.account_partition(self.key), rows.HEAD)
        head = rows.Head(self.account.limit) if entity is None else rows.head(entity)
        self._see(head)
        return head

    def _see(self, head: rows.Head) -> None:
        self.seen = Balance(self.account.limit, head.spent, head.reserved)
        self.seen_at = self._clock.monotonic()
        self.open_leases = head.open

    async def _moved(self, head: rows.Head, delta: int, *, closing: bool) -> bool:
        """Change head and lease in one transaction; return whether that happened."""
        used, fresh = self.used, not self._etag
        token = f"{self._session}.{next(self._tokens)}"
        after = rows.Head(
            self.account.limit,
            spent=head.spent + used - self.folded,
            reserved=head.reserved + delta - (used - self.folded),
            open=head.open + (1 if fresh else 0) - (1 if closing else 0),
            etag=head.etag,
        )
        lease = rows.LeaseRow(self._stored + delta, used, closing, token, self._etag)
        ops = [
            Op(Action.REPLACE if head.etag else Action.INSERT, after.entity(self.key)),
            Op(Action.INSERT if fresh else Action.REPLACE, lease.entity(self.key, self._session)),
        ]
        self.granted += min(delta, 0)  # what goes back must not be promised while it is on its way
        self._unanswered = _Move(ops, token, after, delta, used, closing)
        return await self._answered(self._unanswered)

    async def _answered(self, move: _Move) -> bool:
        """Send a move until it is known what came of it, and take note of that; return whether it happened.

        Whoever is cancelled meanwhile leaves it to the next one: it may have happened, so nothing else can be asked before.
        """
        etag = await self._send(move.ops, move.token)
        self._unanswered = None
        if etag is None:
            self.granted -= min(move.delta, 0)
            return False
        self.granted += max(move.delta, 0)
        self._stored += move.delta
        self._etag, self._token = etag, move.token
        self.folded = move.used
        self.closed = move.closing
        self.folded_at = self._clock.monotonic()
        self._see(move.after)
        return True

    async def _send(self, ops: list[Op], token: str) -> str | None:
        """Write until it is known what came of it; return the lease's new ETag, None when somebody else changed the head."""
        failures = 0
        while True:
            self.transactions += 1
            try:
                return (await self._table.transact(ops))[1]
            except CONFLICTS:
                return await self._after_conflict(token)
            except StorageUnavailableError:
                failures += 1
                await self._clock.sleep(self._policy.backoff(failures, self._clock.draw()))

    async def _after_conflict(self, token: str) -> str | None:
        failures = 0
        while True:
            try:
                entity = await self._table.get(rows.account_partition(self.key), rows.lease_row(self._session))
            except StorageUnavailableError:
                failures += 1
                await self._clock.sleep(self._policy.backoff(failures, self._clock.draw()))
                continue
            return self._mine(entity, token)

    def _mine(self, entity: Entity | None, token: str) -> str | None:
        stored = None if entity is None else rows.lease(entity)
        if stored is not None and stored.token == token:
            return stored.etag
        if ("" if stored is None else stored.token) != self._token:
            raise SessionLostError  # recovery has closed it, or has put a closed one where none was
        return None

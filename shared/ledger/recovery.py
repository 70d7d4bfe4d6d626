"""Recovery: settling what a process that died, or was frozen for too long, has left open. Runs on any instance, or on several.

Order matters. First the fence, so that nothing of the session can land any more; then every pending attempt is charged at its
estimate; then each lease is closed, by what the rows say; then the session is forgotten. Every step is safe to do twice and to
leave half done: the next round goes on.

When to begin is decided by time, and by nothing else: a session taken over too early is only charged estimates, which its owner
corrects. So no clock's error can cost money.
"""

from __future__ import annotations

import contextlib
import logging
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import Final

from shared.core.errors import StorageUnavailableError
from shared.ledger import rows
from shared.ledger.journal import CONFLICTS
from shared.ledger.policy import LedgerPolicy
from shared.ports import MAX_TRANSACTION, Action, Clock, Entity, EntityExistsError, EntityNotFoundError, EntityTable, Op

USAGE_MARGIN: Final = 10.0
"""Seconds before the fence's mark from which usage is looked at again: the mark is set between two steps of a request."""
TOMBSTONE: Final = "tombstone"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class RecoveredSession:
    """What recovery found: the attempts whose usage may not be written yet, and those it charged at their estimate."""

    session: str
    attempts: tuple[rows.IntentRow, ...] = ()
    charged: int = 0


@dataclass(slots=True)
class _Left:
    """What a session has left in its partition."""

    intents: list[rows.IntentRow] = field(default_factory=list)
    accounts: set[rows.AccountKey] = field(default_factory=set)


class Recovery:
    """Looks for dead sessions and settles them. Remembers what it saw, to tell a silent session from a wrong clock."""

    def __init__(self, table: EntityTable, clock: Clock, *, instance: str, policy: LedgerPolicy) -> None:
        self._table = table
        self._clock = clock
        self._instance = instance
        self._policy = policy
        self._seen: dict[str, tuple[str, float]] = {}  # a session's fence ETag, and since when it has been that

    async def run(self, *, own: frozenset[str]) -> list[RecoveredSession]:
        """Settle every session that is dead; ``own`` are those this process writes. Raise `StorageUnavailableError`."""
        listed = [entity.row async for entity in self._table.query(rows.SESSIONS)]
        self._seen = {name: seen for name, seen in self._seen.items() if name in listed}
        found = []
        for session in listed:
            try:
                recovered = await self.recover(session) if session not in own and await self._dead(session) else None
            except rows.DamagedRowError as error:  # the others' money must not wait until somebody has repaired it
                _log.error("The session %s can't be recovered: %s", session, error.message)
                continue
            if recovered is not None:
                found.append(recovered)
        return found

    async def _dead(self, session: str) -> bool:
        entity = await self._table.get(rows.session_partition(session), rows.FENCE)
        now = self._clock.monotonic()
        etag = "" if entity is None else entity.etag
        before = self._seen.get(session)
        if before is None or before[0] != etag:
            self._seen[session] = before = (etag, now)
        if now - before[1] >= self._policy.ttl:
            return True
        if entity is None:
            return False
        fence = rows.fence(entity)
        silent = self._clock.now() - fence.beat
        return fence.state is not rows.SessionState.OPEN or silent >= self._policy.ttl + self._policy.skew

    async def recover(self, session: str) -> RecoveredSession | None:
        """Settle one session; None if it is alive after all. Raise `StorageUnavailableError`: the next round goes on then."""
        fence = await self._fenced(session)
        if fence is None:
            return None
        left = await self._left(session)
        charged = 0
        if fence.state is not rows.SessionState.CLOSED:
            charged = await self._charge(session, left)
            totals: dict[rows.AccountKey, int] = defaultdict(int)
            for intent in left.intents:
                for account in intent.accounts:
                    totals[account] += intent.charged
            for account in sorted(left.accounts | set(totals)):
                await self._close_lease(session, account, totals[account])
        return RecoveredSession(session, _unwritten(left.intents, fence.usage_until), charged)

    async def finish(self, session: str) -> None:
        """Close a session that was recovered, after its usage has been written down."""
        entity = await self._table.get(rows.session_partition(session), rows.FENCE)
        if entity is not None:
            fence = rows.fence(entity)
            if fence.state is rows.SessionState.FENCED:
                with contextlib.suppress(*CONFLICTS):  # another recovery was first, with the same
                    closed = replace(fence, state=rows.SessionState.CLOSED, token=self._token())
                    await self._table.replace(closed.entity(session))
        await forget(self._table, session, self._clock.now())
        self._seen.pop(session, None)

    # ---- the steps ---------------------------------------------------------------------------------------------------

    async def _fenced(self, session: str) -> rows.Fence | None:
        """Make sure that nothing of the session can land any more; return its fence, None if it is alive after all."""
        partition = rows.session_partition(session)
        entity = await self._table.get(partition, rows.FENCE)
        if entity is None:  # it died before its first write, which may still be on its way
            state = rows.SessionState.FENCED
            fence = rows.Fence(state, self._token(), self._clock.now(), TOMBSTONE, self._clock.now())
            try:
                return replace(fence, etag=await self._table.insert(fence.entity(session)))
            except EntityExistsError:
                return None
        fence = rows.fence(entity)
        if fence.state is not rows.SessionState.OPEN:
            return fence
        fenced = replace(fence, state=rows.SessionState.FENCED, token=self._token())
        try:
            return replace(fenced, etag=await self._table.replace(fenced.entity(session)))
        except CONFLICTS:
            return None

    async def _left(self, session: str) -> _Left:
        left = _Left()
        async for entity in self._table.query(rows.session_partition(session)):
            if entity.row.startswith(rows.INTENT):
                left.intents.append(rows.intent(entity))
            elif entity.row.startswith(rows.LEASE):
                left.accounts.add(rows.marked(entity))
        return left

    async def _charge(self, session: str, left: _Left) -> int:
        """Charge what is pending at its estimate. Another recovery that does the same writes the same."""
        partition = rows.session_partition(session)
        pending = [place for place, intent in enumerate(left.intents) if intent.state is rows.IntentState.PENDING]
        for at in range(0, len(pending), MAX_TRANSACTION):
            group = pending[at : at + MAX_TRANSACTION]
            ops = []
            for place in group:
                intent = left.intents[place]
                left.intents[place] = intent = replace(intent, state=rows.IntentState.CHARGED, charged=intent.estimate)
                ops.append(Op(Action.REPLACE, Entity(partition, intent.row, intent.properties(), intent.etag)))
            with contextlib.suppress(*CONFLICTS):
                await self._table.transact(ops)
                continue
            await self._check_charged(session)
        return len(pending)

    async def _check_charged(self, session: str) -> None:
        """See that whoever changed the rows first has charged them all; if only some, the next round goes on."""
        async for entity in self._table.query(rows.session_partition(session), start=rows.INTENT, end="r~~"):
            if rows.intent(entity).state is rows.IntentState.PENDING:
                message = f"The session {session} is being recovered by another instance."
                raise StorageUnavailableError(message)

    async def _close_lease(self, session: str, key: rows.AccountKey, total: int) -> None:
        partition = rows.account_partition(key)
        while True:
            stored = await self._table.get(partition, rows.lease_row(session))
            lease = rows.LeaseRow(0, 0, False, "") if stored is None else rows.lease(stored)  # noqa: FBT003
            if lease.closed:
                return
            entity = await self._table.get(partition, rows.HEAD)
            head = rows.Head(0) if entity is None else rows.head(entity)
            after = replace(
                head,
                spent=head.spent + total - lease.folded,
                reserved=head.reserved - (lease.granted - lease.folded),
                open=head.open - (0 if stored is None else 1),
            )
            closed = rows.LeaseRow(total, total, closed=True, token=self._token(), etag=lease.etag)
            # Where there is no lease, a closed one keeps its first write, if that is still on its way, from landing.
            ops = [Op(Action.INSERT if stored is None else Action.REPLACE, closed.entity(key, session))]
            if after != head:
                ops.append(Op(Action.INSERT if entity is None else Action.REPLACE, after.entity(key)))
            try:
                await self._table.transact(ops)
            except CONFLICTS:
                continue
            return

    def _token(self) -> str:
        return f"{self._instance}:{self._clock.draw():.17f}"


async def forget(table: EntityTable, session: str, moment: float) -> None:
    """Take a closed session off the list of those that recovery looks at, noting the day it was closed."""
    with contextlib.suppress(EntityExistsError):
        await table.insert(Entity(rows.CLOSED, rows.closed_row(session, moment), {"session": session}))
    with contextlib.suppress(EntityNotFoundError):
        await table.delete(rows.SESSIONS, session)


def _unwritten(intents: list[rows.IntentRow], usage_until: float) -> tuple[rows.IntentRow, ...]:
    """Return the attempts of every request whose usage may be missing: it was in flight, or ended just before the end."""
    open_requests = {
        intent.request_id
        for intent in intents
        if intent.state is rows.IntentState.CHARGED or intent.at >= usage_until - USAGE_MARGIN
    }
    return tuple(intent for intent in intents if intent.request_id in open_requests)

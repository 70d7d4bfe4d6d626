"""A session's journal: one chain of transactions through which everything a session writes in its own partition goes.

Each transaction replaces the session's fence row by its ETag, under a new token, and carries up to 99 rows in the order they
were put: a row that was put earlier lands earlier or together. So what a settlement frees may be promised again at once: the
intent that uses it can't land without the settlement. And once recovery has changed the fence, nothing can land any more.

A write that was not answered is sent again, same content and same ETag, until it is answered. If that says the fence has
changed, the token in it tells whether the change was ours. The fence's ETag is never taken over with anybody else's token.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from shared.core.errors import StorageUnavailableError
from shared.ledger import rows
from shared.ledger.policy import LedgerPolicy
from shared.ports import (
    MAX_TRANSACTION,
    Action,
    Clock,
    Entity,
    EntityChangedError,
    EntityExistsError,
    EntityNotFoundError,
    EntityTable,
    Op,
    Value,
)
from shared.tracing import serve_nobody

CONFLICTS: Final = (EntityChangedError, EntityExistsError, EntityNotFoundError)
"""What a conditional write is answered when somebody else was first: it did not happen and never will."""


class SessionLostError(Exception):
    """Recovery has taken the session over: nothing it writes can land any more."""


@dataclass(slots=True)
class _Queued:
    """A row's latest content that waits to be written, and who wants to know how that ends."""

    properties: Mapping[str, Value]
    landed: list[Callable[[], None]] = field(default_factory=list)
    lost: list[Callable[[], None]] = field(default_factory=list)
    waiters: list[asyncio.Future[bool]] = field(default_factory=list)


class Journal:
    """The journal of one session. ``make_token`` gives texts that no other write has used."""

    def __init__(
        self,
        table: EntityTable,
        clock: Clock,
        session: str,
        *,
        instance: str,
        policy: LedgerPolicy,
        usage_until: Callable[[], float],
    ) -> None:
        self.session = session
        self.lost = False
        self.closed = False
        self.rows_put = 0
        self.transactions = 0
        self.last_commit = clock.monotonic()
        self._table = table
        self._clock = clock
        self._instance = instance
        self._policy = policy
        self._usage_until = usage_until
        self._partition = rows.session_partition(session)
        self._tokens = itertools.count(1)
        self._etag = ""
        self._queue: dict[str, _Queued] = {}
        self._sending: dict[str, _Queued] = {}
        self._go = asyncio.Event()
        self._timer: asyncio.Task[None] | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def opened(self) -> bool:
        """Say whether anything of the session is in the store."""
        return bool(self._etag)

    @property
    def quiet(self) -> bool:
        """Say whether everything that was put has landed."""
        return not self._queue and not self._sending

    def put(
        self,
        row: str,
        properties: Mapping[str, Value],
        *,
        urgent: bool = False,
        landed: Callable[[], None] | None = None,
        lost: Callable[[], None] | None = None,
    ) -> None:
        """Have a row written soon, at once if it is urgent; a later content of a row that still waits replaces it.

        ``landed`` or ``lost`` is called when it is known which it was.
        """
        if self.lost:
            if lost is not None:
                lost()
            return
        queued = self._queue.get(row)
        if queued is None:
            queued = self._queue[row] = _Queued(properties)
            self.rows_put += 1
        else:
            queued.properties = properties
        if landed is not None:
            queued.landed.append(landed)
        if lost is not None:
            queued.lost.append(lost)
        self._wake(urgent=urgent)

    async def written(self, row: str) -> bool:
        """Wait until what was put for a row has landed; False when the session was lost first."""
        queued = self._queue.get(row) or self._sending.get(row)
        if queued is None:
            return not self.lost
        waiter: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        queued.waiters.append(waiter)
        return await waiter

    def withdraw(self, row: str) -> bool:
        """Take back a row that has not been sent; False when it has been, or is gone."""
        return self._queue.pop(row, None) is not None

    def lose(self) -> None:
        """Take note that the session is lost, and tell what waits. What is on its way hears its own outcome."""
        self.lost = True
        queue, self._queue = self._queue, {}
        _tell(queue, landed=False)

    async def flush(self) -> None:
        """Write what waits; return when it has landed or the session is lost."""
        while self._queue or self._sending:
            self._wake(urgent=True)
            last = next(reversed(self._queue or self._sending))
            await self.written(last)

    async def beat(self) -> None:
        """Write the fence with what waits, so that nobody takes the session for dead."""
        if not self._sending and not self.lost and self._etag:
            self._wake(urgent=True, empty=True)

    async def close(self) -> None:
        """Close the fence for good; raise `SessionLostError`. Only when everything has landed."""
        if self._etag and not await self._commit({}, state=rows.SessionState.CLOSED):
            raise SessionLostError
        self.closed = True

    async def stop(self) -> None:
        """Stop writing; what waits is left to recovery."""
        tasks = [task for task in (self._task, self._timer) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # ---- writing -----------------------------------------------------------------------------------------------------

    def _wake(self, *, urgent: bool, empty: bool = False) -> None:
        if urgent:
            self._go.set()
        elif not self._go.is_set() and (self._timer is None or self._timer.done()):
            self._timer = asyncio.get_running_loop().create_task(self._soon(), name="switchyard-ledger-gather")
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(empty=empty), name="switchyard-ledger-journal")

    async def _soon(self) -> None:
        await self._clock.sleep(self._policy.gather)
        self._go.set()

    async def _run(self, *, empty: bool) -> None:
        serve_nobody()
        while (self._queue or empty) and not self.lost:
            await self._go.wait()
            self._go.clear()
            while (self._queue or empty) and not self.lost:
                empty = False
                size = MAX_TRANSACTION - 1
                batch = dict(itertools.islice(self._queue.items(), size))
                for row in batch:
                    del self._queue[row]
                self._sending = batch
                landed = await self._commit(batch)
                self._sending = {}
                if landed:
                    _tell(batch, landed=True)
                else:
                    self.lose()
                    _tell(batch, landed=False)
                if not self._go.is_set() and len(self._queue) < size:
                    break
                self._go.clear()

    async def _commit(self, batch: Mapping[str, _Queued], *, state: rows.SessionState = rows.SessionState.OPEN) -> bool:
        """Write rows with the fence; return whether they landed. Comes back only when that is known."""
        token = f"{self.session}.{next(self._tokens)}"
        fence = rows.Fence(state, token, self._clock.now(), self._instance, self._usage_until(), self._etag)
        opening = not self._etag
        if opening:
            await self._announce()
        ops = [Op(Action.INSERT if opening else Action.REPLACE, fence.entity(self.session))]
        ops += [Op(Action.UPSERT, Entity(self._partition, row, one.properties)) for row, one in batch.items()]
        failures = 0
        while True:
            self.transactions += 1
            try:
                etag = (await self._table.transact(ops))[0]
            except CONFLICTS:
                found = await self._read_fence()
                if found is None or found.token != token:
                    return False
                etag = found.etag
            except StorageUnavailableError:
                failures += 1
                await self._clock.sleep(self._policy.backoff(failures, self._clock.draw()))
                continue
            self._etag = etag
            self.last_commit = self._clock.monotonic()
            return True

    async def _announce(self) -> None:
        """Let recovery know of the session, before there is anything to recover."""
        entity = Entity(rows.SESSIONS, self.session, {"instance": self._instance, "at": self._clock.now()})
        failures = 0
        while True:
            try:
                await self._table.insert(entity)
            except EntityExistsError:
                return
            except StorageUnavailableError:
                failures += 1
                await self._clock.sleep(self._policy.backoff(failures, self._clock.draw()))
            else:
                return

    async def _read_fence(self) -> rows.Fence | None:
        failures = 0
        while True:
            try:
                entity = await self._table.get(self._partition, rows.FENCE)
            except StorageUnavailableError:
                failures += 1
                await self._clock.sleep(self._policy.backoff(failures, self._clock.draw()))
            else:
                return None if entity is None else rows.fence(entity)


def _tell(batch: Mapping[str, _Queued], *, landed: bool) -> None:
    for one in batch.values():
        for call in one.landed if landed else one.lost:
            call()
        for waiter in one.waiters:
            if not waiter.done():
                waiter.set_result(landed)

"""The chains of this gateway, over the store that all instances share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from shared import pieces
from shared.chains import rows
from shared.chains.rows import Chain, Claim, ClaimState, Kind, State
from shared.core.errors import ConflictError, NotFoundError, StorageUnavailableError
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
    Tables,
)

KEPT_DAYS: Final = 30
"""Days a chain and its answer are kept, as OpenAI keeps responses."""
QUEUE_SECONDS: Final = 5.0
"""How long what was counted is told again, so that whoever asks often costs the store little."""
MAX_LOOKED_AT: Final = 200
"""Unfinished chains whose states are counted: a read for each."""
MAX_COUNTED: Final = 20_000
"""Rows of an index that are counted: a round trip for each thousand."""
_AT_ONCE: Final = 16
_log = logging.getLogger(__name__)

_TRIES: Final = 12


@dataclass(frozen=True, slots=True)
class Queue:
    """What is under way on all instances: ``unfinished`` chains, and when the oldest was asked for (epoch seconds).

    Their states are those of ``looked_at`` of them: of all, unless there are more than `MAX_LOOKED_AT`. ``oldest_queued`` is
    when the oldest of those that have not begun was asked for.
    """

    unfinished: int = 0
    queued: int = 0
    running: int = 0
    waiting: int = 0
    oldest: float | None = None
    looked_at: int = 0
    oldest_queued: float | None = None


class Chains:
    """Chains with their claims and answers."""

    def __init__(self, tables: Tables, clock: Clock) -> None:
        self._table: EntityTable = tables.table(rows.TABLE)
        self._clock = clock
        self._queue: tuple[float, Queue] | None = None
        self._ended: tuple[int, float, int] | None = None

    # ---- chains ------------------------------------------------------------------------------------------------------

    async def create(self, chain: Chain, body: bytes, trace: bytes = b"") -> Chain:
        """Store a new chain, or return the one that has its id already. Raise `StorageUnavailableError`.

        ``body`` is what was asked, ``trace`` the decision about it, both JSON.

        The index comes first: a chain that is not in it would be forgotten if nobody started it.
        """
        if (known := await self.find(chain.id)) is not None:
            return known
        partition = rows.partition_of(chain.id)
        await pieces.write(self._table, pieces.rows_of(partition, "q~", body))
        await pieces.write(self._table, pieces.rows_of(partition, "t~", trace))
        marks = {"at": chain.created_at, "kind": chain.kind.value, "project": chain.caller.project}
        for index in (rows.OPEN, rows.day_of(chain.created_at)):
            await self._table.transact([Op(Action.UPSERT, Entity(index, chain.id, marks))])
        try:
            etag = await self._table.insert(rows.chain_entity(chain))
        except EntityExistsError:
            return await self.get(chain.id)
        return replace(chain, etag=etag)

    async def find(self, chain_id: str) -> Chain | None:
        """Return a chain, or None. A damaged row is a `ValueError`."""
        entity = await self._table.get(rows.partition_of(chain_id), rows.HEAD)
        return None if entity is None else rows.chain_in(entity)

    async def get(self, chain_id: str) -> Chain:
        """Return a chain; raise `NotFoundError`."""
        found = await self.find(chain_id)
        if found is None:
            raise _unknown(chain_id)
        return found

    async def body(self, chain_id: str) -> bytes:
        """Return the request's body; raise `NotFoundError` when the chain is being deleted."""
        return await self._written(chain_id, "q~")

    async def trace(self, chain_id: str) -> bytes:
        """Return the decision about the request, as JSON."""
        return await pieces.read(self._table, rows.partition_of(chain_id), "t~")

    async def change(self, chain_id: str, change: Callable[[Chain], Chain]) -> Chain:
        """Replace a chain by what ``change`` makes of it, which may be the same one; return what is stored then.

        ``change`` is called again when somebody else was faster. A chain that has ended is never changed.
        """
        for _ in range(_TRIES):
            before = await self.get(chain_id)
            after = before if before.state.ended else change(before)
            if after is before:
                return before
            if after.state is not before.state and after.state not in rows.TRANSITIONS[before.state]:
                message = f"A chain that is {before.state} can't become {after.state}."
                raise ValueError(message)
            try:
                etag = await self._table.replace(rows.chain_entity(after))
            except EntityChangedError:
                continue
            except EntityNotFoundError:
                break
            if after.state.ended:
                await self._close(chain_id)
            return replace(after, etag=etag)
        message = f"{chain_id} is being changed by somebody else. Try again."
        raise ConflictError(message)

    async def _close(self, chain_id: str) -> None:
        try:
            await self._table.delete(rows.OPEN, chain_id)
        except EntityNotFoundError:
            return

    async def delete(self, chain_id: str) -> None:
        """Forget a chain with everything that belongs to it."""
        partition = rows.partition_of(chain_id)
        chain = await self.find(chain_id)
        keys = [entity.row async for entity in self._table.query(partition)]
        for start in range(0, len(keys), MAX_TRANSACTION):
            part = keys[start : start + MAX_TRANSACTION]
            await self._table.transact([Op(Action.DELETE, Entity(partition, row, etag="*")) for row in part])
        await self._close(chain_id)
        if chain is not None:
            try:
                await self._table.delete(rows.day_of(chain.created_at), chain_id)
            except EntityNotFoundError:
                return

    async def unfinished(self) -> AsyncGenerator[Chain, None]:
        """Yield the chains that have not ended. What the index has besides is taken out of it in passing."""
        async for entity in self._table.query(rows.OPEN):
            try:
                chain = await self.find(entity.row)
            except ValueError as error:  # the others must not wait until somebody has repaired it
                _log.error("The chain %s is damaged and left alone: %s", entity.row, error)
                continue
            if chain is not None and not chain.state.ended:
                yield chain
            elif chain is not None or self._clock.now() - _at(entity) > 3600:  # noqa: PLR2004 - an hour: whoever made it has gone
                await self._close(entity.row)

    async def newest(
        self, *, kind: Kind | None = None, project: str | None = None, after: Chain | None = None
    ) -> AsyncGenerator[Chain, None]:
        """Yield chains, the newest first: of one kind, one project, those that come after another one.

        A chain is read when it is its turn; whoever has seen enough pays for no more.
        """
        now = self._clock.now() if after is None else after.created_at
        last = None if after is None else (after.created_at, after.id)
        for back in range(KEPT_DAYS + 1):
            day = rows.day_of(now - back * 86_400.0)
            wanted = [
                (_at(entity), entity.row)
                async for entity in self._table.query(day)
                if _marked(entity, "kind", kind) and _marked(entity, "project", project)
            ]
            for place in sorted(wanted, reverse=True):
                if (last is None or place < last) and (chain := await self.find(place[1])) is not None:
                    yield chain

    async def queue(self) -> Queue:
        """Count what is under way; what this says may be `QUEUE_SECONDS` old. Raise `StorageUnavailableError`."""
        now = self._clock.monotonic()
        if self._queue is None or now - self._queue[0] >= QUEUE_SECONDS:
            self._queue = (now, await self._counted())
        return self._queue[1]

    async def _counted(self) -> Queue:
        unfinished, oldest = 0, None
        some: list[str] = []
        async for entity in self._table.query(rows.OPEN, limit=MAX_COUNTED):
            unfinished += 1
            oldest = _at(entity) if oldest is None else min(oldest, _at(entity))
            if len(some) < MAX_LOOKED_AT:
                some.append(entity.row)
        chains: list[Chain | None] = []
        for start in range(0, len(some), _AT_ONCE):
            chains += await asyncio.gather(*(self.find(name) for name in some[start : start + _AT_ONCE]))
        open_ones = [chain for chain in chains if chain is not None and not chain.state.ended]
        asked = [chain.created_at for chain in open_ones if chain.state is State.QUEUED]
        queued = len(asked)
        waiting = sum("waiting_until" in chain.status for chain in open_ones if chain.state is not State.QUEUED)
        stale = len(some) - len(open_ones)  # ended, or never made: the index is cleared in passing
        return Queue(
            unfinished - stale,
            queued,
            len(open_ones) - queued - waiting,
            waiting,
            oldest,
            len(open_ones),
            min(asked, default=None),
        )

    async def finished(self, since: float) -> int:
        """Return how many of the chains that were asked for since a moment have ended. Raise `StorageUnavailableError`.

        Beyond `MAX_COUNTED` chains they are not counted any more, and what this says may be `QUEUE_SECONDS` old.
        """
        now, minute = self._clock.monotonic(), int(since // 60)
        if self._ended is None or self._ended[0] != minute or now - self._ended[1] >= QUEUE_SECONDS:
            self._ended = (minute, now, await self._count_finished(since))
        return self._ended[2]

    async def _count_finished(self, since: float) -> int:
        begun = 0
        moment, today = datetime.fromtimestamp(since, UTC), rows.day_of(self._clock.now())
        while (day := rows.day_of(moment.timestamp())) <= today:
            begun += await self._since(day, since)
            moment += timedelta(days=1)
        return max(0, begun - await self._since(rows.OPEN, since))

    async def _since(self, index: str, since: float) -> int:
        return sum([_at(entity) >= since async for entity in self._table.query(index, limit=MAX_COUNTED)])

    async def prune(self) -> int:
        """Forget what has been kept long enough: a day's chains at a time, for a timer. Return how many."""
        gone = 0
        today = datetime.fromtimestamp(self._clock.now(), UTC)
        for back in range(KEPT_DAYS + 1, KEPT_DAYS + 8):
            day = rows.day_of((today - timedelta(days=back)).timestamp())
            async for entity in self._table.query(day):
                await self.delete(entity.row)
                gone += 1
        return gone

    # ---- claims ------------------------------------------------------------------------------------------------------

    async def claims(self, chain_id: str) -> list[Claim]:
        """Return the claims of a chain's attempts, in their order."""
        partition = rows.partition_of(chain_id)
        return [rows.claim_in(entity) async for entity in self._table.query(partition, start="a~", end="a~~")]

    async def claim(self, chain_id: str, number: int) -> Claim | None:
        """Return the claim of an attempt, or None when nobody has claimed it."""
        entity = await self._table.get(rows.partition_of(chain_id), rows.claim_row(number))
        return None if entity is None else rows.claim_in(entity)

    async def take(self, chain_id: str, claim: Claim) -> Claim | None:
        """Claim an attempt just before it is sent. None when it is somebody else's: then nothing may be sent.

        Raise `StorageUnavailableError`: then nobody knows, and nothing may be sent either.
        """
        entity = rows.claim_entity(chain_id, claim)
        try:
            return replace(claim, etag=await self._table.insert(entity))
        except EntityExistsError:
            found = await self.claim(chain_id, claim.number)
        except StorageUnavailableError:  # it may have landed, and then nobody else would ever make this attempt
            found = await self.claim(chain_id, claim.number)
            if found is None:
                raise
        if found is not None and replace(found, etag="") == claim:
            return found
        if found is None or claim.state not in rows.CLAIM_TRANSITIONS[found.state] or found.session == claim.session:
            return None
        try:
            return replace(claim, etag=await self._table.replace(replace(entity, etag=found.etag)))
        except (EntityChangedError, EntityNotFoundError):
            return None

    async def fence(self, chain_id: str, number: int, session: str) -> Claim:
        """Keep a dead session from claiming an attempt it holds money for; return the claim that is there now."""
        fenced = Claim(number, ClaimState.FENCED, session, held=0, deployment="", at=self._clock.now())
        try:
            return replace(fenced, etag=await self._table.insert(rows.claim_entity(chain_id, fenced)))
        except EntityExistsError:
            return await self.claim(chain_id, number) or fenced

    async def finish(self, chain_id: str, claim: Claim, answer: bytes = b"") -> bool:
        """Write down how a claimed attempt ended, with its answer; False when somebody else has done so."""
        parts = pieces.rows_of(rows.partition_of(chain_id), rows.answer_rows(claim.number), answer)
        await pieces.write(self._table, parts)
        try:
            await self._table.replace(rows.claim_entity(chain_id, claim))
        except (EntityChangedError, EntityNotFoundError):
            known = await self.claim(chain_id, claim.number)
            return known is not None and replace(known, etag="") == replace(claim, etag="")
        return True

    async def answer(self, chain_id: str, number: int) -> bytes:
        """Return the answer of an attempt that answered; raise `NotFoundError` when its chain is being deleted."""
        return await self._written(chain_id, rows.answer_rows(number))

    async def _written(self, chain_id: str, prefix: str) -> bytes:
        written = await pieces.read(self._table, rows.partition_of(chain_id), prefix)
        if not written:
            raise _unknown(chain_id)
        return written


def _unknown(chain_id: str) -> NotFoundError:
    return NotFoundError(f"There is no {chain_id[:80]!r}; it was never made, or it is older than {KEPT_DAYS} days, or deleted.")


def _marked(entity: Entity, name: str, wanted: str | None) -> bool:
    return wanted is None or entity.properties.get(name, wanted) == wanted


def _at(entity: Entity) -> float:
    at = entity.properties.get("at")
    return float(at) if isinstance(at, int | float) else 0.0


def costs(claims: Sequence[Claim]) -> int | None:
    """Return what the ended attempts cost together, in nano-USD; None when that is not known of one of them."""
    total = 0
    for claim in claims:
        cost = None if claim.record is None else claim.record.get("cost")
        if claim.state is ClaimState.DONE and not isinstance(cost, int):
            return None
        total += cost if isinstance(cost, int) else 0
    return total

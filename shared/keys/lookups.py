"""Tokens looked up in the store, and remembered for moments: so that a call costs no read, and a revocation is seen soon.

While the store does not answer, or answers slowly, a token that was good stays good for `GRACE_SECONDS`, and nobody waits for
longer than `PATIENCE` to hear it.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Final

from shared.core.access import Identity, Role
from shared.core.errors import StorageUnavailableError
from shared.core.records import Caller
from shared.keys.fields import VirtualKey
from shared.keys.rows import PARTITION, end_of, read
from shared.ports import Clock, Entity, EntityTable

CACHE_SECONDS: Final = 2.0
"""The longest a change made by another process goes unseen, as long as the store answers."""
GRACE_SECONDS: Final = 60.0
"""How long a key that was good stays good while the store does not answer."""
PATIENCE: Final = 0.5
"""Seconds that a key known to be good waits for a store that is slow."""
RETRY_SECONDS: Final = 1.0
"""How long a store that did not answer is left alone by keys known to be good."""
MAX_CACHED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Held:
    """Whom a token stands for, until when (seconds since the epoch)."""

    identity: Identity
    until: float

    @staticmethod
    def of(key: VirtualKey, ends_at: float | None) -> Held:
        """Return what a token of this key, ended or to end at that moment, stands for. A disabled key's is over."""
        caller = Caller(
            key_id=key.key_id,
            project=key.project,
            admin=Role.ADMIN in key.roles,
            name=key.name,
            models=key.models,
            budgets=key.budgets,
            requests_per_minute=key.requests_per_minute,
            tokens_per_minute=key.tokens_per_minute,
            tags=key.tags,
        )
        ends = [end for end in (key.expires_at, ends_at) if end is not None]
        return Held(Identity(caller, key.roles), -math.inf if key.disabled else min(ends, default=math.inf))


@dataclass(frozen=True, slots=True)
class _Known:
    """What the last look-up of a token found; ``held`` None is nobody's."""

    held: Held | None
    looked_up: float


@dataclass(frozen=True, slots=True)
class _UnderWay:
    """A look-up that several callers wait for."""

    began: float
    task: asyncio.Task[Held | None]


class Lookups:
    """The tokens of this process's callers. Times here are the clock's monotonic seconds."""

    def __init__(self, table: EntityTable, clock: Clock) -> None:
        self._table = table
        self._clock = clock
        self._good: dict[str, _Known] = {}
        self._bad: dict[str, _Known] = {}
        self._under_way: dict[str, _UnderWay] = {}
        self._quiet_until = -math.inf

    async def find(self, digest: str) -> Held | None:
        """Return whom the token with this SHA-256 stands for; None for nobody.

        Raise `StorageUnavailableError` when the store does not answer and the token is not known from the last minute.
        """
        moment = self._clock.monotonic()
        known = self._good.get(digest) or self._bad.get(digest)
        if known is not None and moment - known.looked_up < CACHE_SECONDS:
            return known.held
        spare = known.held if known is not None and moment - known.looked_up < GRACE_SECONDS else None
        if spare is None:
            return await asyncio.shield(self._look_up(digest, moment))
        if moment < self._quiet_until:
            return spare
        task = self._look_up(digest, moment)
        await asyncio.wait({task}, timeout=PATIENCE)
        if task.done() and not task.cancelled() and task.exception() is None:
            return task.result()
        if not task.done() or isinstance(task.exception(), StorageUnavailableError):
            self._quiet_until = moment + RETRY_SECONDS
            return spare
        return task.result()  # a bug: raise it

    def learn(self, key: VirtualKey) -> None:
        """Remember a key that this process has just written, in place of whatever is known of its tokens."""
        moment = self._clock.monotonic()
        for token in key.tokens:
            self.forget(token.digest)
            self._remember(token.digest, _Known(Held.of(key, token.ends_at), moment))

    def forget(self, digest: str) -> None:
        """Look a token up anew when it next comes."""
        self._good.pop(digest, None)
        self._bad.pop(digest, None)

    async def aclose(self) -> None:
        """Give up what is under way."""
        tasks = [one.task for one in self._under_way.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _look_up(self, digest: str, moment: float) -> asyncio.Task[Held | None]:
        """Return the look-up under way, unless it may have read what is too old by now, or begin one."""
        one = self._under_way.get(digest)
        if one is None or moment - one.began >= CACHE_SECONDS:
            one = self._under_way[digest] = _UnderWay(moment, asyncio.create_task(self._read(digest, moment)))
            one.task.add_done_callback(lambda task: self._settle(digest, task))
        return one.task

    def _settle(self, digest: str, task: asyncio.Task[Held | None]) -> None:
        one = self._under_way.get(digest)
        if one is not None and one.task is task:
            del self._under_way[digest]
        if not task.cancelled():
            task.exception()  # whoever waited has gone: it was seen

    async def _read(self, digest: str, moment: float) -> Held | None:
        entity = await self._table.get(PARTITION, digest)
        return self._remember(digest, _Known(None if entity is None else _held(entity), moment)).held

    def _remember(self, digest: str, known: _Known) -> _Known:
        """Keep a look-up, unless a later one is kept already, and return the one kept; the oldest makes room.

        Good and bad ones are apart, so that a flood of bad tokens evicts no good one.
        """
        before = self._good.pop(digest, None) or self._bad.pop(digest, None)
        if before is not None and before.looked_up >= known.looked_up:
            known = before
        kept = self._bad if known.held is None else self._good
        if len(kept) >= MAX_CACHED:
            del kept[next(iter(kept))]
        kept[digest] = known
        return known


def _held(entity: Entity) -> Held | None:
    key = read(entity)
    try:
        return None if key is None else Held.of(key, end_of(entity))
    except ValueError:
        return None

"""Health that all instances know together: openings, pauses, probes and averages travel through a few shared rows.

`SharedHealth` carries between this instance's `HealthBook` and the table; what the rows and the book become is decided by the
pure functions of `shared.core.pool`. A task, started by `touch` and gone when there is no traffic, reads every two seconds or
so; what this instance learns (a breaker that opens or closes, a pause its provider asks for) is written at once, and nobody
waits for it. Only one instance at a time probes a deployment whose breaker is open: the one that `claim` gave the lease. While
the store does not answer, each instance goes by its own knowledge.
"""

from __future__ import annotations

import asyncio
import logging
import zlib
from collections.abc import Collection
from dataclasses import replace
from typing import Final

from shared.core.errors import ConflictError, NotFoundError, StorageUnavailableError
from shared.core.pool import PROBE_LEASE, SILENT, Entry, Moment, Sample, claimed, folded, moved, spoken
from shared.core.pool_row import entries_of, text_of
from shared.health_book import HealthBook, Learnt
from shared.ports import Clock, Entity, Tables
from shared.tracing import serve_nobody

TABLE: Final = "health"
PARTITION: Final = "pool"
ROWS: Final = 4
"""Rows the deployments are spread over: they are read with one query, and written each for itself."""
POLL_SECONDS: Final = 2.0
WARNED_SECONDS: Final = 0.5
"""How often while a deployment seems to be failing."""
OPEN_SECONDS: Final = 1.0
"""How often while a breaker is open and a probe may close it at any time."""
IDLE_SECONDS: Final = 30.0
"""Seconds without a request after which nothing is read any more."""
CLAIM_SECONDS: Final = 0.25
"""What a request waits at most to learn whether it is the one that probes."""
ANSWER_SECONDS: Final = 3.0
"""What an exchange may take before the store counts as gone."""
TRIES: Final = 8
"""Writes of one row, in a row, that find it changed by others; then it waits for the next exchange."""

_TEXT: Final = "entries"
_NEVER: Final = float("-inf")

_log = logging.getLogger(__name__)


def row_of(deployment: str) -> str:
    """Return the key of the row that speaks of a deployment."""
    return str(zlib.crc32(deployment.encode()) % ROWS)


def _patience(entry: Entry) -> float:
    """Return how many seconds may pass until it is looked at again."""
    if entry.strikes:
        return WARNED_SECONDS
    return OPEN_SECONDS if entry.open and entry.disabled is None else POLL_SECONDS


class SharedHealth:
    """The exchange between one instance's book and everybody's rows. To be used from one event loop at a time.

    ``instance`` names this process and no other. ``reads`` and ``writes`` count the calls to the store.
    """

    def __init__(self, tables: Tables, clock: Clock, book: HealthBook, instance: str) -> None:
        self._table = tables.table(TABLE)
        self._clock = clock
        self._book = book
        self._instance = instance
        self._touched_at = _NEVER
        self._news = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = asyncio.Lock()
        self._poll: asyncio.Task[None] | None = None
        self._errand: asyncio.Task[None] | None = None
        self._claims: dict[str, asyncio.Task[bool]] = {}
        self._quiet = False
        self._pause = POLL_SECONDS
        self.reads = 0
        self.writes = 0
        book.share(self._hurry, seed=clock.draw())

    # ---- what the hot path calls -------------------------------------------------------------------------------------

    def touch(self, now: float) -> None:
        """Note that there is traffic (monotonic seconds). Never waits, costs next to nothing; call it with each request."""
        self._touched_at = now
        if (self._poll is None or self._poll.done() or self._loop is None or self._loop.is_closed()) and self._awake():
            self._poll = asyncio.create_task(self._keep_reading(), name="switchyard-health")

    async def claim(self, deployment: str) -> None:
        """Ask to be the instance that probes; to be awaited when `HealthBook.needs_lease` says so, before `HealthBook.admit`.

        Waits `CLAIM_SECONDS` at most and never raises: whether the request may go is what `admit` then says.
        """
        if not self._awake() or deployment in self._claims:
            return
        task = self._claims[deployment] = asyncio.create_task(self.exchange((deployment,)))
        task.add_done_callback(lambda _: self._claims.pop(deployment, None))
        await asyncio.wait((task,), timeout=CLAIM_SECONDS)

    # ---- the exchange ------------------------------------------------------------------------------------------------

    async def exchange(self, claims: Collection[str] = ()) -> bool:
        """Say what is new, hear what others said, and try to become the one that probes the deployments in ``claims``.

        Return False when the store did not answer: from then on this instance goes by its own knowledge. Never raises.
        """
        self._awake()
        async with self._lock:
            self._news = False
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await self._exchange(claims)
            except (StorageUnavailableError, TimeoutError) as error:
                self._book.alone(alone=True)
                if not self._quiet:
                    _log.warning("Health is not shared while the store does not answer: %s", error)
                self._quiet = True
                return False
        self._quiet = False
        self._book.alone(alone=False)
        return True

    async def aclose(self) -> None:
        """Stop reading and writing."""
        tasks = [task for task in (self._poll, self._errand, *self._claims.values()) if task is not None]
        if self._loop is asyncio.get_running_loop():
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _exchange(self, claims: Collection[str]) -> None:
        self.reads += 1
        stored = {entity.row: entity async for entity in self._table.query(PARTITION)}
        keys = {*stored, *map(row_of, self._book.learnt())}
        self._pause = POLL_SECONDS
        for key in sorted(keys):
            await self._exchange_row(key, stored.get(key), claims)

    async def _exchange_row(self, key: str, stored: Entity | None, claims: Collection[str]) -> None:
        for tries in range(TRIES):
            said = {name: learnt for name, learnt in self._book.learnt().items() if row_of(name) == key}
            entries = self._entries(stored)
            at = Moment(self._clock.monotonic(), self._clock.now(), self._instance)
            after = {
                **entries,
                **{name: self._said(entries.get(name, SILENT), name, one, claims, at) for name, one in said.items()},
            }
            changed = {name for name, entry in after.items() if entry != entries.get(name, SILENT)}
            samples = {
                name: said[name].sample for name in changed if after[name].averages != entries.get(name, SILENT).averages
            }
            if not changed or await self._written(key, stored, text_of(after, at.wall), samples):
                heard_at = Moment(self._clock.monotonic(), self._clock.now(), self._instance)
                for name, entry in after.items():
                    self._book.hear(name, entry, said.get(name), heard_at)
                    self._pause = min(self._pause, _patience(entry))
                return
            await self._clock.sleep(0.005 * 2.0**tries * self._clock.draw())
            self.reads += 1
            stored = await self._table.get(PARTITION, key)

    def _entries(self, stored: Entity | None) -> dict[str, Entry]:
        if stored is None:
            return {}
        try:
            return entries_of(str(stored.properties.get(_TEXT, "")))
        except ValueError as error:
            _log.error("The shared health in row %s is damaged and begins anew: %s", stored.row, error)
            return {}

    def _said(self, entry: Entry, name: str, learnt: Learnt, claims: Collection[str], at: Moment) -> Entry:
        after = spoken(entry, learnt.breaker, learnt.shared, at)
        renews = after.prober == self._instance and after.lease_until - at.wall < PROBE_LEASE / 2
        if name in claims or (renews and name in self._book.probing(at.monotonic)):
            after = claimed(after, learnt.shared, at) or after
        if learnt.sample.calls and (after is not entry or moved(entry.averages, learnt.sample, at.wall)):
            after = replace(after, averages=folded(entry.averages, learnt.sample, at.wall))
        return after

    async def _written(self, key: str, stored: Entity | None, text: str, samples: dict[str, Sample]) -> bool:
        """Write a row; False when others were faster. Calls are counted at most once: not again if the answer was lost."""
        self.writes += 1
        entity = Entity(PARTITION, key, {_TEXT: text}, stored.etag if stored else "")
        try:
            await (self._table.replace(entity) if stored else self._table.insert(entity))
        except (ConflictError, NotFoundError):
            return False
        except StorageUnavailableError:
            self._told(samples)
            raise
        self._told(samples)
        return True

    def _told(self, samples: dict[str, Sample]) -> None:
        for name, sample in samples.items():
            self._book.told(name, sample)

    # ---- tasks -------------------------------------------------------------------------------------------------------

    def _hurry(self) -> None:
        """Say what is new at once, in the background."""
        self._news = True
        if (self._errand is None or self._errand.done()) and self._awake():
            self._errand = asyncio.create_task(self._say(), name="switchyard-health-news")

    async def _say(self) -> None:
        while self._news and await self.exchange():
            pass

    async def _keep_reading(self) -> None:
        serve_nobody()
        while self._clock.monotonic() - self._touched_at < IDLE_SECONDS or self._book.probing(self._clock.monotonic()):
            await self.exchange()
            await self._clock.sleep(self._pause * (0.75 + self._clock.draw() / 2))
            await asyncio.sleep(0)  # a clock that does not really wait must not keep the loop from others

    def _awake(self) -> bool:
        """Return whether there is a loop for tasks; forget the tasks of one that is gone."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            return False
        if self._loop is not loop:
            self._loop, self._lock, self._poll, self._errand = loop, asyncio.Lock(), None, None
            self._claims = {}
        return True

"""Larger limits: every instance counts for itself and tells the others its counts, all subjects in one row, once a second.

An exchange is one write of this instance's row and one query of everybody's. Nobody waits for it, but for the first request
after an idle minute, which knows nothing yet and waits for one (a quarter of a second at most): requests are admitted from
memory, by this instance's share of what is free (`shared.core.limits.Share`). It runs only while there is traffic. A row is
written over blindly (it has one writer and counts that only add up), so an unanswered write needs no care. No clock of
another instance matters: what others took counts as taken when it is read.

A single instance lets the whole limit go at once. Several let a tenth of it go, and each second after a quarter of what is
left of the minute (less in a crowd), by demand: so much can be known of the others in time. While the store does not answer,
each instance takes an even share of the limit. A new instance begins without a burst where the others are busy.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from shared.core.errors import StorageUnavailableError
from shared.core.limits import INTERVAL, MINUTE, Limited, Share, Standing, Verdict, What, spend_of, weight_of
from shared.ports import Action, Clock, Entity, EntityTable, InvalidEntityError, Op
from shared.tracing import serve_nobody

PARTITION: Final = "counters"
IDLE_SECONDS: Final = 60.0
"""How long the exchange goes on after the last request: as long as what was used counts."""
LONELY_SECONDS: Final = 5.0
"""The same where there is no other instance."""
SILENT_SECONDS: Final = 3.0
"""An instance that has said nothing for so long asks for nothing."""
GONE_SECONDS: Final = 10.0
"""Nor does it share what is there."""
SWEEP_SECONDS: Final = 120.0
"""Its row is deleted."""
STALE_SECONDS: Final = 3.0
"""Counts older than this are no news: limits go by even shares, or begin anew."""
TIMEOUT_SECONDS: Final = 2.0
CHUNK: Final = 30_000
"""Characters of one property: Table Storage takes 32 Ki."""
MAX_CHUNKS: Final = 15
_DEMAND_MEMORY: Final = 0.4

_log = logging.getLogger(__name__)

Told = tuple[int, int, int, float, int, int]
"""What a row tells of a subject: when it was taken up, requests and tokens since, requests asked for in a second; and the
requests and tokens of the last minute alone, for those that come new and have not heard the counts before."""


@dataclass(slots=True, eq=False)
class Counted:
    """One subject that this instance has requests for."""

    limited: Limited
    shares: dict[What, Share]
    since: int
    used_at: float
    asked: int = 0
    demand: float = 0.0
    others: float = 0.0
    """Requests a second that others ask for."""
    known: dict[str, Told] = field(default_factory=dict)

    def told(self) -> Told:
        """Return what the others are told."""
        requests, tokens = self.shares.get("requests"), self.shares.get("tokens")
        return (
            self.since,
            requests.used if requests else 0,
            tokens.used if tokens else 0,
            round(self.demand, 2),
            requests.lately if requests else 0,
            tokens.lately if tokens else 0,
        )


@dataclass(slots=True)
class Neighbour:
    """Another instance, as its row says."""

    beat: str
    changed_at: float
    told: dict[str, Told]


class Exchange:
    """The counted limits of one instance."""

    def __init__(self, table: EntityTable, clock: Clock, instance: str) -> None:
        self._table = table
        self._clock = clock
        self._instance = instance
        self._started = int(clock.now() * 1000)
        self._subjects: dict[str, Counted] = {}
        self._neighbours: dict[str, Neighbour] = {}
        self._beats = 0
        self._taken_up = 0
        self._exchanged_at = float("-inf")
        self._asked_at = float("-inf")
        self._task: asyncio.Task[None] | None = None
        self._informed = asyncio.Event()
        self._written = False
        self._complained_at = float("-inf")

    # ---- asking ------------------------------------------------------------------------------------------------------

    def ask(self, limited: Limited, tokens: int) -> tuple[What, float] | None:
        """Say whether a request fits, without counting it: None, or what does not fit and for how long."""
        counted = self._counted(limited)
        counted.asked += 1
        now = counted.used_at = self._asked_at = self._clock.monotonic()
        self._start()
        longest: tuple[What, float] | None = None
        for what, share in counted.shares.items():
            amount = 1 if what == "requests" else share.gauge.charge(tokens)
            wait = share.wait(amount, now, self._clock.draw())
            if wait > 0.0 and (longest is None or wait > longest[1]):
                longest = (what, wait)
        return longest

    async def news(self, within: float) -> None:
        """Wait for the first exchange after a pause, once: without it the first request here would know nothing."""
        self._asked_at = self._clock.monotonic()
        self._start()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._informed.wait(), within)

    @property
    def uninformed(self) -> bool:
        """Say whether no exchange has been tried since the last pause."""
        return not self._informed.is_set()

    def take(self, limited: Limited, tokens: int) -> Verdict:
        """Count a request."""
        counted = self._counted(limited)
        now = self._clock.monotonic()
        tick = 0
        for what, share in counted.shares.items():
            tick = share.take(1 if what == "requests" else share.gauge.charge(tokens), now)
        return Verdict(tick=tick, standings=self.standings(limited))

    def credit(self, limited: Limited, tick: int, requests: int, tokens: int) -> None:
        """Take back part of what was counted."""
        counted = self._subjects.get(limited.subject)
        if counted is None:
            return
        for what, share in counted.shares.items():
            share.credit(requests if what == "requests" else tokens, tick)

    def standings(self, limited: Limited) -> tuple[Standing, ...]:
        """Return how the limits stand."""
        counted = self._subjects.get(limited.subject)
        if counted is None:
            return ()
        now = self._clock.monotonic()
        return tuple(share.standing(what, now) for what, share in counted.shares.items())

    def subjects(self) -> Iterable[Limited]:
        """Return whom this instance counts for now."""
        return [counted.limited for counted in self._subjects.values()]

    def instances(self) -> int:
        """Return how many instances share the limits, this one too."""
        now = self._clock.monotonic()
        return 1 + sum(now - one.changed_at < GONE_SECONDS for one in self._neighbours.values())

    def _start(self) -> None:
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="switchyard-limits-exchange")

    def _counted(self, limited: Limited) -> Counted:
        counted = self._subjects.get(limited.subject)
        if counted is None or counted.limited != limited:
            counted = self._subjects[limited.subject] = self._take_up(limited)
        return counted

    def _take_up(self, limited: Limited) -> Counted:
        """Begin to count for a subject, from what the others told last."""
        now = self._clock.monotonic()
        limits: tuple[tuple[What, int | None], ...] = (
            ("requests", limited.requests_per_minute),
            ("tokens", limited.tokens_per_minute),
        )
        shares = {what: Share(limit) for what, limit in limits if limit is not None}
        self._taken_up += 1
        counted = Counted(limited, shares, self._taken_up, now)
        if now - self._exchanged_at < STALE_SECONDS:
            self._compare(counted, now, self.instances(), elapsed=None)
        return counted

    # ---- exchanging --------------------------------------------------------------------------------------------------

    async def exchange(self) -> None:
        """Tell and be told, once. Raise `StorageUnavailableError`."""
        began = self._clock.monotonic()
        elapsed: float | None = began - self._exchanged_at
        if elapsed is None or elapsed > STALE_SECONDS:
            elapsed = None
        self._measure(began, elapsed or INTERVAL)
        await self._tell()
        found = [entity async for entity in self._table.query(PARTITION)]
        now = self._clock.monotonic()
        await self._listen(found, now)
        instances = self.instances()
        for counted in self._subjects.values():
            self._compare(counted, now, instances, elapsed=elapsed)
        self._exchanged_at = now

    async def aclose(self) -> None:
        """Stop, and take this instance's row away."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._written:
            try:
                await self._table.transact([Op(Action.DELETE, Entity(PARTITION, self._instance, etag="*"))])
            except StorageUnavailableError:
                return  # another instance sweeps it

    async def _run(self) -> None:
        serve_nobody()
        while self._clock.monotonic() - self._asked_at < (IDLE_SECONDS if self._neighbours else LONELY_SECONDS):
            try:
                async with asyncio.timeout(TIMEOUT_SECONDS):
                    await self.exchange()
            except (StorageUnavailableError, TimeoutError):
                self._isolate()
            except InvalidEntityError as error:
                _log.warning("The rate limit counters of this instance can't be stored: %s", error.message)
                self._isolate()
            finally:
                self._informed.set()
            await self._clock.sleep(INTERVAL * (0.9 + 0.2 * self._clock.draw()))
            await asyncio.sleep(0)
        self._informed.clear()

    def _isolate(self) -> None:
        """Go on without news: even shares, once the last news is old."""
        now = self._clock.monotonic()
        if now - self._exchanged_at < STALE_SECONDS:
            return
        if now - self._complained_at >= MINUTE:
            self._complained_at = now
            _log.warning("Rate limits go by even shares: the store does not answer")
        instances = max(1, 1 + len(self._neighbours))
        for counted in self._subjects.values():
            for share in counted.shares.values():
                share.isolate(instances, now)

    def _measure(self, now: float, elapsed: float) -> None:
        """Smooth the demand; forget subjects nobody asks for."""
        for subject, counted in list(self._subjects.items()):
            counted.demand += _DEMAND_MEMORY * (counted.asked / elapsed - counted.demand)
            counted.asked = 0
            for share in counted.shares.values():
                share.remember(now)
            if now - counted.used_at > 2 * MINUTE:
                del self._subjects[subject]

    async def _tell(self) -> None:
        self._beats += 1
        told = {subject: counted.told() for subject, counted in self._subjects.items()}
        text = json.dumps(told, separators=(",", ":"))
        chunks = [text[start : start + CHUNK] for start in range(0, len(text), CHUNK)][:MAX_CHUNKS]
        properties: dict[str, str | int] = {f"p{number}": chunk for number, chunk in enumerate(chunks)}
        properties["beat"] = f"{self._started}.{self._beats}"
        await self._table.transact([Op(Action.UPSERT, Entity(PARTITION, self._instance, properties))])
        self._written = True

    async def _listen(self, rows: Iterable[Entity], now: float) -> None:
        silent = []
        found: dict[str, Neighbour] = {}
        for row in rows:
            if row.row == self._instance:
                continue
            beat = str(row.properties.get("beat", ""))
            known = self._neighbours.get(row.row)
            if known is None or known.beat != beat:
                known = Neighbour(beat, now, _read(row))
            elif now - known.changed_at > SWEEP_SECONDS:
                silent.append(row.row)
            found[row.row] = known
        self._neighbours = found
        for name in silent:
            del self._neighbours[name]
            await self._table.transact([Op(Action.DELETE, Entity(PARTITION, name, etag="*"))])

    def _compare(self, counted: Counted, now: float, instances: int, *, elapsed: float | None) -> None:
        """Learn what the others took since the last time; ``elapsed`` None is that this is the first."""
        requests = tokens = 0
        others = 0.0
        lately: dict[What, int] = {"requests": 0, "tokens": 0}
        known: dict[str, Told] = {}
        for name, neighbour in self._neighbours.items():
            told = neighbour.told.get(counted.limited.subject)
            if told is None:
                continue
            known[name] = told
            before = counted.known.get(name)
            if before is None or before[0] != told[0]:
                before = (told[0], 0, 0, 0.0, 0, 0)
            requests += told[1] - before[1]
            tokens += told[2] - before[2]
            if now - neighbour.changed_at < SILENT_SECONDS:
                others += told[3]
                lately = {"requests": lately["requests"] + told[4], "tokens": lately["tokens"] + told[5]}
        counted.known = known
        counted.others = others
        first = elapsed is None
        spend = spend_of(instances) if not first and counted.demand + others > 0.0 else 0.0
        for what, share in counted.shares.items():
            if instances == 1:
                share.alone(now)
                continue
            if first:
                share.gauge.believe(lately[what] + share.lately, now)
                if 2 * lately[what] >= share.gauge.limit:
                    share.fill()
            weight = weight_of(counted.demand or float(counted.asked), others, instances)
            taken = 0 if first else requests if what == "requests" else tokens
            share.exchange(taken, weight, now, elapsed=elapsed or INTERVAL, spend=spend)


def _told(since: int, requests: int, tokens: int, demand: float, late_requests: int, late_tokens: int) -> Told:
    return int(since), int(requests), int(tokens), float(demand), int(late_requests), int(late_tokens)


def _read(row: Entity) -> dict[str, Told]:
    text = "".join(str(row.properties.get(f"p{number}", "")) for number in range(MAX_CHUNKS))
    try:
        found = json.loads(text or "{}")
        return {str(subject): _told(*numbers) for subject, numbers in found.items()}
    except (ValueError, TypeError, AttributeError):  # cut, damaged or of another version: as if it said nothing
        return {}

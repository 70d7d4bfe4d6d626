"""Small limits, kept exactly: one row for each subject, changed by whoever admits, under its ETag.

As the row knows all of the last minute, the whole limit may go at once where that was idle; and who asks first goes first,
on whichever instance.

All requests that ask at the same time in one process share one change of the row (group commit). A refusal needs no store
operation while a copy of the row at most `COPY_SECONDS` old refuses: others can only have filled it up more.

The row's time is the furthest that any instance's clock says: each instance puts its own clock forward to the time it finds
in the row, never back. An instance whose clock is five minutes ahead gives the limit away once, and then all agree.

A write that was not answered is told by its mark, of which the row keeps the last few. Who is not answered in time goes by
an even share of the limit, and what it took is written down later.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from shared.core.errors import StorageUnavailableError
from shared.core.limits import MINUTE, Gauge, Limited, Standing, Verdict, What
from shared.ports import Clock, Entity, EntityChangedError, EntityExistsError, EntityNotFoundError, EntityTable, Value
from shared.tracing import serve_nobody

ROW: Final = "0"
COPY_SECONDS: Final = 1.0
OWN_SECONDS: Final = 0.05
"""How old a copy may be to try a change on it without reading again, when others use the row too."""
CREDIT_SECONDS: Final = 1.0
"""How long a credit waits for a request whose change of the row takes it along."""
RETRY_SECONDS: Final = 1.0
TRIES: Final = 12
UNKNOWN_INSTANCES: Final = 10
"""How many instances share a limit whose row was never read."""
_MARKS: Final = 16
_COLLISION_SECONDS: Final = 0.004


class Fate(Enum):
    """What became of who asked."""

    WAITS = "waits"
    WENT = "went"  # by its share, without the row: to be written down
    LEFT = "left"  # refused elsewhere, or its caller is gone: nothing to write down


_ESCAPES: Final = str.maketrans({"~": "~0", "/": "~1", "\\": "~2", "#": "~3", "?": "~4"})


@dataclass(slots=True, eq=False)
class Asking:
    """One request that asks."""

    requests: int
    tokens: int
    answer: asyncio.Future[Verdict | None]
    fate: Fate = Fate.WAITS
    mark: str = ""
    tick: int = 0
    asked_at: float = 0.0


@dataclass(slots=True)
class Copy:
    """The row as it was read or written last."""

    gauges: dict[What, Gauge]
    etag: str
    marks: list[str]
    who: dict[str, float]
    at: float  # monotonic


@dataclass(slots=True)
class Credits:
    """What is to be taken back: requests and tokens by tick."""

    by_tick: dict[int, list[int]] = field(default_factory=dict)

    def add(self, tick: int, requests: int, tokens: int) -> None:
        """Note one."""
        found = self.by_tick.setdefault(tick, [0, 0])
        found[0] += requests
        found[1] += tokens

    def remove(self, done: Mapping[int, Sequence[int]]) -> None:
        """Strike out what has been taken back."""
        for tick, (requests, tokens) in done.items():
            self.add(tick, -requests, -tokens)
            if self.by_tick[tick] == [0, 0]:
                del self.by_tick[tick]


class ExactRow:
    """One subject's limits."""

    def __init__(self, table: EntityTable, clock: Clock, instance: str, limited: Limited) -> None:
        self._table = table
        self._clock = clock
        self._instance = instance
        self._marks = (f"{instance}.{number}" for number in itertools.count(int(clock.now() * 1000)))
        self._ahead = clock.now() - clock.monotonic()
        self._copy: Copy | None = None
        self._queue: list[Asking] = []
        self._owed: list[Asking] = []
        self._credits = Credits()
        self._in_doubt: tuple[str, dict[int, list[int]]] | None = None
        self._task: asyncio.Task[None] | None = None
        self._wake = asyncio.Event()
        self._share = _gauges(limited)
        self._instances = 0
        self.limited = limited
        self.used_at = clock.monotonic()

    # ---- asking ------------------------------------------------------------------------------------------------------

    def refusal(self, requests: int, tokens: int) -> Verdict | None:
        """Return a refusal that is certain without asking the store."""
        copy = self._copy
        if copy is None or self._clock.monotonic() - copy.at > COPY_SECONDS:
            return None
        return _refusal(copy.gauges, _costs(copy.gauges, requests, tokens), self._now())

    def ask(self, requests: int, tokens: int) -> Asking:
        """Ask the row; the answer None is that the store did not answer."""
        self.used_at = self._clock.monotonic()
        asking = Asking(requests, tokens, asyncio.get_running_loop().create_future(), asked_at=self.used_at)
        self._queue.append(asking)
        self._start()
        return asking

    def by_share(self, asking: Asking) -> Verdict:
        """Decide without the row, by an even share of the limit; what goes is written down later."""
        instances = self._instances or UNKNOWN_INSTANCES
        for gauge in self._share.values():
            gauge.limit_to(instances)
        now = self._now()
        costs = _costs(self._share, asking.requests, asking.tokens)
        refusal = _refusal(self._share, costs, now)
        if refusal is not None:
            asking.fate = Fate.LEFT
            return refusal
        asking.fate = Fate.WENT
        for what, cost in costs.items():
            asking.tick = self._share[what].add(cost, now)
        if asking not in self._owed and asking not in self._queue:
            self._owed.append(asking)
            self._start()
        return Verdict(tick=asking.tick, standings=_standings(self._share, now))

    def leave(self, asking: Asking) -> None:
        """Ask no longer: the caller is gone."""
        verdict = asking.answer.result() if asking.answer.done() and not asking.answer.cancelled() else None
        if verdict is not None and verdict.refused is None:
            self.credit(asking.tick, asking.requests, asking.tokens)
            return
        asking.fate = Fate.LEFT
        asking.answer.cancel()

    def credit(self, tick: int, requests: int, tokens: int) -> None:
        """Take back part of what was admitted under ``tick``, soon."""
        if requests or ("tokens" in self._share and tokens):
            self._credits.add(tick, requests, tokens)
            self._start()

    # ---- writing -----------------------------------------------------------------------------------------------------

    async def flush(self) -> None:
        """Write what waits; raise `StorageUnavailableError` when the store does not take it."""
        if self._queue or self._owed or self._credits.by_tick:
            await self._change()

    async def aclose(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def standings(self) -> tuple[Standing, ...]:
        """Return how the limits stand as far as this instance knows."""
        copy = self._copy
        if copy is None:
            return ()
        return _standings(copy.gauges, self._now())

    @property
    def idle(self) -> bool:
        """Say whether nothing is going on."""
        return self._task is None or self._task.done()

    def _start(self) -> None:
        self._wake.set()
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._run(), name="switchyard-limits-row")

    async def _run(self) -> None:
        serve_nobody()
        while self._queue or self._owed or self._credits.by_tick:
            self._wake.clear()
            if not self._queue and not self._owed:
                await self._wait_for_company()
            try:
                await self._change()
            except StorageUnavailableError:
                await self._clock.sleep(RETRY_SECONDS * (0.5 + self._clock.draw()))
                self._forget_old()

    async def _wait_for_company(self) -> None:
        """Let credits wait until somebody asks: one change of the row for both."""
        pause = asyncio.ensure_future(self._clock.sleep(CREDIT_SECONDS))
        company = asyncio.ensure_future(self._wake.wait())
        try:
            while not pause.done() and not self._queue:
                await asyncio.wait({pause, company}, return_when=asyncio.FIRST_COMPLETED)
                if company.done() and not self._queue:
                    self._wake.clear()
                    company = asyncio.ensure_future(self._wake.wait())
        finally:
            pause.cancel()
            company.cancel()

    def _forget_old(self) -> None:
        """Give up what would have left the minute anyway."""
        moment = self._clock.monotonic()
        self._owed = [one for one in self._owed if moment - one.asked_at < MINUTE]
        oldest = (self._now() - MINUTE) * 1000
        for tick in [tick for tick in self._credits.by_tick if tick < oldest]:
            del self._credits.by_tick[tick]

    async def _change(self) -> None:
        """Admit everybody who fits in one change of the row, trying again when others were faster."""
        try:
            for number in range(TRIES):
                if number:
                    await self._clock.sleep(_COLLISION_SECONDS * number * self._clock.draw())
                copy = await self._current(fresh=number > 0)
                if await self._try(copy):
                    return
        except StorageUnavailableError:
            self._copy = None
            self._give_up()
            raise
        self._give_up()

    def _give_up(self) -> None:
        """Let everybody go by the share; they may be in the row all the same, and are known by their mark then."""
        queue, self._queue = self._queue, []
        for asking in queue:
            if not asking.answer.done():
                asking.answer.set_result(None)
            if asking.fate is Fate.WENT or asking.mark:
                self._owed.append(asking)

    async def _current(self, *, fresh: bool) -> Copy:
        copy = self._copy
        moment = self._clock.monotonic()
        if copy is not None and not fresh:
            alone = len(copy.who) <= 1 and moment - copy.at < MINUTE
            if alone or moment - copy.at < OWN_SECONDS:
                return copy
        entity = await self._table.get(_partition(self.limited.subject), ROW)
        copy = self._copy = self._read(entity)
        return copy

    async def _try(self, copy: Copy) -> bool:
        """Change the row as it was in ``copy``; False when others changed it first."""
        self._settle_doubt(copy)
        queue = [one for one in self._queue if one.fate is not Fate.LEFT]
        batch = [*self._owed, *queue]
        credited = {tick: list(amounts) for tick, amounts in self._credits.by_tick.items()}
        taken, verdicts = self._apply(copy, batch, credited)
        if taken or credited:
            mark = next(self._marks)
            self._in_doubt = (mark, credited)
            for one in taken:
                one.mark = mark
            self._copy = None  # until the answer is there, nothing is known
            try:
                await self._write(copy, mark)
            except (EntityChangedError, EntityExistsError, EntityNotFoundError):
                return False
        self._credits.remove(credited)
        self._in_doubt = None
        self._finish(batch, verdicts)
        return True

    def _apply(
        self, copy: Copy, batch: Iterable[Asking], credited: dict[int, list[int]]
    ) -> tuple[list[Asking], dict[int, Verdict]]:
        now = self._now()
        for gauge in copy.gauges.values():
            gauge.level(now)
        for tick, (requests, tokens) in credited.items():
            for what, cost in _costs(copy.gauges, requests, tokens).items():
                copy.gauges[what].credit(cost, tick)
        taken: list[Asking] = []
        verdicts: dict[int, Verdict] = {}
        for one in batch:
            costs = _costs(copy.gauges, one.requests, one.tokens)
            refusal = None if one.fate is Fate.WENT else _refusal(copy.gauges, costs, now)
            if refusal is None:
                tick = one.tick
                for what, cost in costs.items():
                    tick = copy.gauges[what].add(cost, now)
                if one.fate is Fate.WAITS:
                    one.tick = tick
                taken.append(one)
                refusal = Verdict(tick=tick, standings=_standings(copy.gauges, now))
            verdicts[id(one)] = refusal
        return taken, verdicts

    def _finish(self, batch: list[Asking], verdicts: dict[int, Verdict]) -> None:
        done = {id(one) for one in batch}
        self._queue = [one for one in self._queue if id(one) not in done and one.fate is not Fate.LEFT]
        self._owed = [one for one in self._owed if id(one) not in done]
        for one in batch:
            verdict = verdicts[id(one)]
            if one.fate is Fate.LEFT and verdict.refused is None:
                self._credits.add(one.tick, one.requests, one.tokens)
            elif one.fate is Fate.WAITS and not one.answer.done():
                if verdict.refused is None:
                    for what, cost in _costs(self._share, one.requests, one.tokens).items():
                        self._share[what].add(cost, self._now())
                one.answer.set_result(verdict)

    def _settle_doubt(self, copy: Copy) -> None:
        """Find out by their marks which of those who were not answered are in the row."""
        landed = set(copy.marks)
        if self._in_doubt is not None and self._in_doubt[0] in landed:
            self._credits.remove(self._in_doubt[1])
        self._in_doubt = None
        for one in list(self._owed):
            if one.mark and one.mark in landed:
                self._owed.remove(one)
                if one.fate is Fate.LEFT:
                    self._credits.add(one.tick, one.requests, one.tokens)
            elif one.fate is Fate.LEFT:
                self._owed.remove(one)
            else:
                one.mark = ""

    # ---- the row -----------------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return self._clock.monotonic() + self._ahead

    def _read(self, entity: Entity | None) -> Copy:
        copy = Copy(_gauges(self.limited), "", [], {}, self._clock.monotonic())
        if entity is None:
            return copy
        copy.etag = entity.etag
        properties = entity.properties
        try:
            at = float(properties.get("at", 0.0))
            for what, gauge in copy.gauges.items():
                text = properties.get(what)
                if text is not None:
                    gauge.load(str(text))
        except ValueError:  # damaged: begin anew rather than refuse for ever
            return copy
        self._ahead = max(self._ahead, at - self._clock.monotonic())
        copy.marks = str(properties.get("marks", "")).split()
        known = (pair.rpartition("=") for pair in str(properties.get("who", "")).split())
        copy.who = {name: float(seen) for name, _, seen in known if name}
        self._instances = max(1, len(copy.who))
        return copy

    async def _write(self, copy: Copy, mark: str) -> None:
        now = self._now()
        copy.who[self._instance] = round(now, 1)
        copy.who = {name: seen for name, seen in copy.who.items() if now - seen < MINUTE}
        self._instances = len(copy.who)
        copy.marks = [*copy.marks, mark][-_MARKS:]
        properties: dict[str, Value] = {
            "at": now,
            "marks": " ".join(copy.marks),
            "who": " ".join(f"{name}={seen}" for name, seen in copy.who.items()),
        }
        properties.update((what, gauge.text()) for what, gauge in copy.gauges.items())
        entity = Entity(_partition(self.limited.subject), ROW, properties, copy.etag)
        copy.etag = await (self._table.replace(entity) if copy.etag else self._table.insert(entity))
        copy.at = self._clock.monotonic()
        self._copy = copy


def _gauges(limited: Limited) -> dict[What, Gauge]:
    limits: tuple[tuple[What, int | None], ...] = (
        ("requests", limited.requests_per_minute),
        ("tokens", limited.tokens_per_minute),
    )
    return {what: Gauge(limit) for what, limit in limits if limit is not None}


def _costs(gauges: dict[What, Gauge], requests: int, tokens: int) -> dict[What, int]:
    """Return what is charged: a request of more tokens than the limit is charged as the limit."""
    amounts: dict[What, int] = {"requests": requests, "tokens": tokens}
    return {what: gauge.charge(amounts[what]) for what, gauge in gauges.items()}


def _refusal(gauges: dict[What, Gauge], costs: dict[What, int], now: float) -> Verdict | None:
    waits = {what: gauge.wait(costs[what], now) for what, gauge in gauges.items()}
    longest = max(waits, key=waits.__getitem__)
    if waits[longest] <= 0.0:
        return None
    return Verdict(refused=0, what=longest, retry_after=waits[longest], standings=_standings(gauges, now))


def _standings(gauges: dict[What, Gauge], now: float) -> tuple[Standing, ...]:
    return tuple(gauge.standing(what, now) for what, gauge in gauges.items())


def _partition(subject: str) -> str:
    """Return a subject as a key: a deployment's name has a slash, which keys can't hold."""
    return subject.translate(_ESCAPES)

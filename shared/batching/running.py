"""A run of a slice: its lines are asked a few at a time, each as an ordinary request; what they come to is written in groups.

A run owns its slice as long as its name stands in the slice's head, which every write checks. It sends nothing unless it has
written lately: a run that was taken for dead finds out before it sends another line.
"""

from __future__ import annotations

import asyncio
import logging
import math
import secrets
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from shared.batches import Batch, Status
from shared.batches.lines import BadLine, Line, Result, Spent, expired, refused
from shared.batches.slices import LEASE_SECONDS, Head, Index, Later, LostSliceError
from shared.batching.asking import Asking, Wire
from shared.batching.preparing import read_line
from shared.core.errors import NotFoundError, StorageUnavailableError
from shared.gateway import Gateway
from shared.rights import caller_now

RUN_SECONDS: Final = 120.0
"""After which a run begins no more lines: the engine starts another."""
PATIENCE: Final = 5.0
"""Seconds a run waits for lines that are to be tried again; for longer the engine waits."""
GATHER_SECONDS: Final = 0.1
"""What ends within this time is written together."""
BEAT_SECONDS: Final = 5.0
LOOK_SECONDS: Final = 1.0
"""How often a run says that it lives, and how often it looks whether its batch is cancelled and tells how far it is."""
MARGIN_SECONDS: Final = 8.0
"""So long before its lease ends a run sends nothing more until it has renewed it."""
SAVE_TRIES: Final = 300
"""Seconds for which a run tries to write what lines came to: that was paid for."""

_log = logging.getLogger(__name__)

__all__ = ["Wire", "run_slice"]


async def run_slice(gateway: Gateway, given: Mapping[str, Any], wire: Wire) -> dict[str, Any]:
    """Run lines of a slice: ``{"state": "done" | "later" | "stopped", "due"}``; ``due`` is when to go on (epoch seconds).

    Raise `StorageUnavailableError` when nothing can be said now: then the engine asks again.
    """
    batch = await gateway.batches.get(given["id"])
    if batch.status is not Status.IN_PROGRESS:
        return {"state": "stopped", "due": 0.0}
    index = await gateway.batches.slices.index(batch.id, given["slice"])
    head = await gateway.batches.slices.take(batch.id, index, secrets.token_hex(8))
    if isinstance(head, float):
        return {"state": "later", "due": gateway.clock.now() + head}
    lines = await _lines(gateway, batch, index, head)
    caller = await caller_now(gateway, batch.caller)
    if caller is None:
        lines = {place: _revoked(line) for place, line in lines.items()}
    else:
        batch = replace(batch, caller=caller)
    try:
        return await _Run(gateway, batch, head, lines, wire).go()
    except LostSliceError:
        _log.warning("Slice %d of %s was taken over by another run", index.number, batch.id)
        return {"state": "later", "due": gateway.clock.now() + LEASE_SECONDS}


def _revoked(line: Line | BadLine) -> BadLine:
    message = "The key that made this batch has expired or was revoked before this line was run."
    return line if isinstance(line, BadLine) else BadLine(line.number, line.custom_id, "invalid_api_key", message)


async def _lines(gateway: Gateway, batch: Batch, index: Index, head: Head) -> dict[int, Line | BadLine]:
    """Return the lines that have no outcome yet, by their places."""
    repeated = await gateway.batches.slices.repeated(batch.id, index.number)
    left, found = set(head.left), dict[int, Line | BadLine]()
    place, number = 0, index.line
    try:
        async for raw in gateway.files.lines(batch.input_file, index.offset):
            read = read_line(gateway, batch.endpoint, number, raw.content)
            number += 1
            if read is None:
                continue
            if place in left:
                found[place] = _unique(read, repeated.get(place))
            place += 1
            if place > max(left, default=-1):
                break
    except NotFoundError:
        _log.warning("The input file of %s is gone", batch.id)
    for missing in left - found.keys():
        found[missing] = BadLine(0, None, "input_file_gone", "The input file was deleted before this line was read.")
    return found


def _unique(read: Line | BadLine, first: int | None) -> Line | BadLine:
    if first is None or isinstance(read, BadLine):
        return read
    message = f"Line {read.number} has the `custom_id` of line {first}. They must be unique in a batch."
    return BadLine(read.number, read.custom_id, "duplicate_custom_id", message, "custom_id")


class _Run:
    """One run of one slice. Results wait in ``_results`` until the keeper writes them."""

    def __init__(self, gateway: Gateway, batch: Batch, head: Head, lines: dict[int, Line | BadLine], wire: Wire) -> None:
        self._gateway, self._batch, self._head, self._lines = gateway, batch, head, lines
        self._clock = gateway.clock
        self._asking = Asking(gateway, batch, wire)
        self._name = head.owner
        self._began = self._clock.monotonic()
        self._owned_until = self._began + LEASE_SECONDS - MARGIN_SECONDS
        self._waiting = dict.fromkeys(sorted(lines))
        self._running: dict[asyncio.Task[Result | Later], int] = {}
        self._later: dict[int, Later] = dict(head.later)
        self._results: dict[int, Result] = {}
        self._changed = False
        self._stopped = False
        self._fed = False

    async def go(self) -> dict[str, Any]:
        """Run; return what is to be done next. Raise `LostSliceError`, `StorageUnavailableError`."""
        loop = asyncio.get_running_loop()
        keeper, feeder = loop.create_task(self._keep()), loop.create_task(self._feed())
        try:
            await asyncio.wait((keeper, feeder), return_when=asyncio.FIRST_COMPLETED)
            if not keeper.done():
                await asyncio.wait((keeper,))
        finally:
            tasks = [task for task in (keeper, feeder, *self._running) if not task.done()]
            for task in tasks:
                task.cancel()
            if tasks:
                await asyncio.wait(tasks)
        keeper.result()
        feeder.result()
        left = self._head.left
        if not left:
            return {"state": "done", "due": 0.0}
        return {"state": "stopped" if self._stopped else "later", "due": min(self._due(place) for place in left)}

    # ---- asking ------------------------------------------------------------------------------------------------------

    async def _feed(self) -> None:
        """Ask lines as long as there are some and this run may."""
        try:
            self._refuse_bad()
            while (place := await self._next()) is not None:
                await self._gateway.traffic.turn(self._clock)
                begun = False
                try:
                    begun = self._may_begin() and await self._owns() and self._begin(place)
                finally:
                    if not begun:
                        self._gateway.traffic.done()
            while self._running:
                await asyncio.wait(self._running, return_when=asyncio.FIRST_COMPLETED)
            if self._is_over():
                self._expire()
        finally:
            self._fed = True

    def _refuse_bad(self) -> None:
        for place in [place for place, line in self._lines.items() if isinstance(line, BadLine)]:
            line = self._lines[place]
            if isinstance(line, BadLine):
                self._results[place] = refused(self._batch.id, line)
                del self._waiting[place]

    def _is_over(self) -> bool:
        return self._clock.now() >= self._batch.expires_at

    def _may_begin(self) -> bool:
        return not self._stopped and not self._is_over() and self._clock.monotonic() - self._began < RUN_SECONDS

    async def _owns(self) -> bool:
        """Say whether the slice is still this run's; wait while the store does not tell."""
        while self._clock.monotonic() >= self._owned_until:
            if not self._may_begin():
                return False
            await self._clock.sleep(GATHER_SECONDS)
        return True

    async def _next(self) -> int | None:
        """Return the line to ask next, as soon as it may be asked; None when this run is to begin no more."""
        while self._may_begin():
            place = min(self._waiting, key=self._due, default=None)
            due = math.inf if place is None else self._due(place) - self._clock.now()
            if place is not None and due <= 0:
                return place
            if self._running and due > GATHER_SECONDS:
                await asyncio.wait(self._running, timeout=BEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            elif due > PATIENCE:
                return None
            else:
                await self._clock.sleep(min(due, GATHER_SECONDS))
        return None

    def _due(self, place: int) -> float:
        """Return when a line may be asked: not before its own time, nor before its model is to be asked again."""
        due = later.due if (later := self._later.get(place)) is not None else 0.0
        line = self._lines[place]
        return due if isinstance(line, BadLine) else max(due, self._asking.pause_of(line))

    def _begin(self, place: int) -> bool:
        line = self._lines[place]
        assert isinstance(line, Line)  # noqa: S101 - the others have been refused
        del self._waiting[place]
        task = asyncio.get_running_loop().create_task(self._asking.ask(line, self._later.get(place)))
        self._running[task] = place
        task.add_done_callback(partial(self._ended, line))
        return True

    def _ended(self, line: Line, task: asyncio.Task[Result | Later]) -> None:
        place = self._running.pop(task)
        self._gateway.traffic.done()
        if task.cancelled():
            return
        outcome = self._asking.failed(line, error) if (error := task.exception()) is not None else task.result()
        if isinstance(outcome, Later):
            self._later[place] = outcome
            self._waiting[place] = None
            self._changed = True
        else:
            self._later.pop(place, None)
            self._results[place] = outcome

    def _expire(self) -> None:
        for place in list(self._waiting):
            line, later = self._lines[place], self._later.pop(place, None)
            spent = Spent() if later is None else later.spent
            self._results[place] = expired(self._batch.id, line.number, line.custom_id, spent)
        self._waiting.clear()

    # ---- writing -----------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Write what lines come to, say that this run lives, look whether it is to stop; give the slice back at the end."""
        beaten = looked = self._began
        while not self._fed:
            before = self._clock.monotonic()
            await self._clock.sleep(GATHER_SECONDS)
            now = self._clock.monotonic()
            self._gateway.traffic.felt(now - before - GATHER_SECONDS)
            if self._results or self._changed or now - beaten >= BEAT_SECONDS:
                await self._save(self._name)
                beaten = now
            if now - looked >= LOOK_SECONDS:
                await self._look()
                looked = now
        await self._save("")
        await self._tell()

    async def _save(self, owner: str) -> None:
        slices = self._gateway.batches.slices
        results, self._results, self._changed = self._results, {}, False
        for tries in range(SAVE_TRIES):
            head = replace(self._head, owner=owner, later=dict(self._later))
            began = self._clock.monotonic()
            try:
                self._head = await slices.commit(self._name, head, results)
            except StorageUnavailableError:
                if tries == SAVE_TRIES - 1:
                    raise
                await self._clock.sleep(1.0)
                continue
            self._owned_until = began + LEASE_SECONDS - MARGIN_SECONDS
            return

    async def _look(self) -> None:
        try:
            batch = await self._gateway.batches.get(self._batch.id)
            await self._tell()
        except StorageUnavailableError:
            return  # it is asked again soon
        self._stopped = batch.status is not Status.IN_PROGRESS

    async def _tell(self) -> None:
        await self._gateway.batches.slices.note(self._head)

"""One process of the ledger's benchmark: tasks that reserve, wait as long as a call takes, and settle.

    python -m tests.bench.money.load WINDOW NAME

WINDOW is JSON, see `Window`. What was measured is written to a file when the window is over.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from shared.adapters.clock import SystemClock
from shared.core.errors import StorageUnavailableError
from tests.bench.money.counting import CountingTables
from tests.bench.money.designs import Design, design
from tests.bench.money.stores import opened

AMOUNT = 2_000_000


@dataclass(frozen=True, slots=True)
class Window:
    """What is measured. Times are seconds; ``interval`` is from one request of a task to its next, 0: as fast as it can."""

    setting: str
    folder: str
    design: str
    budget: str
    tasks: int
    interval: float
    call: float
    warm_up: float
    seconds: float


@dataclass(slots=True)
class Found:
    """What one process has measured."""

    pairs: int = 0
    refused: int = 0
    requests: int = 0
    conflicts: int = 0
    cpu: float = 0.0
    seconds: float = 0.0
    added: list[float] = field(default_factory=list)  # milliseconds
    writing: list[float] = field(default_factory=list)  # milliseconds


class Load:
    """The tasks of one process."""

    def __init__(self, window: Window, name: str, made: Design) -> None:
        self._window = window
        self._name = name
        self._design = made
        self.found = Found()
        self._steady = False
        self._over = False

    async def run(self, counts: CountingTables) -> Found:
        """Warm up, measure, end."""
        tasks = [asyncio.create_task(self._work(number)) for number in range(self._window.tasks)]
        await asyncio.sleep(self._window.warm_up)
        began, cpu, requests, conflicts = time.monotonic(), time.process_time(), counts.requests, counts.conflicts
        counts.writing.clear()
        self._steady = True
        await asyncio.sleep(self._window.seconds)
        self._steady = False
        found = self.found
        found.seconds, found.cpu = time.monotonic() - began, time.process_time() - cpu
        found.requests, found.conflicts = counts.requests - requests, counts.conflicts - conflicts
        found.writing = list(counts.writing)
        self._over = True
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return found

    async def _work(self, number: int) -> None:
        window, random = self._window, Random(f"{self._name}/{number}")
        due = time.monotonic() + window.interval * random.random()
        count = 0
        while not self._over:
            if window.interval:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                due = max(due + window.interval * random.uniform(0.8, 1.2), time.monotonic() - window.interval)
            count += 1
            began = time.perf_counter()
            try:
                held = await self._design.reserve(f"{self._name}-{number}-{count}", AMOUNT)
            except StorageUnavailableError:
                self.found.refused += self._steady
                continue
            if self._steady:
                self.found.added.append((time.perf_counter() - began) * 1e3)
            await asyncio.sleep(window.call)
            await self._design.settle(held, AMOUNT // 2)
            self.found.pairs += self._steady


async def main() -> None:
    """Measure."""
    window, name = Window(**json.loads(sys.argv[1])), sys.argv[2]
    folder = Path(window.folder)
    async with opened(window.setting) as tables:
        counts = CountingTables(tables)
        made = design(window.design, counts, SystemClock(), name, budget=window.budget)
        (folder / f"{name}.ready").touch()
        while not (folder / "go").exists():
            await asyncio.sleep(0.01)
        found = await Load(window, name, made).run(counts)
        await made.aclose()
    (folder / f"{name}.json").write_text(
        json.dumps({one: getattr(found, one) for one in found.__slots__}),
        encoding="utf-8",
    )


if __name__ == "__main__":
    asyncio.run(main())

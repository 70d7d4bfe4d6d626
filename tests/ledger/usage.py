"""The usage log as far as the ledger knows of it: what an instance has taken is written a little later, or dies with it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from random import Random

from shared.ports import Clock


class UsageLog:
    """One instance's usage log. ``written`` is the store that all share: the names of attempts whose usage is in it."""

    def __init__(self, clock: Clock, written: set[str], *, lag: float, random: Random) -> None:
        self.written = written
        self._clock = clock
        self._lag = lag
        self._random = random
        self._pending: dict[str, float] = {}

    def record(self, attempts: Iterable[str]) -> None:
        """Take the attempts of a request that has ended."""
        for attempt in attempts:
            self._pending[attempt] = self._clock.now()

    def written_until(self) -> float:
        """Return the moment before which all that was taken is written."""
        return min(self._pending.values(), default=self._clock.now())

    async def run(self) -> None:
        """Write now and then what was taken. Mostly soon; sometimes the store of the usage takes its time."""
        while True:
            await asyncio.sleep(self._lag * (1.0 if self._random.random() < 0.9 else 10.0))
            self.flush()

    def flush(self) -> None:
        """Write everything."""
        self.written.update(self._pending)
        self._pending.clear()

"""How busy this process is with callers who wait: what background work yields to.

Requests whose callers wait are only counted, which costs nothing. Background work takes turns: as many at once as have been
going well, and, while anybody waits, few and with pauses in between that grow when the event loop is late.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

from shared.ports import Clock

FIRST: Final = 8
MOST: Final = 64
"""Turns at once, at the start and at the most, while nobody waits."""
YIELDING: Final = 12
"""Turns at once while somebody waits. What waits for a provider costs callers nothing: what does is beginning and ending."""
LEAST: Final = 2
CALM_SECONDS: Final = 0.5
"""Callers come and go: nobody is taken to wait when none has been seen for so long."""
MIN_PAUSE: Final = 0.012
MAX_PAUSE: Final = 0.1
"""Seconds between the beginnings of two turns while somebody waits."""
LATE: Final = 0.015
"""Seconds the event loop may be late before background work slows down."""


class Traffic:
    """Counts the requests in flight whose callers wait for their answer, and gives turns to work that nobody waits for."""

    __slots__ = ("_busy_at", "_pause", "_seen", "_starting", "_waiters", "_width", "background", "interactive", "served")

    def __init__(self) -> None:
        self.interactive = 0
        self.served = 0
        self.background = 0
        self._width = float(FIRST)
        self._pause = MIN_PAUSE
        self._seen = 0
        self._busy_at = float("-inf")
        self._waiters: deque[asyncio.Future[None]] = deque()
        self._starting: asyncio.Lock = asyncio.Lock()

    def enter(self) -> None:
        """Count a request whose caller waits."""
        self.interactive += 1

    def leave(self) -> None:
        """Take it from the count."""
        self.interactive -= 1
        self.served += 1

    def width(self, clock: Clock) -> int:
        """Return how many turns there are at once now."""
        return min(YIELDING, int(self._width)) if self._busy(clock.monotonic()) else int(self._width)

    def _busy(self, now: float) -> bool:
        if self.interactive or self.served != self._seen:
            self._seen = self.served
            self._busy_at = now
        return now - self._busy_at < CALM_SECONDS

    async def turn(self, clock: Clock) -> None:
        """Wait for a turn; give it back with `done`."""
        async with self._starting:
            while self.background >= self.width(clock):
                await self._one_is_done()
            now = clock.monotonic()
            if self._busy(now):
                await clock.sleep(self._pause)
                self.felt(clock.monotonic() - now - self._pause)
            self.background += 1

    async def _one_is_done(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        await waiter

    def done(self) -> None:
        """Give a turn back."""
        self.background -= 1
        self._width = min(float(MOST), self._width + 1 / self._width)
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)

    def felt(self, late: float) -> None:
        """Take note of how late the event loop was, in seconds."""
        if late > LATE:
            self._pause = min(MAX_PAUSE, self._pause * 1.3)
            self._width = max(float(LEAST), self._width * 0.9)
        else:
            self._pause = max(MIN_PAUSE, self._pause * 0.95)

"""The machine's time and chance."""

from __future__ import annotations

import asyncio
import random
import time


class SystemClock:
    """`Clock` over the machine's own."""

    def __init__(self) -> None:
        self.now = time.time
        self.monotonic = time.monotonic
        self.draw = random.random

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)

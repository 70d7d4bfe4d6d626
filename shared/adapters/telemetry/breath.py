"""How the telemetry's threads let requests go first."""

from __future__ import annotations

import time
from typing import Final

SLICE: Final = 0.0002
"""Seconds of work without a rest. Whoever wants the interpreter has to wait for its end: without rests 5 ms at a time."""
REST: Final = 0.0001
"""Seconds given away then. A rest takes some 15 µs of processor time itself."""


class Breath:
    """For one thread: to be taken after each small step of its work."""

    def __init__(self) -> None:
        self._since = time.monotonic()

    def take(self) -> None:
        """Rest, if it is time."""
        if time.monotonic() - self._since >= SLICE:
            time.sleep(REST)
            self._since = time.monotonic()

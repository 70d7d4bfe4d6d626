"""What waits to be sent, in batches: bounded, tried again after growing pauses, given up in the end."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from shared.adapters.telemetry.exporters import Fate, Sent

BATCH: Final = 256
"""Items that are sent at once, at most."""
BATCH_BYTES: Final = 1_000_000
"""Where a batch ends although it has fewer: spans may carry prompts."""
BOUND: Final = 8_192
"""Items that wait, at most."""
BOUND_BYTES: Final = 16_000_000
TRIES: Final = 6
"""How often a batch is tried: for about five minutes. Its destination may never take it."""
FIRST_PAUSE: Final = 5.0
LONGEST_PAUSE: Final = 300.0

Item = TypeVar("Item")


@dataclass(slots=True)
class Pause:
    """When to try again: after 5, 10, 20 … seconds, or after what the destination asks for."""

    failures: int = 0
    until: float = float("-inf")

    def told(self, sent: Sent, now: float) -> None:
        """Learn from a try."""
        if sent.fate is Fate.LATER:
            pause = min(max(FIRST_PAUSE * 2**self.failures, sent.wait), LONGEST_PAUSE)
            self.failures, self.until = self.failures + 1, now + pause
        else:
            self.failures, self.until = 0, float("-inf")


@dataclass(slots=True)
class Lane(Generic[Item]):
    """Items of one kind. One thread adds, another sends: each writes its own fields only."""

    send: Callable[[Sequence[Item]], Sent]
    pause: Pause = field(default_factory=Pause)
    flows: bool = False
    """Whether what was last sent was taken."""
    turned_away: int = 0
    """Items that had no place."""
    given_up: int = 0
    """Items that the destination did not take."""
    gone: int = 0
    """Items that wait no more: sent, or given up."""
    _waiting: deque[tuple[Item, int]] = field(default_factory=deque)
    _bytes_in: int = 0
    _bytes_out: int = 0
    _tries: int = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, item: Item, size: int) -> bool:
        """Let an item of about ``size`` bytes wait; return False when there is no place."""
        if len(self._waiting) >= BOUND or self._bytes_in - self._bytes_out + size > BOUND_BYTES:
            self.turned_away += 1
            return False
        self._bytes_in += size
        self._waiting.append((item, size))
        return True

    def flush(self, now: float) -> Sent | None:
        """Send one batch; return how that went, None when there is nothing to send or it is not time yet."""
        if not self._waiting or now < self.pause.until:
            return None
        batch, size = self._batch()
        sent = self.send([item for item, _ in batch])
        self.pause.told(sent, now)
        self.flows = sent.fate is Fate.SENT
        self._tries = self._tries + 1 if sent.fate is Fate.LATER else 0
        if sent.fate is Fate.LATER and self._tries < TRIES:
            self._waiting.extendleft(reversed(batch))
            return sent
        self._bytes_out += size
        self.gone += len(batch)
        if sent.fate is not Fate.SENT:
            self.given_up += len(batch)
            self._tries = 0
        return sent

    def _batch(self) -> tuple[list[tuple[Item, int]], int]:
        batch: list[tuple[Item, int]] = []
        size = 0
        while self._waiting and len(batch) < BATCH and size < BATCH_BYTES:
            item = self._waiting.popleft()
            batch.append(item)
            size += item[1]
        return batch, size

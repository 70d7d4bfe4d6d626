"""The ledger's numbers. Times are seconds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class LedgerPolicy:
    """How long things wait and how much is taken at once.

    ``gather`` is how long settlements wait for company before they are written; ``wait`` how long a reservation waits for
    money or the store, and ``grace`` how much longer for money that is there and on its way; ``ttl`` how long a session's
    fence may stay unchanged before recovery takes the session over. A lease takes what it will need within ``horizon``, at
    most ``share`` of what is left, and asks again below ``prefetch`` of that. For ``idle`` seconds after its last call it
    keeps what one call needs, if that is at most ``standby`` of what is left.
    """

    gather: float = 0.1
    wait: float = 2.0
    grace: float = 0.8
    ttl: float = 30.0
    tick: float = 1.0
    fold_every: float = 2.0
    rotate_after: float = 300.0
    rotate_rows: int = 20_000
    idle: float = 20.0
    horizon: float = 2.0
    share: float = 0.25
    prefetch: float = 0.3
    standby: float = 0.02
    first_backoff: float = 0.02
    max_backoff: float = 1.0
    skew: float = 300.0

    def backoff(self, failures: int, draw: float) -> float:
        """Return how long to wait after so many failures in a row; ``draw`` (0..1) spreads the crowd."""
        full = min(self.max_backoff, self.first_backoff * 2.0 ** min(failures - 1, 10))
        return full * (0.5 + draw / 2)


DEFAULT_POLICY: Final = LedgerPolicy()

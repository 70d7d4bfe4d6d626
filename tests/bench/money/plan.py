"""What the processes of a kill run agree on: the store, the budgets, the provider, how long things take."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from shared.core.budgets import Account
from shared.ledger import LedgerPolicy

PERIOD: Final = "2026-11"
LEAST_BOUND: Final = 200_000
MOST_BOUND: Final = 5_000_000
"""Bounds of what a call may cost at most, nano-USD."""
MEAN_CHARGE: Final = 1_550_000
"""What a call is charged on average, given the provider's ways; see `provider`."""
BILLED: Final = "billed.jsonl"
REFUSED: Final = "refused.jsonl"


@dataclass(frozen=True, slots=True)
class Plan:
    """One run. Times are seconds, ``limit`` is nano-USD."""

    store: str
    setting: str
    folder: str
    provider: int
    seconds: float
    processes: int
    workers: int
    call: float
    ttl: float
    freeze: float
    kills: int
    limit: int
    seed: int

    @property
    def organization(self) -> Account:
        """The hard budget of every call."""
        return Account("organization", PERIOD, self.limit, hard=True)

    @property
    def key(self) -> Account:
        """A hard budget of some of the calls, which ends sooner."""
        return Account("key", PERIOD, self.limit // 10, hard=True)

    @property
    def project(self) -> Account:
        """A soft budget of some of the calls, which they exceed."""
        return Account("project", PERIOD, self.limit // 20, hard=False)

    @property
    def accounts(self) -> tuple[Account, ...]:
        """All of them."""
        return self.organization, self.key, self.project

    @property
    def policy(self) -> LedgerPolicy:
        """The ledger's numbers: the shipped ones, but for a life short enough to see sessions die and be settled."""
        return LedgerPolicy(ttl=self.ttl, rotate_after=max(5.0, self.seconds / 3), skew=30.0)

    def save(self, path: Path) -> None:
        """Write it for the other processes."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def load(path: str) -> Plan:
    """Return a plan that was saved."""
    return Plan(**json.loads(Path(path).read_text(encoding="utf-8")))

"""What a seed stands for: how many instances, which budgets, how bad the weather is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from shared.core.budgets import Account
from shared.ledger.policy import LedgerPolicy
from tests.ledger.settings import LAG
from tests.ledger.store import CALM, Fate, Weather

TYPICAL = 2_000_000
"""Nano-USD that a typical call holds."""
MEAN_CHARGE = 0.38
"""What a call costs on the average, as a share of what it holds."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The parameters of a world. Times are seconds, shares 0..1."""

    seconds: float
    instances: int
    workers: int
    think: float
    accounts: tuple[Account, ...]
    policy: LedgerPolicy
    weather: Weather = CALM
    trouble: float = 0.0  # seconds between troubles; 0: none
    troubles: tuple[float, ...] = (1, 1, 1, 1, 1, 1)  # how likely: kill, freeze, close, outage, frozen store, trap
    trap_fates: tuple[Fate, ...] = (Fate.ANSWER_LOST,)
    recovering: float = 0.6  # the share of instances that run recovery
    skew: float = 0.0
    pausing: float = 0.0
    leaving: float = 0.0
    overruns: float = 0.0
    killed_at_end: float = 0.0
    changing: float = 0.0  # seconds between changes of budgets; 0: none
    retrying: float = 0.1  # the share of requests that are tried twice
    again: float = 0.05  # the share of attempts that are settled once more
    usage_lag: float = 0.2  # seconds until usage is written
    spread: float = 0.8  # how much what requests hold differs; 0: it does not

    @property
    def calm(self) -> bool:
        """Say whether nothing goes wrong, and nothing changes: nobody may be refused too early, or for the store's sake."""
        return not self.trouble and not self.changing

    @property
    def stale(self) -> float:
        """Return for how long an instance may go by limits that were changed: where writes may be late, there is no end."""
        return float("inf") if self.trouble else LAG + self.policy.idle + 10.0

    def pick(self, random: Random, budgets: Sequence[str]) -> list[str]:
        """Return the budgets of a request: one to three."""
        return random.sample(budgets, random.randint(1, min(3, len(budgets))))

    def amount(self, random: Random) -> int:
        """Return the upper bound of what a request costs: mostly small, some large."""
        return int(TYPICAL * random.lognormvariate(0.0, self.spread)) + 1


def spending(requests: int = 6_000, *, instances: int = 5, workers: int = 40) -> Plan:
    """Return a calm world in which one budget, enough for so many requests, is spent to its end by many at once."""
    seconds = 20.0 + requests / (instances * workers) * 2.5
    account = Account("b0", "2026-11", int(requests * TYPICAL * MEAN_CHARGE), hard=True)
    return Plan(seconds, instances, workers, 0.05, (account,), LedgerPolicy(), spread=0.0)


def plan_of(seed: int) -> Plan:
    """Return the plan of a seed. Every kind of trouble is absent from some worlds and frequent in others."""
    random = Random(f"{seed}/plan")
    weather = random.random()
    return _calm(random) if weather < 0.07 else _changing(random) if weather < 0.17 else _stormy(random)


def _accounts(random: Random, demand: float) -> tuple[Account, ...]:
    """Return one to four accounts whose limits are from a small part of what will be asked to more than that."""
    count = random.randint(1, 4)
    hard = [random.random() < 0.8 for _ in range(count)]
    return tuple(
        Account(
            f"b{place}", "2026-11", int(demand * random.choice((0.1, 0.3, 0.6, 1.5)) * random.uniform(0.5, 1.5)), hard[place]
        )
        for place in range(count)
    )


def _policy(random: Random) -> LedgerPolicy:
    return LedgerPolicy(
        ttl=random.choice((15.0, 30.0)),
        rotate_after=random.choice((8.0, 20.0, 60.0, 300.0)),
        rotate_rows=random.choice((5, 50, 20_000)),
        idle=random.choice((3.0, 10.0, 20.0)),
        gather=random.choice((0.02, 0.1, 0.5)),
    )


def _stormy(random: Random) -> Plan:
    instances, workers, think = random.randint(2, 6), random.randint(1, 5), random.choice((1.0, 3.0, 6.0))
    seconds = random.choice((60.0, 120.0, 180.0))
    rate = instances * workers / (think + 2.0)
    scale = min(1.0, 1.2 / rate * 120.0 / seconds)  # so that worlds are of like cost
    seconds = max(60.0, seconds * scale)
    weather = Weather(
        request_lost=random.choice((0.0, 0.002, 0.02)),
        answer_lost=random.choice((0.0, 0.01, 0.05)),
        late_share=random.choice((0.0, 0.005, 0.03)),
        doubled=random.choice((0.0, 0.01, 0.05)),
        busy=random.choice((0.0, 0.01, 0.1)),
        slow=random.choice((1.0, 1.0, 5.0, 20.0)),
    )
    chance = random.choice
    return Plan(
        seconds=seconds,
        instances=instances,
        workers=workers,
        think=think,
        accounts=_accounts(random, rate * seconds * TYPICAL * 0.5),
        policy=_policy(random),
        weather=weather,
        trouble=chance((5.0, 10.0, 20.0)),
        troubles=(chance((0, 2, 4)), chance((0, 2, 4)), 1, chance((0, 1)), chance((0, 1)), 5),
        trap_fates=(Fate.ANSWER_LOST, Fate.ANSWER_LOST, Fate.LATE, Fate.LATE, Fate.REQUEST_LOST, Fate.WELL),
        recovering=chance((0.4, 1.0)),
        skew=chance((0.0, 5.0, 300.0)),
        pausing=chance((0.0, 0.01, 0.04)),
        leaving=chance((0.0, 0.03, 0.1)),
        overruns=chance((0.0, 0.0, 0.01)),
        killed_at_end=chance((0.0, 0.5, 1.0)),
        changing=chance((0.0, 0.0, 10.0)),
        usage_lag=chance((0.05, 0.3, 3.0)),
    )


def _changing(random: Random) -> Plan:
    """Return a world without trouble, whose budgets change: no write is late, so whoever goes by an old limit is wrong."""
    instances, workers, think, seconds = random.randint(2, 4), random.randint(2, 4), 1.0, 60.0
    return Plan(
        seconds=seconds,
        instances=instances,
        workers=workers,
        think=think,
        accounts=_accounts(random, instances * workers / (think + 2.0) * seconds * TYPICAL * 0.5),
        policy=_policy(random),
        skew=random.choice((0.0, 5.0)),
        leaving=random.choice((0.0, 0.1)),
        changing=random.choice((3.0, 8.0)),
    )


def _calm(random: Random) -> Plan:
    """Return a world without trouble, whose calls are small beside its one budget: it must be spendable to 85 % and beyond."""
    instances, workers, think, seconds = random.randint(3, 5), random.randint(3, 5), 0.3, 50.0
    demand = instances * workers / (think + 2.0) * seconds * TYPICAL
    return Plan(
        seconds=seconds,
        instances=instances,
        workers=workers,
        think=think,
        accounts=(Account("b0", "2026-11", int(demand * 0.25), hard=True),),
        policy=LedgerPolicy(),
    )

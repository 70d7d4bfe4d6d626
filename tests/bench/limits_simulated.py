"""Rate limits over fifty instances, in virtual time, over the code that ships: `python -m tests.bench.limits_simulated`.

Demand is Poisson, spread over the instances by Zipf (0.8), from a cold start.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from shared.limits import Limited, RateLimits
from tests.bench.limits_world import LoopClock, Store, run, worst_minute
from tests.bench.tables import number, percentile, table

ZIPF = 0.8
FAIR_FROM = 30
"""Admissions an instance should have had to be judged by: fewer are chance."""


@dataclass(frozen=True)
class Plan:
    """What is simulated. ``demand`` is times the limit; ``tokens`` of each request, as estimated and as used."""

    limit: int
    instances: int = 50
    demand: float = 2.0
    seconds: float = 300.0
    seed: int = 1
    skew: float = 0.0
    zipf: float = ZIPF
    tokens_limit: int | None = None
    tokens: tuple[int, int] = (0, 0)
    only_tokens: bool = False
    down: tuple[float, float] = (0.0, 0.0)
    surge: Callable[[float], float] = field(default=lambda _: 1.0)


@dataclass
class Outcome:
    """What came of it."""

    plan: Plan
    store: Store
    times: list[float] = field(default_factory=list)
    used: list[int] = field(default_factory=list)
    waits: list[float] = field(default_factory=list)
    asked: int = 0
    asked_by: Counter[str] = field(default_factory=Counter)
    admitted_by: Counter[str] = field(default_factory=Counter)

    @property
    def worst(self) -> float:
        """The worst minute over the limit, of requests or of tokens."""
        requests = 0.0 if self.plan.only_tokens else worst_minute(self.times) / self.plan.limit
        limit = self.plan.tokens_limit
        return max(requests, worst_minute(self.times, self.used) / limit if limit else 0.0)

    @property
    def use(self) -> float:
        """What was admitted over what the limit allows, after the first minute."""
        minutes = (self.plan.seconds - 60) / 60
        counted = [used if self.plan.only_tokens else 1 for time, used in zip(self.times, self.used, strict=True) if time >= 60]
        return (
            sum(counted)
            / (self.plan.tokens_limit if self.plan.only_tokens and self.plan.tokens_limit else self.plan.limit)
            / minutes
        )

    @property
    def fairness(self) -> float:
        """The least that an instance got of what it asked for, over what all got together: of those that asked enough."""
        mean = self.admitted_by.total() / max(1, self.asked_by.total())
        return min(
            (self.admitted_by[name] / asked / mean for name, asked in self.asked_by.items() if asked * mean >= FAIR_FROM),
            default=1.0,
        )

    @property
    def operations(self) -> float:
        """Store operations per request that asked."""
        return (self.store.reads + self.store.writes) / max(1, self.asked)


async def simulate(plan: Plan) -> Outcome:
    """Run one plan."""
    chance = random.Random(plan.seed)
    store = Store(chance)
    outcome = Outcome(plan, store)
    weights = [1 / (rank + 1) ** plan.zipf for rank in range(plan.instances)]
    limited = Limited("key:one", None if plan.only_tokens else plan.limit, plan.tokens_limit)
    limits = [
        RateLimits(store, LoopClock(chance, plan.skew * chance.uniform(-1, 1)), f"i{number:02}")
        for number in range(plan.instances)
    ]
    tasks: set[asyncio.Task[None]] = set()
    loop = asyncio.get_running_loop()
    rate = plan.demand * plan.limit / 60
    while loop.time() < plan.seconds:
        await asyncio.sleep(chance.expovariate(rate * max(1e-6, plan.surge(loop.time()))))
        store.down = plan.down[0] <= loop.time() < plan.down[1]
        place = chance.choices(range(plan.instances), weights)[0]
        task = loop.create_task(_request(limits[place], f"i{place:02}", (limited,), outcome))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)
    store.down = False
    await asyncio.gather(*(one.aclose() for one in limits))
    return outcome


async def _request(limits: RateLimits, name: str, subjects: tuple[Limited, ...], outcome: Outcome) -> None:
    loop = asyncio.get_running_loop()
    outcome.asked += 1
    outcome.asked_by[name] += 1
    began = loop.time()
    estimate, actual = outcome.plan.tokens
    admission = await limits.admit(subjects, tokens=estimate)
    outcome.waits.append(loop.time() - began)
    if not admission.allowed:
        return
    outcome.admitted_by[name] += 1
    outcome.times.append(loop.time())
    outcome.used.append(actual)
    await asyncio.sleep(0.8)
    limits.settle(admission.ticket, actual)


def line(name: str, outcome: Outcome) -> list[str]:
    """Return a line of the table."""
    waits = outcome.waits
    return [
        name,
        number(outcome.worst, 3),
        number(outcome.use, 3),
        number(outcome.fairness, 2),
        number(outcome.operations, 2),
        number(outcome.store.conflicts / max(1, outcome.asked), 3),
        number(percentile(waits, 50) * 1000, 1),
        number(percentile(waits, 99) * 1000, 1),
        number(max(waits) * 1000, 1),
    ]


PLANS = {
    "30 RPM": Plan(30, seconds=600),
    "300 RPM": Plan(300),
    "301 RPM": Plan(301),
    "600 RPM": Plan(600),
    "6000 RPM": Plan(6000),
    "6000 RPM, demand 0.9": Plan(6000, demand=0.9),
    "300 RPM, demand 0.9": Plan(300, demand=0.9),
    "6000 RPM, demand 10": Plan(6000, demand=10, seconds=120),
    "6000 RPM, idle, then 10 x for 5 s a minute": Plan(6000, demand=1, surge=lambda now: 10.0 if now % 60 < 5 else 0.1),
    "300 RPM, clocks off by up to 300 s": Plan(300, skew=300),
    "300 RPM, store down 60 to 120 s": Plan(300, down=(60, 120)),
    "6000 RPM, store down 60 to 120 s": Plan(6000, down=(60, 120)),
    "60 RPM + 60k TPM (1500 estimated, 1000 used)": Plan(60, tokens_limit=60_000, tokens=(1500, 1000)),
    "1M TPM (4000 estimated, 500 used)": Plan(2000, tokens_limit=1_000_000, tokens=(4000, 500), only_tokens=True),
}


def main() -> None:
    """Print the table."""
    lines = [line(name, run(simulate(plan))) for name, plan in PLANS.items()]
    table(
        "Rate limits, 50 instances, Zipf 0.8, demand 2 x unless said, store 6 ms",
        [
            "limit",
            "worst 60 s / limit",
            "use",
            "fairness",
            "store ops / request",
            "conflicts / request",
            "added p50 ms",
            "p99",
            "max",
        ],
        lines,
    )


if __name__ == "__main__":
    main()

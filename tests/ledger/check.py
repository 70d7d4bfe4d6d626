"""Run many seeds: ``python -m tests.ledger.check --seeds 5000 --jobs 2``. Replay one: ``--start SEED --seeds 1 --log``."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from tests.ledger.world import Outcome, World

TAIL = 60
"""Lines of the log that are shown with a violation."""
SHOWN = 5


@dataclass(slots=True)
class Tally:
    """What many seeds came to."""

    seeds: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    failed: list[Outcome] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        """Count one."""
        self.seeds += 1
        self.counts += outcome.counts
        if outcome.violations:
            self.failed.append(outcome)

    def __str__(self) -> str:
        """Return the numbers, as a person wants to read them."""
        width = max(map(len, self.counts), default=0)
        lines = [f"{self.seeds} seeds, {len(self.failed)} with violations"]
        lines += [f"  {name:<{width}}  {number:>12,}" for name, number in sorted(self.counts.items()) if number]
        return "\n".join(lines)


def quiet() -> None:
    """Say nothing of what the ledger logs: trouble is what these worlds are made of."""
    logging.disable(logging.CRITICAL)


def run(seed: int) -> Outcome:
    """Run one seed. Without a violation its log is not kept."""
    outcome = World(seed).run()
    return outcome if outcome.violations else Outcome(seed, outcome.counts, [], [], outcome.digest)


def outcomes(seeds: Iterable[int], jobs: int) -> Iterator[Outcome]:
    """Run seeds, in as many processes as told; yield what came of each, in their order."""
    if jobs == 1:
        yield from map(run, seeds)
    else:
        with multiprocessing.get_context("spawn").Pool(jobs, initializer=quiet) as pool:
            yield from pool.imap(run, seeds, chunksize=4)


def told(outcome: Outcome, *, tail: int = TAIL) -> str:
    """Return a failed seed as text: what was violated, and the end of its log."""
    again = f"again: python -m tests.ledger.check --start {outcome.seed} --seeds 1 --log"
    return "\n".join([f"seed {outcome.seed} ({again})", *outcome.violations[:20], *outcome.log[-tail:]])


def main() -> int:
    """Run what the command line says; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=None, help="stop after so much real time")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--log", action="store_true", help="print the whole log of each seed")
    options = parser.parse_args()
    quiet()
    began, tally = time.monotonic(), Tally()
    seeds = range(options.start, options.start + options.seeds)
    if options.log:
        for seed in seeds:
            print("\n".join(World(seed).run().log))
    for outcome in outcomes(seeds, options.jobs):
        tally.add(outcome)
        if outcome.violations and len(tally.failed) <= SHOWN:
            print(told(outcome), end="\n\n", flush=True)
        if options.seconds is not None and time.monotonic() - began > options.seconds:
            break
    print(tally)
    print(f"{time.monotonic() - began:.1f} s; violating seeds: {[outcome.seed for outcome in tally.failed] or 'none'}")
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())

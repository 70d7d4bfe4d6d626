"""What holding and settling money costs: the ledger under a hard and a soft budget, beside the naive design.

    python -m tests.bench.ledger [--store sqlite|azurite|both] [--seconds 8] [--repeats 2] [--only TEXT]

"Added" is the time inside ``reserve``: what a call waits for before it is sent. Requests to the store are counted beneath the
ledger, each read and each write; the store's processor time is the emulator's process. Compare within a table: what else the
machine does is in the figures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.azurite.process import Azurite
from tests.bench.money.load import Found, Window
from tests.bench.process import TICK, Process
from tests.bench.tables import median, number, percentile, table

READY_SECONDS = 60.0
END_SECONDS = 40.0


@dataclass(frozen=True, slots=True)
class Case:
    """One line of a table. ``interval`` and ``call`` are seconds."""

    demand: str
    designs: tuple[str, ...]
    processes: int
    tasks: int
    interval: float
    call: float


ALL = ("hard", "soft", "naive")
CASES = (
    Case("5 workers, 2/s", ALL, 5, 1, 2.5, 0.5),
    Case("50 workers, 22/s", ALL, 5, 10, 50 / 22, 0.5),
    Case("50 workers, 220/s", ALL, 5, 10, 50 / 220, 0.1),
    Case("50 workers, as fast as they can", ("hard", "naive"), 5, 10, 0.0, 0.0),
    Case("1,000 calls in one process, 200/s", ("hard", "soft"), 1, 1000, 5.0, 4.8),
    Case("1,000 calls in one process, 500/s", ("hard", "soft"), 1, 1000, 2.0, 1.8),
)


@dataclass(frozen=True, slots=True)
class Sum:
    """What all processes of one window have measured."""

    found: list[Found]
    store_cpu: float

    @property
    def pairs(self) -> int:
        """Reserved and settled."""
        return sum(one.pairs for one in self.found)

    @property
    def rate(self) -> float:
        """Pairs a second."""
        return sum(one.pairs / one.seconds for one in self.found)

    def added(self, percent: float) -> float:
        """Milliseconds inside reserve."""
        return percentile([value for one in self.found for value in one.added], percent)

    @property
    def writing(self) -> float:
        """Milliseconds of the store's for a write, the median."""
        return median([value for one in self.found for value in one.writing])

    def each(self, what: str) -> float:
        """Return a sum for each pair."""
        return float(sum(getattr(one, what) for one in self.found)) / max(1, self.pairs)


class Store:
    """A store under measurement."""

    def __init__(self, setting: str, pid: int | None) -> None:
        self.setting = setting
        self._pid = pid

    def cpu(self) -> float:
        """Return the seconds of processor time its own process has used; NaN where it has none."""
        if self._pid is None:
            return float("nan")
        fields = Path(f"/proc/{self._pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK


@contextlib.contextmanager
def store_of(name: str, folder: Path) -> Iterator[Store]:
    """Open the store of that name."""
    if name == "sqlite":
        yield Store(f"sqlite:{folder / 'ledger.db'}", None)
        return
    with Azurite() as azurite:
        yield Store(azurite.setting, azurite.pid)


def measure(store: Store, case: Case, design: str, *, seconds: float, turn: int) -> Sum:
    """Run one window in processes of its own."""
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-") as made:
        folder = Path(made)
        budget = f"{design}-{CASES.index(case)}-{turn}-{time.time_ns():x}"
        warm_up = max(2.0, min(case.interval * 1.5, 6.0))
        window = Window(store.setting, made, design, budget, case.tasks, case.interval, case.call, warm_up, seconds)
        processes = []
        try:
            for place in range(case.processes):
                command = [sys.executable, "-m", "tests.bench.money.load", json.dumps(asdict(window)), f"p{place}"]
                processes.append(Process(f"p{place}", command, folder=folder))
            _until(folder, processes, ".ready", READY_SECONDS)
            (folder / "go").touch()
            time.sleep(warm_up)
            before = store.cpu()
            time.sleep(seconds)
            spent = store.cpu() - before
            _until(folder, processes, ".json", END_SECONDS)
            found = [Found(**json.loads((folder / f"{one.name}.json").read_text(encoding="utf-8"))) for one in processes]
        finally:
            for process in processes:
                process.stop()
    return Sum(found, spent)


def _until(folder: Path, processes: Sequence[Process], suffix: str, within: float) -> None:
    give_up = time.monotonic() + within
    for process in processes:
        while not (path := folder / f"{process.name}{suffix}").exists() or not (suffix == ".ready" or path.stat().st_size):
            if time.monotonic() > give_up:
                message = f"{process.name} did not get to {suffix}:\n{process.tail()}"
                raise SystemExit(message)
            time.sleep(0.02)
    time.sleep(0.05)


COLUMNS: dict[str, tuple[int, Callable[[Sum], float]]] = {
    "pairs/s": (1, lambda one: one.rate),
    "added p50 ms": (2, lambda one: one.added(50.0)),
    "p95": (1, lambda one: one.added(95.0)),
    "p99": (1, lambda one: one.added(99.0)),
    "a write's p50": (2, lambda one: one.writing),
    "store requests a pair": (2, lambda one: one.each("requests")),
    "conflicts a pair": (3, lambda one: one.each("conflicts")),
    "CPU ms a pair": (2, lambda one: one.each("cpu") * 1e3),
    "store's CPU ms": (2, lambda one: one.store_cpu * 1e3 / max(1, one.pairs)),
    "store too late": (0, lambda one: float(sum(found.refused for found in one.found))),
}
"""What is shown: digits, and how it is read."""


def row(design: str, sums: Sequence[Sum]) -> list[str]:
    """Return a table's line: each column has the value of every repeat."""
    cells = [" / ".join(number(read(one), digits) for one in sums) for digits, read in COLUMNS.values()]
    return [design, *cells]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", choices=("sqlite", "azurite", "both"), default="both")
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", default="", help="cases whose name holds this, such as 220/s")
    parser.add_argument("--designs", default="hard,soft,naive")
    asked = parser.parse_args()
    names = ("sqlite", "azurite") if asked.store == "both" else (asked.store,)
    for name in names:
        with tempfile.TemporaryDirectory(prefix="switchyard-ledger-") as made, store_of(name, Path(made)) as store:
            for case in CASES:
                if asked.only not in case.demand:
                    continue
                rows = []
                for design in [one for one in case.designs if one in asked.designs.split(",")]:
                    turns = range(asked.repeats)
                    rows.append(row(design, [measure(store, case, design, seconds=asked.seconds, turn=turn) for turn in turns]))
                table(f"{name}: {case.demand}", ["design", *COLUMNS], rows)


if __name__ == "__main__":
    main()

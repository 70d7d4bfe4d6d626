"""Rate limits between four real processes: `python -m tests.bench.limits_processes [sqlite|azurite] [seconds]`.

They share one store and two limits, 240 (an exact row) and 1,200 (exchanged counters) a minute, and ask for twice of each.
Prints the worst minute of all of them together, by the machine's one monotonic clock.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from shared.adapters.clock import SystemClock
from shared.adapters.tables import open_tables
from shared.adapters.transport import open_transport
from shared.limits import Limited, RateLimits
from tests.bench.limits_world import worst_minute
from tests.bench.tables import number, percentile, table

PROCESSES = 4
LIMITS = (Limited("key:small", 240), Limited("key:large", 1200))


async def work(storage: str, name: str, seconds: float) -> None:
    """Ask at an even pace until the end; print when each admission was."""
    clock = SystemClock()
    transport = open_transport()
    tables = open_tables(storage, transport=transport, clock=clock)
    limits = RateLimits(tables, clock, name)
    found: dict[str, list[float]] = {one.subject: [] for one in LIMITS}
    waits: dict[str, list[float]] = {one.subject: [] for one in LIMITS}
    tasks: set[asyncio.Task[None]] = set()

    async def ask(limited: Limited) -> None:
        began = time.monotonic()
        admission = await limits.admit((limited,), tokens=1)
        waits[limited.subject].append(time.monotonic() - began)
        if admission.allowed:
            found[limited.subject].append(time.monotonic())

    async def demand(limited: Limited) -> None:
        pace = 60 / (limited.requests_per_minute or 1) / 2 * PROCESSES
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            await asyncio.sleep(pace * 2 * clock.draw())
            task = asyncio.ensure_future(ask(limited))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    await asyncio.gather(*(demand(one) for one in LIMITS))
    await asyncio.gather(*tasks)
    await limits.aclose()
    await tables.aclose()
    await transport.aclose()
    print(json.dumps({"found": found, "waits": waits}))


def measure(storage: str, seconds: float) -> list[list[str]]:
    """Run the processes; return the lines of the table."""
    command = [sys.executable, "-m", "tests.bench.limits_processes", "work", storage, str(seconds)]
    running = [subprocess.Popen([*command, f"process{index}"], stdout=subprocess.PIPE, text=True) for index in range(PROCESSES)]
    told = [json.loads(process.communicate(timeout=seconds + 60)[0]) for process in running]
    lines = []
    for limited in LIMITS:
        limit = limited.requests_per_minute or 1
        times = [moment for one in told for moment in one["found"][limited.subject]]
        waits = [wait for one in told for wait in one["waits"][limited.subject]]
        worst, use = worst_minute(times) / limit, len(times) / (limit * seconds / 60)
        spent = [number(percentile(waits, percent) * 1000, 1) for percent in (50, 99, 100)]
        lines.append([limited.subject, str(limit), str(len(waits)), number(worst, 3), number(use, 3), *spent])
    return lines


def main() -> None:
    """Measure on SQLite or on Azurite."""
    store = sys.argv[1] if len(sys.argv) > 1 else "sqlite"
    seconds = float(sys.argv[2]) if len(sys.argv) > 2 else 75.0
    head = ["limit", "a minute", "asked", "worst 60 s / limit", "use", "added p50 ms", "p99", "max"]
    if store == "azurite":
        from tests.azurite.process import Azurite  # noqa: PLC0415  # needs npm

        with Azurite() as azurite:
            lines = measure(azurite.setting, seconds)
    else:
        with tempfile.TemporaryDirectory() as folder:
            lines = measure(f"sqlite:{Path(folder) / 'state.db'}", seconds)
    table(f"Four processes on one {store}, demand 2 x, {seconds:g} s", head, lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["work"]:
        asyncio.run(work(sys.argv[2], sys.argv[4], float(sys.argv[3])))
    else:
        main()

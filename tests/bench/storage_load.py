"""What the store costs a request: Switchyard over SQLite and over Table Storage's emulator, with and without a hard budget.

    python -m tests.bench.storage_load [--seconds 4] [--rounds 2] [--idle 60] [--levels 1,16,64]

One run, both stores in turns, on one mock upstream that answers after 20 ms: requests a second, latency beyond what asking the
upstream itself takes at the same concurrency, CPU per request, and calls to the store by table. Then what an idle process asks
of its store in a minute. The emulator is a Node program on the same cores: read its rates beside SQLite's, not as Azure's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import uvloop

from tests.azurite.process import Azurite
from tests.bench.client import Target
from tests.bench.load import OK
from tests.bench.process import Process
from tests.bench.tables import number, percentile, table
from tests.bench.targets import KEY, Recipe, Running, switchyard
from tests.bench.upstream import Upstream, upstream

UPSTREAM_MS: Final = 20
LEVELS: Final = (1, 16, 64)
PLENTY_USD: Final = 1_000_000
WARM_SECONDS: Final = 1.5
SETTLE_SECONDS: Final = 1.5

Counts = Counter[str]


@dataclass(slots=True)
class Counted:
    """A host over one store, and how to ask it as a key without a budget and as one under a hard budget."""

    store: str
    process: Process
    file: Path
    callers: dict[str, Target]

    def counts(self) -> Counts:
        """Return what it has asked of its store so far."""
        self.file.unlink(missing_ok=True)
        os.kill(self.process.pid, signal.SIGUSR1)
        until = time.monotonic() + 10
        while not self.file.exists():
            if time.monotonic() > until:
                message = f"{self.store}: no counts.\n{self.process.tail()}"
                raise SystemExit(message)
            time.sleep(0.01)
        return Counter(json.loads(self.file.read_text(encoding="utf-8")))


@dataclass(slots=True)
class Load:
    """What the runs of one store, caller and concurrency gave."""

    times: list[float] = field(default_factory=list)
    errors: int = 0
    seconds: float = 0.0
    cpu: float = 0.0
    calls: Counts = field(default_factory=Counter)


def started(store: str, setting: str, folder: Path, url: str) -> Counted:
    """Start a host; make a budget, and a key with it and one without."""
    file = folder / f"{store}.json"
    usual = switchyard(url, SWITCHYARD_STORAGE=setting)
    command = [sys.executable, "-m", "tests.bench.storage_host", str(file)]
    recipe = Recipe(store, lambda _port, _home: command, dict(usual.env), dict(usual.headers), usual.port_variable)
    running: Running = recipe.start(folder)
    assert running.process is not None
    admin = running.target
    budget = _made(admin, "/budgets", {"name": "all", "scope": {"kind": "project", "name": "paid"}, "cycle": "total",
                                       "limit_usd": PLENTY_USD, "hard": True})  # fmt: skip
    callers = {}
    for caller, project in (("no budget", "free"), ("hard budget", "paid")):
        made = _made(admin, "/keys", {"name": caller, "project": project})
        callers[caller] = replace(admin, name=f"{store}, {caller}", headers={"authorization": f"Bearer {made['key']}"}, idle=[])
    assert budget
    return Counted(store, running.process, file, callers)


def _made(admin: Target, path: str, body: Mapping[str, object]) -> dict[str, str]:
    headers = {"authorization": f"Bearer {KEY}", "content-type": "application/json"}
    request = urllib.request.Request(admin.url + path, json.dumps(body).encode(), headers)  # noqa: S310  # our own loopback
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # our own loopback
        found: dict[str, str] = json.load(answer)
    return found


async def ask(target: Target, connections: int, seconds: float) -> tuple[list[float], int, float]:
    """Ask over ``connections``, each as soon as it is answered; return ms of each, errors, and seconds."""
    request = target.request(target.body())
    times: list[float] = []
    errors = 0
    began = time.perf_counter()

    async def worker() -> None:
        nonlocal errors
        while time.perf_counter() - began < seconds:
            answer = await target.ask(request)
            if answer.status == OK:
                times.append(answer.seconds * 1000)
            else:
                errors += 1

    await asyncio.gather(*(worker() for _ in range(connections)))
    target.close()
    return times, errors, time.perf_counter() - began


def measured(host: Counted, caller: str, level: int, seconds: float, into: Load) -> None:
    """Add one run to a load. What is written behind the answers is counted with them."""
    target = host.callers[caller]
    uvloop.run(ask(target, level, WARM_SECONDS))
    time.sleep(SETTLE_SECONDS)
    before, cpu = host.counts(), host.process.cost().cpu
    times, errors, took = uvloop.run(ask(target, level, seconds))
    time.sleep(SETTLE_SECONDS)
    into.cpu += host.process.cost().cpu - cpu
    into.calls += host.counts() - before
    into.times += times
    into.errors += errors
    into.seconds += took


def under_load(mock: Upstream, hosts: list[Counted], levels: tuple[int, ...], rounds: int, seconds: float) -> None:
    """Print speed, added latency and calls to the store."""
    loads: dict[tuple[str, str, int], Load] = {}
    direct: dict[int, list[float]] = {level: [] for level in levels}
    upstream_itself = Target("upstream", mock.url, "mock")
    for _ in range(rounds):
        for level in levels:
            direct[level] += uvloop.run(ask(upstream_itself, level, seconds / 2))[0]
            for host in hosts:
                for caller in host.callers:
                    measured(host, caller, level, seconds, loads.setdefault((host.store, caller, level), Load()))
    rows = []
    for (store, caller, level), load in loads.items():
        asked = max(1, len(load.times) + load.errors)
        added = [percentile(load.times, percent) - percentile(direct[level], percent) for percent in (50, 95, 99)]
        calls = sum(count for name, count in load.calls.items() if not name.endswith(" rows"))
        rows.append([store, caller, level, number(len(load.times) / load.seconds), *(f"{ms:+.1f}" for ms in added),
                     number(load.cpu * 1000 / asked, 2), number(calls / asked, 3), load.errors])  # fmt: skip
    head = [
        "store",
        "caller",
        "at once",
        "requests/s",
        "added p50 ms",
        "p95",
        "p99",
        "CPU ms/request",
        "calls/request",
        "errors",
    ]
    table(f"Over each store, upstream {UPSTREAM_MS} ms", head, rows)
    _calls_by_table(loads)


def _calls_by_table(loads: dict[tuple[str, str, int], Load]) -> None:
    names = sorted({name for load in loads.values() for name in load.calls})
    columns = [key for key in loads if key[0] == "azurite"]
    rows = [[name, *(number(loads[key].calls[name] / max(1, len(loads[key].times)), 3) for key in columns)] for name in names]
    table(
        "Azurite: calls to the store per request", ["table operation", *(f"{caller}, {at}" for _, caller, at in columns)], rows
    )


def idle(hosts: list[Counted], seconds: float) -> None:
    """Print what the processes ask of their stores while nobody asks anything of them."""
    time.sleep(min(seconds, 75.0))  # until what runs on for a while after the last request has ended
    before = [host.counts() for host in hosts]
    cpu = [host.process.cost().cpu for host in hosts]
    time.sleep(seconds)
    rows = []
    for host, was, used in zip(hosts, before, cpu, strict=True):
        calls = host.counts() - was
        total = sum(count for name, count in calls.items() if not name.endswith(" rows"))
        shown = ", ".join(f"{name} {count * 60 / seconds:.1f}" for name, count in calls.most_common())
        rows.append(
            [host.store, number(total * 60 / seconds, 1), number((host.process.cost().cpu - used) * 1000 / seconds, 1), shown]
        )
    table("Idle, by the minute", ["store", "calls", "CPU ms/s", "by table"], rows)


def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--levels", default=",".join(map(str, LEVELS)), help="connections at once; empty: only idle")
    parser.add_argument("--idle", type=float, default=0.0, help="seconds to watch idle processes for")
    options = parser.parse_args()
    levels = tuple(int(level) for level in options.levels.split(",") if level)
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as name, upstream() as mock, Azurite() as emulator, ExitStack() as stack:
        mock.configure(lat=UPSTREAM_MS)
        hosts = []
        for store, setting in (("sqlite", "sqlite:{home}/state.db"), ("azurite", emulator.setting)):
            hosts.append(started(store, setting, Path(name), mock.url))
            stack.callback(hosts[-1].process.stop)
        if levels:
            under_load(mock, hosts, levels, options.rounds, options.seconds)
        if options.idle:
            idle(hosts, options.idle)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Run a batch of real prompts through the local host while callers use it, and hold it to what batches promise.

    python -m tests.bench.batch PROMPTS.jsonl.gz [--lines 20000] [--failing 0.1] [--rate 20]

Starts the simulator and the gateway on free ports with a store of their own. ``failing`` of the attempts at the primary fail,
in every way the simulator knows; some lines are broken, repeat a custom_id or name an unknown model. ``rate`` requests a second
come from callers who wait, before the batch and while it runs. Prints a table, and exits with 1 unless:

- every line has exactly one outcome, in the order of the input;
- the costs of the outcomes, of the batch, of usage and of the budget's ledger are one sum, to the nano-dollar;
- the callers' p95 while the batch runs is at most 1.5 times what it was before;
- the gateway's memory stays flat.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import aiohttp
import uvloop

from tests.bench.batch_input import Input, input_of
from tests.bench.process import Process, free_port
from tests.bench.replay import CATALOG, PRIMARY, Simulator, faults
from tests.bench.tables import median, percentile, table
from tests.bench.targets import KEY, ROOT, switchyard

PROJECT: Final = "nightly"
BUDGET: Final = "nightly"
ENDED: Final = frozenset({"completed", "failed", "cancelled", "expired"})
MAX_SLOWER: Final = 1.5
MAX_GROWTH_MIB: Final = 24.0
"""What the gateway may grow by from the first fifth of the batch to the last: caches fill, and SQLite's pages with them."""
WAITS: Final = {"model": "spare", "messages": [{"role": "user", "content": "What is the capital of France?"}]}


@dataclass(slots=True)
class Seen:
    """What was seen from outside: seconds of callers' requests, MiB of the gateway, the batch and its results."""

    before: list[float] = field(default_factory=list)
    during: list[float] = field(default_factory=list)
    refused: int = 0
    memory: list[float] = field(default_factory=list)
    seconds: float = 0.0
    batch: dict[str, Any] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    usage: int = 0
    ledger: tuple[int, int] = (0, 0)


class Scene:
    """The gateway under test, and who talks to it."""

    def __init__(self, session: aiohttp.ClientSession, url: str, process: Process) -> None:
        self._session = session
        self._url = url
        self._process = process
        self._key = KEY
        self.seen = Seen()

    async def ask(self, method: str, path: str, *, admin: bool = False, **more: Any) -> dict[str, Any]:
        """Ask for a JSON object, as the owner of the batch or as the administrator."""
        found: dict[str, Any] = json.loads(await self.download(path, method=method, admin=admin, **more))
        return found

    async def download(self, path: str, *, method: str = "GET", admin: bool = False, **more: Any) -> bytes:
        """Ask for bytes; stop everything when they are refused."""
        headers = {"authorization": f"Bearer {KEY if admin else self._key}"}
        async with self._session.request(method, self._url + path, headers=headers, **more) as answer:
            body = await answer.read()
            if answer.status >= 300:
                message = f"{method} {path}: {answer.status} {body[:500]!r}"
                raise SystemExit(message)
            return body

    async def set_up(self) -> None:
        """Make the batch's own key and the budget that it is charged to."""
        scope = {"kind": "project", "name": PROJECT}
        budget = {"id": BUDGET, "name": BUDGET, "scope": scope, "limit_usd": "1000", "cycle": "total", "hard": True}
        await self.ask("POST", "/v1/budgets", admin=True, json=budget)
        made = await self.ask("POST", "/v1/keys", admin=True, json={"name": "nightly", "project": PROJECT})
        self._key = made["key"]

    async def callers(self, rate: float, into: list[float], until: asyncio.Event) -> None:
        """Send requests at a steady rate, whatever became of those before; keep how long they took."""
        asking: set[asyncio.Task[None]] = set()
        due = time.perf_counter()
        while not until.is_set():
            task = asyncio.create_task(self._wait_for_one(into))
            asking.add(task)
            task.add_done_callback(asking.discard)
            due += 1 / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
        if asking:
            await asyncio.wait(asking)

    async def _wait_for_one(self, into: list[float]) -> None:
        began = time.perf_counter()
        headers = {"authorization": f"Bearer {KEY}"}
        async with self._session.post(self._url + "/v1/chat/completions", headers=headers, json=WAITS) as answer:
            await answer.read()
            self.seen.refused += answer.status != 200
        into.append(time.perf_counter() - began)

    async def watch(self, until: asyncio.Event) -> None:
        """Sample the gateway's memory."""
        while not until.is_set():
            self.seen.memory.append(self._process.cost().rss)
            await asyncio.sleep(1.0)

    async def run(self, given: Input) -> None:
        """Upload the input, run it as a batch, download what came of it."""
        form = aiohttp.FormData({"purpose": "batch"})
        form.add_field("file", given.content, filename="prompts.jsonl")
        file = await self.ask("POST", "/v1/files", data=form)
        began = time.monotonic()
        wanted = {"input_file_id": file["id"], "endpoint": "/v1/chat/completions", "completion_window": "24h"}
        batch = await self.ask("POST", "/v1/batches", json=wanted)
        told = 0.0
        while batch["status"] not in ENDED:
            await asyncio.sleep(0.5)
            batch = await self.ask("GET", f"/v1/batches/{batch['id']}")
            if time.monotonic() - told > 20:
                told = time.monotonic()
                print(f"{told - began:6.0f} s  {batch['status']}  {batch['request_counts']}", flush=True)
        self.seen.seconds = time.monotonic() - began
        self.seen.batch = batch

    async def fetch(self) -> None:
        """Download what came of the batch, and what was written down of it."""
        seen, batch = self.seen, self.seen.batch
        for name, into in (("output_file_id", seen.results), ("error_file_id", seen.errors)):
            if batch[name]:
                content = await self.download(f"/v1/files/{batch[name]}/content")
                into += [json.loads(line) for line in content.splitlines()]
        for _ in range(40):
            await asyncio.sleep(0.5)
            rows = (await self.ask("GET", f"/v1/usage?project={PROJECT}", admin=True))["data"]
            budget = await self.ask("GET", f"/v1/budgets/{BUDGET}", admin=True)
            seen.usage = rows[0]["cost_nano_usd"] if rows else 0
            seen.ledger = budget["spent_nano_usd"], budget["held_nano_usd"]
            if seen.usage == seen.ledger[0]:
                return


async def play(options: argparse.Namespace, given: Input, url: str, process: Process, simulator: Simulator) -> Seen:
    """Measure callers alone, then the batch with callers."""
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session:
        scene = Scene(session, url, process)
        await scene.set_up()
        alone = asyncio.Event()
        for seconds, into in ((5.0, []), (options.alone, scene.seen.before)):  # the first of them warm up
            asyncio.get_running_loop().call_later(seconds, alone.set)
            await scene.callers(options.rate, into, alone)
            alone.clear()
        simulator.script(faults(min(100_000, 4 * given.lines), options.failing, refused=False))
        over = asyncio.Event()
        beside = [
            asyncio.create_task(scene.callers(options.rate, scene.seen.during, over)),
            asyncio.create_task(scene.watch(over)),
        ]
        await scene.run(given)
        over.set()
        await asyncio.gather(*beside)
        await scene.fetch()
        return scene.seen


Row = tuple[str, object, object, bool]


def judge(given: Input, seen: Seen) -> list[Row]:
    """Compare what was seen with what was promised."""
    outcomes = [*seen.results, *seen.errors]
    numbers = [one["switchyard"]["line"] for one in outcomes]
    costs = [one["switchyard"]["cost_nano_usd"] for one in outcomes]
    total = sum(cost or 0 for cost in costs)
    counts, before, during = seen.batch["request_counts"], percentile(seen.before, 95), percentile(seen.during, 95)
    fifth = max(1, len(seen.memory) // 5)
    early, late = median(seen.memory[fifth : 2 * fifth] or seen.memory), median(seen.memory[-fifth:])
    in_order = all(
        [one["switchyard"]["line"] for one in some] == sorted(one["switchyard"]["line"] for one in some)
        for some in (seen.results, seen.errors)
    )
    named = [one["custom_id"] for one in seen.results]
    return [
        ("status", seen.batch["status"], "completed", seen.batch["status"] == "completed"),
        ("lines with an outcome", len(set(numbers)), given.lines, set(numbers) == set(range(1, given.lines + 1))),
        ("lines with two", len(numbers) - len(set(numbers)), 0, len(numbers) == len(set(numbers))),
        ("answered lines that answer another custom_id", given.wrong(seen.results), 0, given.wrong(seen.results) == 0),
        ("custom_ids answered twice", len(named) - len(set(named)), 0, len(named) == len(set(named))),
        ("in the order of the input", in_order, True, in_order),
        ("request_counts", (counts["completed"], counts["failed"]), (len(seen.results), len(seen.errors)),
         (counts["completed"], counts["failed"], counts["total"]) == (len(seen.results), len(seen.errors), given.lines)),
        ("bad lines among the errors", given.bad_among(seen.errors), given.bad, given.bad_among(seen.errors) == given.bad),
        ("outcomes of unknown cost", costs.count(None), 0, None not in costs),
        ("nano-USD of the batch", seen.batch["switchyard"]["cost_nano_usd"], total,
         seen.batch["switchyard"]["cost_nano_usd"] == total),
        ("nano-USD in usage", seen.usage, total, seen.usage == total),
        ("nano-USD spent in the ledger", seen.ledger[0], total, seen.ledger[0] == total),
        ("callers' p50 before, ms", f"{percentile(seen.before, 50) * 1000:.1f}", "", True),
        ("callers' p50 during, ms", f"{percentile(seen.during, 50) * 1000:.1f}", "", True),
        ("callers' p95 before, ms", f"{before * 1000:.1f}", "", True),
        ("callers' p95 during, ms", f"{during * 1000:.1f}", f"<= {before * MAX_SLOWER * 1000:.1f}",
         during <= before * MAX_SLOWER),
        ("callers refused", seen.refused, 0, seen.refused == 0),
        ("memory early, MiB", f"{early:.1f}", "", True),
        ("memory late, MiB", f"{late:.1f}", f"<= {early + MAX_GROWTH_MIB:.1f}", late <= early + MAX_GROWTH_MIB),
        ("memory at most, MiB", f"{max(seen.memory):.1f}", "", True),
        ("lines a second beside the callers", f"{given.lines / seen.seconds:.1f}", "", True),
    ]  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path, help="JSON lines, gzipped or not, with a field `prompt`")
    parser.add_argument("--lines", type=int, default=20_000)
    parser.add_argument("--failing", type=float, default=0.1, help="the share of the primary's attempts that fail")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second of callers who wait")
    parser.add_argument("--alone", type=float, default=20.0, help="seconds for which callers are alone first")
    parser.add_argument("--latency", type=float, default=80.0, help="milliseconds that the upstream takes")
    options = parser.parse_args(arguments)
    given = input_of(options.prompts, options.lines)
    with tempfile.TemporaryDirectory(prefix="switchyard-batch-") as name, ExitStack() as stack:
        folder, port = Path(name), free_port()
        command = [sys.executable, "-m", "local.simulator", "--port", str(port)]
        upstream = Process("simulator", command, folder=folder, env={"PYTHONPATH": str(ROOT)})
        stack.callback(upstream.stop)
        upstream.until_listening(port)
        simulator = Simulator(port)
        for profile in (PRIMARY, "reserve", "last"):
            simulator.tell({"profile": profile, "latency_ms": options.latency, "jitter_ms": options.latency / 2})
        running = switchyard("", CATALOG, BENCH_SIMULATOR=simulator.url).launch(folder)
        assert running.process is not None
        stack.callback(running.process.stop)
        seen = uvloop.run(play(options, given, running.target.url.removesuffix("/v1"), running.process, simulator))
        print(running.process.tail(5))
    rows = judge(given, seen)
    table("Batch", ["what", "number", "must be", ""], [(*row[:3], "ok" if row[3] else "WRONG") for row in rows])
    codes = itertools.groupby(sorted(given.code_of(one) for one in seen.errors))
    table("Errors", ["code", "lines"], [(code, len(list(some))) for code, some in codes])
    kept = all(row[3] for row in rows)
    print("\nevery promise kept" if kept else "\na promise was not kept")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())

"""The measurements. Each walks over its targets round by round, so that a busy machine disturbs all of them alike."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import uvloop

from tests.bench.client import Target
from tests.bench.load import OK, Stream, Throughput, paced, stream, throughput
from tests.bench.process import MIB
from tests.bench.tables import median, number, percentile, table
from tests.bench.targets import Recipe, Running
from tests.bench.upstream import Upstream

LEVELS: Final = (1, 16, 64)
AT_ONCE: Final = 1000
BASELINE: Final = "pass-through"
FLAT: Final = 0.05
"""What memory may grow by in the second half of a run: caches and pools have filled by then."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What a phase needs: the upstream, what is measured (itself first), how long, and the core that makes load."""

    upstream: Upstream
    running: Sequence[Running]
    rounds: int
    seconds: float
    cores: str = ""


def requests_a_second(bench: Bench) -> None:
    """Print requests a second at each concurrency, as ratios to the bare pass-through, with the CPU each request took."""
    bench.upstream.configure(lat=0)
    runs: dict[tuple[str, int], list[Throughput]] = {}
    for one in bench.running:
        throughput(one, 8, 1, bench.cores)
    for _ in range(bench.rounds):
        for level in LEVELS:
            for one in bench.running:
                runs.setdefault((one.target.name, level), []).append(throughput(one, level, bench.seconds, bench.cores))
    rows = []
    for one in bench.running:
        for level in LEVELS:
            got, base = runs[one.target.name, level], runs.get((BASELINE, level), [])
            rate = median([run.rate for run in got])
            cpus = [run.cpu for run in got if run.cpu is not None]
            rows.append([
                one.target.name, level, number(rate), number(max(run.rate for run in got)),
                number(rate / median([run.rate for run in base]), 2) if base else "-",
                number(median([run.p50 for run in got]), 1), number(median([run.p99 for run in got]), 1),
                number(min(cpus) if cpus else None, 3), sum(run.errors for run in got),
            ])  # fmt: skip
    head = ["target", "at once", "requests/s", "best", "to pass-through", "p50 ms", "p99 ms", "CPU ms/request", "errors"]
    table("Requests a second, upstream 0 ms", head, rows)


def added_latency(bench: Bench, rate: float = 50) -> None:
    """Print the latency each target adds to the upstream's own at a fixed rate."""
    bench.upstream.configure(lat=50)

    async def measure() -> dict[str, tuple[list[float], int]]:
        got: dict[str, tuple[list[float], int]] = {one.target.name: ([], 0) for one in bench.running}
        for turn in range(bench.rounds + 1):
            for one in bench.running:
                times, errors = await paced(one.target, rate, 1 if turn == 0 else bench.seconds)
                if turn:
                    before = got[one.target.name]
                    got[one.target.name] = [*before[0], *times], before[1] + errors
        _close(bench.running)
        return got

    got = uvloop.run(measure())
    direct = got[bench.running[0].target.name][0]
    rows = []
    for name, (times, errors) in got.items():
        values = [percentile(times, percent) for percent in (50, 95, 99)]
        added = [value - percentile(direct, percent) for value, percent in zip(values, (50, 95, 99), strict=True)]
        rows.append([name, len(times), *(number(v, 2) for v in values), *(f"{v:+.2f}" for v in added), errors])
    head = ["target", "requests", "p50 ms", "p95", "p99", "added p50", "added p95", "added p99", "errors"]
    table(f"Latency at {rate:.0f} requests a second, upstream 50 ms", head, rows)


def first_token(bench: Bench) -> None:
    """Print the time to the first token, and how late each later one is, of four streams at a time."""
    bench.upstream.configure(lat=50, gap=20, chunks=25)

    async def measure() -> dict[str, list[Stream]]:
        got: dict[str, list[Stream]] = {one.target.name: [] for one in bench.running}
        for turn in range(2 * bench.rounds + 1):
            for one in bench.running:
                streams = await asyncio.gather(*(stream(one.target) for _ in range(4)))
                if turn:
                    got[one.target.name] += streams
        _close(bench.running)
        return got

    got = uvloop.run(measure())
    direct = [one.first for one in got[bench.running[0].target.name]]
    rows = []
    for name, streams in got.items():
        first = [one.first for one in streams]
        late = [delay for one in streams for delay in one.delays]
        rows.append([
            name, len(streams), number(percentile(first, 50), 2), number(percentile(first, 95), 2),
            f"{percentile(first, 50) - percentile(direct, 50):+.2f}", f"{percentile(first, 95) - percentile(direct, 95):+.2f}",
            number(percentile(late, 50), 2), number(percentile(late, 99), 2), sum(not one.complete for one in streams),
        ])  # fmt: skip
    head = ["target", "streams", "first token p50 ms", "p95", "added p50", "added p95", "event delay p50", "p99", "broken"]
    table("Time to first token: 25 events 20 ms apart, after 50 ms", head, rows)


def at_once(bench: Bench, count: int = AT_ONCE) -> bool:
    """Send ``count`` requests together, half streamed, upstream 500 ms; return whether Switchyard kept its promise."""
    bench.upstream.configure(lat=500, chunks=20)
    rows = []
    good = True
    for one in bench.running:
        for turn in range(2):
            bench.upstream.zero()
            before = one.process.cost().cpu if one.process else 0.0
            times, errors = uvloop.run(_burst(one.target, count))
            cpu = (one.process.cost().cpu - before) * 1000 / count if one.process else None
            peak = bench.upstream.stats()["peak"]
            kept = errors == 0 and percentile(times, 95) < 1000  # the promise: all answered, p95 under 1 s
            if one.target.name == "switchyard":
                good = good and (kept or turn == 0)
            verdict = "kept" if kept else "not kept"
            shown = [number(percentile(times, percent)) for percent in (50, 95, 100)]
            rows.append(
                [one.target.name, "first" if turn == 0 else "again", len(times), errors, *shown, number(cpu, 2), peak, verdict]
            )
    head = [
        "target",
        "burst",
        "answered",
        "errors",
        "p50 ms",
        "p95",
        "slowest",
        "CPU ms/request",
        "at the upstream at once",
        "all, p95 < 1 s",
    ]
    table(f"{count:,} at once, half of them streamed, upstream 500 ms", head, rows)
    return good


async def _burst(target: Target, count: int) -> tuple[list[float], int]:
    for _ in range(0, count, 100):
        target.idle += await asyncio.gather(*(target.connect() for _ in range(100)))
    await asyncio.sleep(0.2)
    request = target.request(target.body())

    async def whole() -> tuple[bool, float]:
        answer = await target.ask(request)
        return answer.status == OK, answer.seconds * 1000

    async def streamed() -> tuple[bool, float]:
        got = await stream(target)
        return got.complete, got.whole

    got = await asyncio.gather(*(streamed() if number % 2 else whole() for number in range(count)))
    target.close()
    return [ms for ok, ms in got if ok], sum(not ok for ok, _ in got)


def cold_start(recipes: Sequence[Recipe], folder: Path, rounds: int, cores: str = "") -> None:
    """Print the time from a process's start to its first answer, and its memory after it."""
    got: dict[str, list[tuple[float, float, float]]] = {}
    for _ in range(rounds):
        for recipe in recipes:
            started = recipe.start(folder, cores)
            assert started.process is not None
            cost = started.process.cost()
            started.process.stop()
            got.setdefault(recipe.name, []).append((started.cold_start, cost.cpu, cost.rss))
    slowest = max(median([run[0] for run in runs]) for runs in got.values())
    rows = []
    for name, runs in got.items():
        seconds = median([run[0] for run in runs])
        cpu, rss = min(run[1] for run in runs), median([run[2] for run in runs])
        rows.append([name, number(seconds, 2), number(min(run[0] for run in runs), 2), number(cpu, 2), number(rss),
                     number(slowest / seconds, 1) + " x"])  # fmt: skip
    head = ["target", "first answer after s", "best", "CPU s until then", "RSS MiB", "faster than the slowest"]
    table("Cold start: process start to first answer", head, rows)


def memory(one: Running, upstream: Upstream, requests: int) -> bool:
    """Print memory as requests go by, a quarter of them streamed; return whether the second half was flat."""
    upstream.configure(lat=0, chunks=8)
    process = one.process
    assert process is not None
    step = requests // 10
    marks = [(0, process.cost().rss)]
    errors = 0
    for done in range(step, requests + 1, step):
        errors += uvloop.run(_ask(one.target, step))
        marks.append((done, process.cost().rss))
    table(
        f"Memory over {requests:,} requests ({one.target.name})",
        ["requests", "RSS MiB", "since the first tenth"],
        [[f"{done:,}", number(rss, 1), f"{rss - marks[1][1]:+.1f}"] for done, rss in marks],
    )
    half = len(marks) // 2
    late = marks[-1][1] - marks[half][1]
    print(f"\n{errors} errors; in the second half {late * MIB / (requests - marks[half][0]):+.0f} bytes a request")
    return errors == 0 and late < marks[half][1] * FLAT


async def _ask(target: Target, requests: int, workers: int = 64) -> int:
    left, errors = requests, 0
    request = target.request(target.body())

    async def worker() -> None:
        nonlocal left, errors
        while left > 0:
            left -= 1
            good = (await stream(target)).complete if left % 4 == 0 else (await target.ask(request)).status == OK
            errors += not good

    await asyncio.gather(*(worker() for _ in range(workers)))
    target.close()
    return errors


def _close(running: Sequence[Running]) -> None:
    for one in running:
        one.target.close()

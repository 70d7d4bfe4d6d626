"""Load: as many requests as a target takes at a concurrency, with wrk when it is installed, else with our own client."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.client import Target
from tests.bench.tables import percentile
from tests.bench.targets import Running

SCRIPT = Path(__file__).with_name("post.lua")
OK = 200
STAMP = re.compile(rb"t=(\d{16}) ")


@dataclass(frozen=True, slots=True)
class Throughput:
    """What one run gave: answered requests a second, latency in ms, CPU ms per request, and what went wrong."""

    rate: float
    p50: float
    p99: float
    cpu: float | None
    errors: int


def throughput(running: Running, connections: int, seconds: float, cores: str = "") -> Throughput:
    """Ask as fast as it answers over ``connections``."""
    before = running.process.cost().cpu if running.process else 0.0
    if shutil.which("wrk"):
        asked, result = _wrk(running.target, connections, seconds, cores)
    else:
        asked, result = asyncio.run(_python(running.target, connections, seconds))
    cpu = (running.process.cost().cpu - before) * 1000 / max(1, asked) if running.process else None
    return Throughput(result.rate, result.p50, result.p99, cpu, result.errors)


def _wrk(target: Target, connections: int, seconds: float, cores: str) -> tuple[int, Throughput]:
    lines = "\n".join(f"{name}: {value}" for name, value in target.headers.items())
    pinned = ["taskset", "-c", cores] if cores and shutil.which("taskset") else []
    done = subprocess.run(
        [*pinned, "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "--latency", "-s", str(SCRIPT),
         f"{target.url}/chat/completions"],
        env={**os.environ, "BODY": target.body().decode(), "HEADERS": lines},
        capture_output=True, text=True, check=True, timeout=seconds + 90,
    )  # fmt: skip
    got = json.loads(next(line for line in done.stderr.splitlines() if line.startswith("{")))
    errors = got["bad"] + got["socket"]
    rate = (got["requests"] - got["bad"]) / got["seconds"]
    return got["requests"], Throughput(rate, got["p50"], got["p99"], None, errors)


async def _python(target: Target, connections: int, seconds: float) -> tuple[int, Throughput]:
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
    rate = len(times) / (time.perf_counter() - began)
    return len(times) + errors, Throughput(rate, percentile(times, 50), percentile(times, 99), None, errors)


async def paced(target: Target, rate: float, seconds: float) -> tuple[list[float], int]:
    """Send on a schedule, whatever comes back; return latencies in ms counted from the schedule, and the number of errors."""
    request = target.request(target.body())
    times: list[float] = []
    errors = 0

    async def one(at: float) -> None:
        nonlocal errors
        answer = await target.ask(request)
        if answer.status == OK:
            times.append((time.perf_counter() - at) * 1000)
        else:
            errors += 1

    start = time.perf_counter() + 0.05
    tasks = []
    for number in range(int(rate * seconds)):
        at = start + number / rate
        await asyncio.sleep(max(0, at - time.perf_counter()))
        tasks.append(asyncio.create_task(one(at)))
    await asyncio.gather(*tasks)
    return times, errors


@dataclass(frozen=True, slots=True)
class Stream:
    """One streamed answer: ms to its first content event and to its end, whether it was whole, and each event's delay in ms."""

    first: float
    whole: float
    complete: bool
    delays: tuple[float, ...]


async def stream(target: Target, within: float = 60) -> Stream:
    """Ask for a streamed answer and time its events by the stamps the upstream put in them."""
    first = 0.0
    delays: list[float] = []
    unread = b""
    began = time.perf_counter()

    def seen(data: bytes) -> None:
        nonlocal first, unread
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) / 1000
        unread += data
        end = 0
        for stamp in STAMP.finditer(unread):
            first = first or (time.perf_counter() - began) * 1000
            delays.append((now - int(stamp[1])) / 1000)
            end = stamp.end()
        unread = unread[end:]

    answer = await target.ask(target.request(target.body(stream=True)), seen, within)
    complete = answer.status == OK and bool(delays) and unread.rstrip().endswith(b"data: [DONE]")
    return Stream(first, answer.seconds * 1000, complete, tuple(delays))

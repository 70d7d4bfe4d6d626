"""What an instance's start costs, import by import, with telemetry and without.

    python tests/bench/cold_start.py [--runs 5] [--top 12] [--exporters off azure_monitor]

Each run is a fresh process that does what the Functions worker does: import function_app, list its functions, and answer a chat
completion, whose first step opens the gateway. Then it tells what is pending, which is when telemetry is loaded: in a real
instance that happens in a thread, two seconds after the first request. The provider and Application Insights are on loopback.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
KEY: Final = "admin-key-of-the-bench-0123456789"
HEAVY: Final = ("opentelemetry.sdk", "azure.monitor", "azure.identity", "msal", "requests")
"""What must not be there when the first request is answered."""
STAGES: Final = ("import function_app", "first request", "telemetry, afterwards")
_MARK: Final = "==== stage: "
_TWO_PARTS: Final = {"azure"}
"""Packages whose parts are shown apart."""


# ---- the child: one start ----------------------------------------------------------------------------------------------


def child() -> None:
    """Start as an instance does; print what it took as JSON."""
    sys.path.insert(0, str(ROOT))
    _mark(STAGES[0])
    took: dict[str, tuple[float, float]] = {}
    began = _now()
    from function_app import app  # noqa: PLC0415 - this is what is measured

    functions = {function.get_function_name(): function.get_user_function() for function in app.get_functions()}
    took[STAGES[0]] = _since(began)
    asyncio.run(_serve(functions["create_chat_completion"], took))


async def _serve(handler: Any, took: dict[str, tuple[float, float]]) -> None:
    from starlette.requests import Request  # noqa: PLC0415 - loaded by now

    from functions import gateway as holder  # noqa: PLC0415 - loaded by now

    body = json.dumps({"model": "small", "messages": [{"role": "user", "content": "Hello"}]}).encode()
    headers = [(b"authorization", f"Bearer {KEY}".encode()), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b"", "headers": headers}

    bodies = [body]

    async def receive() -> dict[str, Any]:
        if not bodies:
            await asyncio.Event().wait()  # a client that stays until it is answered
        return {"type": "http.request", "body": bodies.pop(), "more_body": False}

    _mark(STAGES[1])
    began = _now()
    _hold_telemetry()
    response = await handler(Request(scope | {"path_params": {}, "http_version": "1.1"}, receive), None)
    took[STAGES[1]] = _since(began)
    answered = sorted(name for name in HEAVY if name in sys.modules)
    gateway = await holder.current()
    _mark(STAGES[2])
    began = _now()
    await gateway.telemetry.aclose()
    took[STAGES[2]] = _since(began)
    later = sorted(name for name in HEAVY if name in sys.modules)
    status, modules = response.status_code, len(sys.modules)
    await gateway.aclose()
    sys.stdout.write(json.dumps({"took": took, "status": status, "answered": answered, "later": later, "modules": modules}))


def _now() -> tuple[float, float]:
    return time.perf_counter(), time.process_time()


def _since(began: tuple[float, float]) -> tuple[float, float]:
    """Return seconds, and those of them in which this process had a processor."""
    wall, cpu = _now()
    return wall - began[0], cpu - began[1]


def _hold_telemetry() -> None:
    """Let telemetry be loaded when it is closed, however long this process is held up before, and then take its time."""
    if os.environ["SWITCHYARD_TELEMETRY"] != "off":
        from shared.adapters.telemetry import pipeline  # noqa: PLC0415 - the gateway would load it now

        pipeline.Pace.__init__.__defaults__ = (3600.0, 1.0, 5.0, 60.0)


def _mark(stage: str) -> None:
    if "importtime" in sys._xoptions:
        sys.stderr.write(f"{_MARK}{stage}\n")
        sys.stderr.flush()


# ---- the parent: many of them ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """One start: seconds and processor seconds by stage, the heavy modules there were, and what each import took itself."""

    took: Mapping[str, tuple[float, float]]
    answered: list[str]
    later: list[str]
    modules: int
    imports: Mapping[str, Mapping[str, float]]


def start(exporter: str, simulator: str, ingestion: str, *, import_time: bool = False) -> Start:
    """Start a fresh process; raise `RuntimeError` when it does not answer."""
    ours = ("OTEL_", "APPLICATIONINSIGHTS_", "SWITCHYARD_", "PYTHONDONTWRITEBYTECODE")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment |= {
        "SWITCHYARD_STORAGE": "memory:",
        "SWITCHYARD_CATALOG": str(ROOT / "tests" / "functions" / "catalog.yaml"),
        "SWITCHYARD_ADMIN_KEY": KEY,
        "SWITCHYARD_UPSTREAM": simulator,
        "SWITCHYARD_TELEMETRY": exporter,
        "APPLICATIONINSIGHTS_CONNECTION_STRING": ingestion,
    }
    command = [sys.executable, *(["-X", "importtime"] if import_time else []), str(Path(__file__)), "--child"]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    if done.returncode != 0 or not done.stdout.startswith("{"):
        raise RuntimeError(done.stderr[-2000:])
    told = json.loads(done.stdout)
    if told["status"] != 200:
        message = f"the first request was answered with {told['status']}"
        raise RuntimeError(message)
    return Start(told["took"], told["answered"], told["later"], told["modules"], _imports(done.stderr))


def _imports(stderr: str) -> dict[str, dict[str, float]]:
    """Return seconds by stage and package, of the imports themselves without what they import."""
    found: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    stage = "interpreter"
    for line in stderr.splitlines():
        if line.startswith(_MARK):
            stage = line.removeprefix(_MARK)
        elif line.startswith("import time:") and line.count("|") == 2 and "self" not in line:
            own, _, name = line.removeprefix("import time:").split("|")
            parts = name.strip().split(".")
            found[stage][".".join(parts[: 2 if parts[0] in _TWO_PARTS else 1])] += int(own) / 1e6
    return found


def report(exporter: str, starts: list[Start], traced: list[Start], top: int) -> None:
    """Print medians."""
    print(f"\n{exporter}: median of {len(starts)} starts, {starts[0].modules} modules at the end{'wall':>12}{'processor':>15}")
    for stage in STAGES:
        wall, cpu = (statistics.median(one.took[stage][clock] for one in starts) * 1e3 for clock in (0, 1))
        print(f"  {stage:<56} {wall:8.0f} ms {cpu:8.0f} ms")
    wall, cpu = (statistics.median(one.took[STAGES[0]][c] + one.took[STAGES[1]][c] for one in starts) * 1e3 for c in (0, 1))
    print(f"  {'cold start in all':<56} {wall:8.0f} ms {cpu:8.0f} ms")
    print(f"  loaded when answered: {', '.join(starts[0].answered) or 'none'} (of {', '.join(HEAVY)})")
    for stage in STAGES:
        costs: dict[str, float] = {}
        for name in {name for one in traced for name in one.imports.get(stage, {})}:
            costs[name] = statistics.median(one.imports.get(stage, {}).get(name, 0.0) for one in traced) * 1e3
        shown = sorted(costs.items(), key=lambda cost: -cost[1])[:top]
        if shown:
            print(f"  imports of: {stage} ({sum(costs.values()):.0f} ms when traced)")
        for name, cost in shown:
            print(f"    {name:<40} {cost:8.1f} ms")


async def main(runs: int, top: int, exporters: list[str]) -> None:
    """Measure and print."""
    from local.simulator import start_simulator  # noqa: PLC0415 - the child does not need it
    from tests.telemetry.ingestion import Ingestion  # noqa: PLC0415 - as above

    async with await start_simulator() as simulator:
        with Ingestion() as ingestion:
            places = (simulator.url, ingestion.connection_string)
            starts: dict[str, list[Start]] = defaultdict(list)
            traced: dict[str, list[Start]] = defaultdict(list)
            for number in range(runs + 1):
                for exporter in exporters:  # in turns, so that a busy machine is equally unfair to all
                    one = await asyncio.to_thread(start, exporter, *places)
                    if number > 0:  # the first was for the disk's cache and the compiled modules
                        starts[exporter].append(one)
                        traced[exporter].append(await asyncio.to_thread(start, exporter, *places, import_time=True))
            for exporter in exporters:
                report(exporter, starts[exporter], traced[exporter], top)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--top", type=int, default=12, help="packages shown of each stage")
    parser.add_argument("--exporters", nargs="+", default=["off", "azure_monitor"], help="values of SWITCHYARD_TELEMETRY")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child()
    else:
        asyncio.run(main(arguments.runs, arguments.top, arguments.exporters))

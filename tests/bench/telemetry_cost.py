"""What telling a request costs in processor time: on the request's path, and in the thread that turns it into telemetry.

    python tests/bench/telemetry_cost.py

The request has two attempts; Application Insights is on loopback, and what is written to the console is thrown away.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from shared.adapters.clock import SystemClock
from shared.adapters.telemetry import open_telemetry
from shared.adapters.telemetry.pipeline import Pace, Pipeline
from shared.core.registry import Secret
from shared.core.telemetry import Destination, TelemetryOptions
from shared.ports import Telemetry
from tests.telemetry.ingestion import Ingestion
from tests.telemetry.scenes import attempt, failed, request

TIMES: Final = 2_000
ROUNDS: Final = 7
RECORD: Final = request("req_1", failed(1), attempt(2))
CALLER: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


def best(work: Callable[[], object]) -> float:
    """Return the best of some rounds, in microseconds of this thread's processor time for each request."""
    found = float("inf")
    for _ in range(ROUNDS):
        began = time.thread_time()
        work()
        found = min(found, time.thread_time() - began)
    return found / TIMES * 1e6


def on_the_path(telemetry: Telemetry) -> float:
    """Return what a request pays. Nothing is told meanwhile: the queue is emptied between the rounds."""

    def work() -> None:
        for _ in range(TIMES):
            telemetry.ended(RECORD, telemetry.trace(CALLER))
        if isinstance(telemetry, Pipeline):
            telemetry._queue.clear()

    return best(work)


def off_the_path(telemetry: Pipeline) -> tuple[float, float]:
    """Return what the telemetry's threads pay for a request: to turn it into spans and measurements, and to export them."""
    told = telemetry._open()
    trace = telemetry.trace(CALLER)

    def turn() -> None:
        for _ in range(TIMES):
            telemetry.ended(RECORD, trace)
        telemetry._empty(told)

    began = time.thread_time()
    turn()
    turned = time.thread_time() - began
    began = time.thread_time()
    told.send(last=True)
    exported = time.thread_time() - began
    told.close()
    return turned / TIMES * 1e6, exported / TIMES * 1e6


@contextlib.contextmanager
def thrown_away() -> Iterator[None]:
    """Let stderr go nowhere."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


def main() -> None:
    """Print the table."""
    print(f"{'telemetry':<16}{'on the path':>16}{'turning':>16}{'exporting':>16}   µs of processor time a request")
    with Ingestion() as ingestion:
        for destination in (Destination.OFF, Destination.AZURE_MONITOR, Destination.CONSOLE):
            options = TelemetryOptions(destination, Secret(ingestion.connection_string))
            telemetry = open_telemetry(options, SystemClock(), "bench", pace=Pace(first=3600.0))
            path, turning, exporting = on_the_path(telemetry), 0.0, 0.0
            if isinstance(telemetry, Pipeline):
                with thrown_away():
                    turning, exporting = off_the_path(telemetry)
                    telemetry.close()
            print(f"{destination:<16}{path:16.1f}{turning:16.1f}{exporting:16.1f}")


if __name__ == "__main__":
    main()

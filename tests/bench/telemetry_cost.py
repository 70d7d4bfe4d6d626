"""What telling a request costs in processor time: on the request's path, and in the threads that turn it into telemetry.

    python tests/bench/telemetry_cost.py

Processor time of one thread is what is printed, the best of some rounds: that is steady on a machine that is busy otherwise.
Requests have an attempt each, of ten keys at three deployments; Application Insights is on loopback, and what is written to the
console is thrown away. Metrics are sent once a minute, whatever the number of requests: what that takes is said for itself.
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
from shared.adapters.telemetry import open_telemetry, telling
from shared.adapters.telemetry.pipeline import Pace, Pipeline
from shared.core.chat import Usage
from shared.core.records import RequestRecord
from shared.core.registry import Secret
from shared.core.telemetry import Destination, TelemetryOptions
from shared.ports import Telemetry
from tests.telemetry.ingestion import Ingestion
from tests.telemetry.scenes import attempt, request

TIMES: Final = 2_000
ROUNDS: Final = 9
KEYS: Final = 10
DEPLOYMENTS: Final = 3
CALLER: Final = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
INTERVAL: Final = 86_400.0
"""Seconds: no metrics are due while requests are measured."""


def recorded(number: int) -> RequestRecord:
    """Return one of the requests."""
    place, usage = f"gpt-small@{number % DEPLOYMENTS}", Usage(100 + number, 20 + number % 7)
    made = attempt(1, deployment=place, duration_ms=100.0 + number, usage=usage, cost=1_500 + number)
    who = f"{number % KEYS}"
    return request(f"req_{number}", made, project=f"project-{who}", key_id=f"key_{who}", duration_ms=120.0 + number)


RECORDS: Final = [recorded(number) for number in range(TIMES)]


def best(*works: Callable[[], object]) -> list[float]:
    """Return of each work the best of some rounds, in microseconds of this thread's processor time for each request."""
    found = [float("inf")] * len(works)
    for _ in range(ROUNDS):
        for number, work in enumerate(works):
            began = time.thread_time()
            work()
            found[number] = min(found[number], time.thread_time() - began)
    return [seconds / TIMES * 1e6 for seconds in found]


def on_the_path(telemetry: Telemetry) -> float:
    """Return what a request pays. Nothing is told meanwhile: the queue is emptied between the rounds."""

    def work() -> None:
        for record in RECORDS:
            telemetry.ended(record, telemetry.trace(CALLER))
        if isinstance(telemetry, Pipeline):
            telemetry._queue.clear()

    (path,) = best(work)
    return path


def off_the_path(telemetry: Pipeline, *, spans: bool, metrics: bool) -> tuple[list[float], float]:
    """Return what the telemetry's threads pay for a request, to turn it into telemetry and to send that; and for the metrics.

    The latter is milliseconds for all that there is to be sent once a minute.
    """
    told = telemetry._open()
    trace = telemetry.trace(CALLER) if spans else None
    module = vars(telling)
    measurements_of = module["measurements_of"]

    def turn() -> None:
        for record in RECORDS:
            telemetry.ended(record, trace)
        telemetry._empty(told)

    module["measurements_of"] = measurements_of if metrics else lambda _: ()
    try:
        took = best(turn, told.send)
    finally:
        module["measurements_of"] = measurements_of
    began = time.thread_time()
    told.send(last=True)
    collected = time.thread_time() - began
    told.close()
    return took, collected * 1e3


@contextlib.contextmanager
def thrown_away() -> Iterator[None]:
    """Let stderr go nowhere."""
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):
        yield


def main() -> None:
    """Print the table."""
    columns = ("on the path", "turning", "sending", "in all", "metrics, ms")
    print(f"{'telemetry':<16}{'of it':<10}" + "".join(f"{column:>14}" for column in columns))
    with Ingestion() as ingestion:
        for destination in (Destination.OFF, Destination.AZURE_MONITOR, Destination.CONSOLE):
            for spans, metrics in ((True, False), (False, True), (True, True)):
                options = TelemetryOptions(destination, Secret(ingestion.connection_string), metric_interval=INTERVAL)
                telemetry = open_telemetry(options, SystemClock(), "bench", pace=Pace(first=3600.0))
                path, took, collected = on_the_path(telemetry), [0.0, 0.0], 0.0
                if isinstance(telemetry, Pipeline):
                    with thrown_away():
                        took, collected = off_the_path(telemetry, spans=spans, metrics=metrics)
                        telemetry.close()
                of_it = "both" if spans and metrics else "spans" if spans else "metrics"
                figures = (path, *took, path + sum(took), collected)
                print(f"{destination:<16}{of_it:<10}" + "".join(f"{figure:14.1f}" for figure in figures))
                if destination is Destination.OFF:
                    break
    print("µs of processor time a request; the last is ms for all metrics, once a minute")


if __name__ == "__main__":
    main()

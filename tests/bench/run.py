"""Switchyard beside a bare pass-through and beside the LiteLLM proxy, in turns in one run, on one mock upstream.

    python -m tests.bench.run [--quick] [--with-litellm] [--phases speed,latency,tokens,burst,cold,memory]

Read the ratios and the CPU per request: on a busy machine the rest is the machine's. Needs a C compiler; wrk makes
the load when it is installed, our own client otherwise. Exits with 1 when a promise is not kept: 1,000 at once answered with a
p95 under a second, and memory flat.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from tests.bench import phases
from tests.bench.client import Target
from tests.bench.phases import Bench
from tests.bench.targets import Recipe, Running, litellm, passthrough, switchyard
from tests.bench.upstream import Upstream, upstream

PHASES: Final = ("speed", "latency", "tokens", "burst", "cold", "memory")


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--quick", action="store_true", help="a minute instead of several: one round, 20,000 requests for memory"
    )
    parser.add_argument("--with-litellm", action="store_true", help="install the LiteLLM proxy into a cache folder if need be")
    parser.add_argument("--without-litellm", action="store_true", help="leave it out although it is installed")
    parser.add_argument("--phases", default=",".join(PHASES), help="which measurements")
    parser.add_argument("--rounds", type=int, default=0, help="how many turns (3; 1 when quick)")
    parser.add_argument("--requests", type=int, default=0, help="how many requests the memory is watched for (100,000)")
    parser.add_argument("--cores", default="", help="GATEWAY/LOAD cores for taskset, such as 0/1")
    options = parser.parse_args()
    if unknown := set(options.phases.split(",")) - set(PHASES):
        parser.error(f"no such phase: {', '.join(sorted(unknown))}; there are {', '.join(PHASES)}")
    return options


def recipes_of(options: argparse.Namespace, url: str) -> list[Recipe]:
    """Return what can be started here, and say what can't and why."""
    found = [passthrough(url), switchyard(url)]
    if options.without_litellm:
        return found
    peer = litellm(url, install=options.with_litellm)
    if isinstance(peer, str):
        print(peer)
        return found
    return [*found, peer]


def measure(options: argparse.Namespace, mock: Upstream, folder: Path, stack: ExitStack) -> bool:
    """Run the phases; return whether every promise was kept."""
    wanted = options.phases.split(",")
    rounds = options.rounds or (1 if options.quick else 3)
    gateway, _, load = options.cores.partition("/")
    recipes = recipes_of(options, mock.url)
    running = [Running(Target("upstream", mock.url, "mock"), None)]
    for recipe in recipes:
        one = recipe.start(folder, gateway)
        assert one.process is not None
        stack.callback(one.process.stop)
        running.append(one)
    print("targets: " + ", ".join(one.target.name for one in running))
    bench = Bench(mock, running, rounds, seconds=2 if options.quick else 4, cores=load)
    kept = True
    if "speed" in wanted:
        phases.requests_a_second(bench)
    if "latency" in wanted:
        phases.added_latency(bench)
    if "tokens" in wanted:
        phases.first_token(bench)
    if "burst" in wanted:
        kept = phases.at_once(bench) and kept
    stack.close()
    mock.configure(lat=0)
    if "memory" in wanted:
        fresh = recipes[1].start(folder, gateway)
        assert fresh.process is not None
        stack.callback(fresh.process.stop)
        kept = phases.memory(fresh, mock, options.requests or (20_000 if options.quick else 100_000)) and kept
        stack.close()
    if "cold" in wanted:
        phases.cold_start(recipes, folder, max(2, rounds), gateway)
    return kept


def main() -> int:
    """Run from the command line; return the exit code."""
    options = arguments()
    maker = "wrk" if shutil.which("wrk") else "our own client (wrk is not installed)"
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; load is made by {maker}")
    _, _, load = options.cores.partition("/")
    with tempfile.TemporaryDirectory(prefix="switchyard-bench-") as folder, upstream(load) as mock, ExitStack() as stack:
        kept = measure(options, mock, Path(folder), stack)
    print("\nevery promise kept" if kept else "\na promise was not kept")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())

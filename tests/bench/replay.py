"""Replay real prompts through a running gateway while its primary provider fails, and hold it to its three promises.

    python -m tests.bench.replay PROMPTS.jsonl.gz [--count 2000] [--failing 0.2] [--at-once 24]

Rows are ``{"id", "src", "label", "accept", "prompt"}``; half of them are asked for as a stream. Starts the simulator and the
gateway on free ports with a store of their own, and scripts ``failing`` of the primary's attempts to fail, in every way the
simulator knows, in turn. Prints a table, and exits with 1 unless:

- no caller saw an error that another candidate could have prevented: whole answers all succeed, and a stream only breaks after
  its first content, with an error event, where the provider broke it there;
- every attempt in the upstream's own log is in usage exactly once, with the tokens it billed where those are said to be exact;
- the costs, computed again from the catalog's prices, add up to ``GET /v1/usage`` to the nano-dollar.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import itertools
import json
import random
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import uvloop

from local.simulator import AFTER_CONTENT, BEFORE_CONTENT, CALLERS, HARMLESS, REFUSED, FaultKind
from tests.bench.audit import Seen, Verdict, attempts_of, audit
from tests.bench.client import Target
from tests.bench.process import Process, free_port
from tests.bench.tables import table
from tests.bench.targets import HERE, ROOT, switchyard

CATALOG: Final = HERE / "replay.yaml"
PRIMARY: Final = "primary"
MODELS: Final = ("main", "anything", "auto", "main")
HARMLESS_SHARE: Final = 0.05
LAST_TENTH: Final = 0.9
MAX_PROMPT: Final = 60_000


@dataclass(frozen=True, slots=True)
class Question:
    """One request: its body, and whether it is streamed."""

    body: bytes
    stream: bool


def questions(
    path: Path, count: int, *, max_tokens: Sequence[int | None] = (None,), longest: int = MAX_PROMPT
) -> list[Question]:
    """Read prompts, again from the start when there are too few, and make requests of them, with these limits in turn."""
    with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as file:
        prompts = [json.loads(line)["prompt"][:longest] for line in file if line.strip()]
    found = []
    for number, prompt in zip(range(count), itertools.cycle(prompts), strict=False):
        stream = number % 2 == 1
        body: dict[str, Any] = {"model": MODELS[number % len(MODELS)], "messages": [{"role": "user", "content": prompt}]}
        if (limit := max_tokens[number % len(max_tokens)]) is not None:
            body["max_tokens"] = limit
        if stream:
            body["stream"] = True
            if number % 4 == 1:
                body["stream_options"] = {"include_usage": True}
        found.append(Question(json.dumps(body).encode(), stream))
    return found


def faults(attempts: int, failing: float, *, refused: bool, seed: int = 7) -> list[dict[str, Any] | None]:
    """Return what each attempt at the primary meets: ``failing`` of them fail, every way in turn; some more are merely odd.

    What makes a provider refuse the whole account takes it out of service for minutes, so it has a part of its own.
    """
    chance = random.Random(seed)
    failures = itertools.cycle(REFUSED if refused else (*BEFORE_CONTENT, *AFTER_CONTENT, *CALLERS))
    odd = itertools.cycle(HARMLESS)

    def one() -> dict[str, Any] | None:
        place = chance.random()
        if place < failing:
            return _fault(next(failures))
        return _fault(next(odd)) if place < failing + HARMLESS_SHARE else None

    return [one() for _ in range(attempts)]


def _fault(kind: FaultKind) -> dict[str, Any]:
    # A second's pause asked for by every rate limit, and an answer that takes minutes to drip, would test patience only.
    return {"kind": kind.value, "retry_after_s": 0.2, "delay_ms": 1.0 if kind is FaultKind.SLOW_DRIP else 20.0}


class Simulator:
    """The simulator's control calls."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def script(self, queue: list[dict[str, Any] | None]) -> None:
        """Replace what the primary's next attempts meet."""
        self.tell({"profile": PRIMARY, "faults": queue})

    def tell(self, rule: dict[str, Any]) -> None:
        """Give it a rule of its script."""
        self._post("script", json.dumps(rule).encode())

    def reset(self) -> None:
        """Have it forget its script and its log."""
        self._post("reset", b"")

    def _post(self, name: str, document: bytes) -> None:
        request = urllib.request.Request(f"{self.url}/_sim/{name}", document, method="POST")  # noqa: S310  # our own loopback
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310  # our own loopback
            answer.read()

    def log(self) -> list[dict[str, Any]]:
        """Return every attempt it received, in order."""
        with urllib.request.urlopen(f"{self.url}/_sim/log?since=0", timeout=60) as answer:  # noqa: S310  # our own loopback
            attempts: list[dict[str, Any]] = json.load(answer)["attempts"]
        return attempts


async def ask_all(target: Target, asked: list[Question], at_once: int) -> list[Seen]:
    """Ask everything, ``at_once`` at a time, in order; return what callers saw."""
    seen: list[Seen] = []
    left = iter(asked)

    async def caller() -> None:
        for question in left:
            answer = await target.ask(target.request(question.body))
            seen.append(Seen.of(answer, stream=question.stream))

    await asyncio.gather(*(caller() for _ in range(at_once)))
    return seen


async def get(target: Target, path: str) -> dict[str, Any]:
    """Ask the gateway for a JSON object."""
    answer = await target.ask(target.request(b"", path, "GET"))
    found: dict[str, Any] = json.loads(answer.body)
    return found


async def usage_of(target: Target, requests: int) -> dict[str, Any]:
    """Return ``GET /v1/usage`` once it knows of every request, or as it is after ten seconds."""
    give_up = time.monotonic() + 10
    while True:
        rows = (await get(target, "/usage"))["data"]
        if rows and (rows[0]["requests"] >= requests or time.monotonic() > give_up):
            found: dict[str, Any] = rows[0]
            return found
        await asyncio.sleep(0.1)


async def written_down(target: Target, ids: Iterable[str]) -> list[dict[str, Any]]:
    """Return every request as the gateway wrote it down."""
    found = [await get(target, f"/requests/{one}") for one in ids]
    for one in found:
        if "attempts" not in one:
            print(f"not written down: {one}")
    return [one for one in found if "attempts" in one]


def replay(options: argparse.Namespace, folder: Path, stack: ExitStack) -> Verdict:
    """Start everything, ask, and compare."""
    asked = questions(options.prompts, options.count)
    port = free_port()
    command = [sys.executable, "-m", "local.simulator", "--port", str(port)]
    upstream = Process("simulator", command, folder=folder, env={"PYTHONPATH": str(ROOT)})
    stack.callback(upstream.stop)
    upstream.until_listening(port)
    simulator = Simulator(port)
    recipe = switchyard("", CATALOG, BENCH_SIMULATOR=simulator.url)
    running = recipe.launch(folder)
    assert running.process is not None
    stack.callback(running.process.stop)
    target = running.target

    seen, usage, requests = uvloop.run(run(options, asked, simulator, target))
    return audit(seen, requests, usage, attempts_of(simulator.log()), CATALOG)


async def run(
    options: argparse.Namespace, asked: list[Question], simulator: Simulator, target: Target
) -> tuple[list[Seen], dict[str, Any], list[dict[str, Any]]]:
    """Ask everything; return what callers saw, the sum of usage, and every request as it was written down."""
    first = int(len(asked) * LAST_TENTH)
    began = time.monotonic()
    simulator.script(faults(4 * options.count, options.failing, refused=False))
    seen = await ask_all(target, asked[:first], options.at_once)
    simulator.script(faults(4 * options.count, options.failing, refused=True))
    seen += await ask_all(target, asked[first:], options.at_once)
    print(f"{len(seen):,} requests in {time.monotonic() - began:.1f} s, {options.at_once} at once; half of them streamed")
    usage = await usage_of(target, len(seen))
    # What the upstream saw that nobody asked for are the gateway's own health probes: they are accounted for like the rest.
    asked_for = [one.request_id for one in seen if one.request_id]
    probes = {one.request_id for one in attempts_of(simulator.log())}.difference(asked_for)
    requests = await written_down(target, [*asked_for, *sorted(probes)])
    target.close()
    return seen, usage, requests


def main() -> int:
    """Run from the command line; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path, help="JSON lines, gzipped or not, with a field `prompt`")
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--failing", type=float, default=0.2, help="the share of the primary's attempts that fail")
    parser.add_argument("--at-once", type=int, default=24)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="switchyard-replay-") as folder, ExitStack() as stack:
        verdict = replay(options, Path(folder), stack)
    table("Replay", ["what", "number", "must be", ""], verdict.rows)
    table("How the primary failed", ["fault", "attempts", "then the caller saw"], verdict.faults)
    for problem in verdict.problems[:20]:
        print(f"- {problem}")
    print("\nevery promise kept" if verdict.kept else "\na promise was not kept")
    return 0 if verdict.kept else 1


if __name__ == "__main__":
    sys.exit(main())

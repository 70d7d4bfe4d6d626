"""The scene of `tests.bench.chain_kills`: a provider that counts, processes that perform, an engine that never forgets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from aiohttp import web

from shared.gateway import Gateway
from tests.bench.chain_kills_worker import Orders, Place
from tests.chains.inline import InlineEngine

INPUT, OUTPUT = 1_000, 2_000
"""Nano-USD a token of the one model there is."""
INPUT_TOKENS, OUTPUT_TOKENS = 20, 30
BILL = INPUT_TOKENS * INPUT + OUTPUT_TOKENS * OUTPUT
ANSWER_SECONDS = 1.0
AGAIN_SECONDS = 0.5
LOOK_SECONDS = 0.1
HANGS, WAITS = "hangs", "waits"
NEVER = 3600.0
CLOSING_SECONDS = 30.0
CATALOG = """
providers:
  north: {{kind: openai_compatible, base_url: "{url}/v1", api_key: a-credential-of-no-worth}}
models:
  small:
    capabilities: [chat]
    context_window: 16_000
    max_output_tokens: 4_000
    quality: 0.7
    deployments:
      - {{provider: north, prices: [{{from: 2026-01-01, input: 1, output: 2, source: test, read_on: 2026-01-01}}]}}
"""


@dataclass(slots=True)
class Provider:
    """A provider over HTTP. It bills a call as soon as it has come in, whether or not anybody is there for the answer.

    The first message says which scenario a call is of; ``when_asked`` is told of each. One whose name begins with `HANGS` is
    not answered, one whose name begins with `WAITS` is asked to come again in an hour, and is not billed.
    """

    url: str = ""
    answers: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    when_asked: dict[str, Callable[[], None]] = field(default_factory=dict)
    refused: set[str] = field(default_factory=set)

    def calls(self, scenario: str) -> int:
        """Return how often a scenario has asked."""
        return len(self.answers[scenario])

    def billed(self, scenario: str) -> int:
        """Return what its calls cost, in nano-USD."""
        return self.calls(scenario) * BILL

    async def answer(self, request: web.Request) -> web.Response:
        """Answer one call, each in words of its own."""
        scenario = (await request.json())["messages"][0]["content"]
        if scenario.startswith(WAITS):
            self.refused.add(scenario)
            return web.json_response({"error": {"message": "slow down"}}, status=429, headers={"retry-after": "3600"})
        text = f"{scenario}: answer {self.calls(scenario) + 1}"
        self.answers[scenario].append(text)
        if asked := self.when_asked.get(scenario):
            asked()
        await asyncio.sleep(NEVER if scenario.startswith(HANGS) else ANSWER_SECONDS)
        usage = {
            "prompt_tokens": INPUT_TOKENS,
            "completion_tokens": OUTPUT_TOKENS,
            "total_tokens": INPUT_TOKENS + OUTPUT_TOKENS,
        }
        message = {"role": "assistant", "content": text}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        body = {"id": "c", "object": "chat.completion", "created": 1, "model": "small", "choices": choices, "usage": usage}
        return web.json_response(body)


@contextlib.asynccontextmanager
async def providing() -> AsyncIterator[Provider]:
    """Run the provider on a free port of loopback."""
    provider = Provider()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", provider.answer)
    runner = web.AppRunner(app, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        provider.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield provider
    finally:
        await runner.cleanup()


class GoneError(Exception):
    """The process that performed an activity has died, or was stopped: the engine does not hear of it any more."""


class Worker:
    """A process that performs activities, one at a time."""

    def __init__(self, orders: Orders, process: asyncio.subprocess.Process) -> None:
        self.orders = orders
        self._process = process
        self._one = asyncio.Lock()
        self._stopped = False
        self._owed: asyncio.Task[bytes] | None = None

    @classmethod
    async def start(cls, orders: Orders, folder: Path) -> Worker:
        """Start it; what it says goes to a file."""
        with (folder / f"{orders.name}.log").open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.bench.chain_kills_worker",
                orders.text(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        return cls(orders, process)

    def __str__(self) -> str:
        return f"{self.orders.name} (status {self._process.returncode})"

    @property
    def performs(self) -> bool:
        """Say whether the engine may give it work."""
        return self._process.returncode is None and not self._stopped

    @property
    def killed(self) -> bool:
        """Say whether it was killed."""
        return self._process.returncode == -signal.SIGKILL

    @property
    def was_stopped(self) -> bool:
        """Say whether it was stopped while it performed."""
        return self._stopped

    @property
    def ended_in_order(self) -> bool:
        """Say whether it has ended by itself, without an error."""
        return self._process.returncode == 0

    async def perform(self, activity: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """Have an activity performed; raise `GoneError` when the process is gone, or is over it."""
        assert self._process.stdin is not None
        async with self._one:
            if not self.performs:
                raise GoneError
            with contextlib.suppress(ConnectionError):
                self._process.stdin.write(json.dumps({"activity": activity, "given": given}).encode() + b"\n")
            line = await self._line()
        if not line:
            await self._process.wait()
            raise GoneError
        told: dict[str, Any] = json.loads(line)
        return told

    async def _line(self) -> bytes:
        assert self._process.stdout is not None
        reading = asyncio.create_task(self._process.stdout.readline())
        while not reading.done() and not self._is_stopped():
            await asyncio.wait((reading,), timeout=LOOK_SECONDS)
        if not reading.done():
            self._owed, self._stopped = reading, True
            raise GoneError
        return reading.result()

    def _is_stopped(self) -> bool:
        with contextlib.suppress(OSError):
            return Path(f"/proc/{self._process.pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
        return False

    def kill(self) -> None:
        """Kill it."""
        self._send(signal.SIGKILL)

    def stop(self) -> None:
        """Stop it, connections standing."""
        self._send(signal.SIGSTOP)

    async def go_on(self) -> None:
        """Let a stopped one go on, and end what it was at."""
        self._send(signal.SIGCONT)
        if self._owed is not None:
            await self._owed

    async def close(self) -> None:
        """Let it end in order; end it when it does not."""
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), CLOSING_SECONDS)
        except TimeoutError:
            self._send(signal.SIGCONT)
            self.kill()
            await self._process.wait()

    def _send(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)


class Delivery(StrEnum):
    """How often an engine gives an activity to processes that live."""

    ONCE = "once"
    TWICE = "twice, one after the other"
    AT_ONCE = "twice at once"


class Deliveries(InlineEngine):
    """An engine that never forgets: an activity whose process is gone is given to the next one, with the same input.

    ``deaths`` are where the processes die, in the order they are started; those after them live.
    """

    name = "deliveries"

    def __init__(
        self,
        gateway: Gateway,
        start: Callable[[int, Place | None], Awaitable[Worker]],
        *,
        deaths: tuple[Place | None, ...],
        delivery: Delivery = Delivery.ONCE,
    ) -> None:
        super().__init__(gateway)
        self._start = start
        self._deaths = deaths
        self._delivery = delivery
        self._starting = asyncio.Lock()
        self.workers: list[Worker] = []
        self.differing: list[str] = []
        """Activities that told their two deliveries different things."""

    async def worker(self, place: int = 0) -> Worker:
        """Return a process that performs: the first of them, or the one after. Starts it if there is none."""
        async with self._starting:
            while len(living := [one for one in self.workers if one.performs]) <= place:
                number = len(self.workers)
                dies = self._deaths[number] if number < len(self._deaths) else None
                self.workers.append(await self._start(number, dies))
            return living[place]

    async def _tried(self, activity: str, given: Any) -> Any:
        if self._delivery is Delivery.ONCE:
            return await self._delivered(activity, given)
        if self._delivery is Delivery.AT_ONCE:
            await self.worker(1)
            first, second = await asyncio.gather(*(self._delivered(activity, given, place) for place in (0, 1)))
        else:
            first, second = [await self._delivered(activity, given, place) for place in (0, 1)]
        if first != second:
            self.differing.append(activity)
        return first

    async def _delivered(self, activity: str, given: Any, place: int = 0) -> Any:
        while True:
            worker = await self.worker(place)
            try:
                told = await worker.perform(activity, given)
            except GoneError:
                continue
            if "done" in told:
                return told["done"]
            await asyncio.sleep(AGAIN_SECONDS)

"""The scene of a spending run: gateways that are killed and come back, callers of every kind, a watcher of the head."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any, Final

from shared.ledger import rows
from shared.ports import EntityTable
from tests.bench.audit import Seen
from tests.bench.client import Answer, LostError, Target
from tests.bench.process import Process, free_port
from tests.bench.replay import Question, get
from tests.bench.targets import Recipe

CREATED: Final = 201
TOO_MANY: Final = 429
QUOTA: Final = "insufficient_quota"
LOOK_SECONDS: Final = 0.1
"""Between looks at the head's row. The gateway is asked every fifth time."""
BUSY_SECONDS: Final = 5.0
TRIES: Final = 4
SHOWN: Final = 400
UNREACHED: Final = "unreached"
LATE: Final = "the store was late"
UNAVAILABLE: Final = "storage_unavailable"


@dataclass(frozen=True, slots=True)
class Told:
    """What one caller was told, and when (monotonic seconds).

    ``outcome`` is one of `Seen`'s, or ``refused``, ``a refusal of the wrong shape``, ``left`` (the caller went away), ``lost``
    (the gateway was killed while it had the request), ``the store was late`` (told so, and to try again), ``no answer``.
    """

    request_id: str
    stream: bool
    outcome: str
    began: float
    ended: float
    said: str = ""
    """The end of what came, where that was no answer."""


@dataclass(frozen=True, slots=True)
class Kill:
    """A SIGKILL: when, with how many requests in flight, and when the process listened again (monotonic seconds)."""

    at: float
    in_flight: int
    back: float = float("inf")


@dataclass(frozen=True, slots=True)
class Sample:
    """A look at the hard budget's head: through the gateway, or at its row. Amounts are nano-USD."""

    at: float
    spent: int
    held: int


class Instance:
    """One gateway process, on a port that it keeps."""

    def __init__(self, recipe: Recipe, folder: Path, name: str) -> None:
        port = free_port()
        self._home = folder / name
        self._home.mkdir()
        self._name = name
        self._port = port
        self._command = recipe.command(port, self._home)
        self._env = recipe.env | {recipe.port_variable: str(port)}
        self._process: Process | None = None
        self.admin = Target(name, f"http://127.0.0.1:{port}/v1", "main", recipe.headers)
        self.target = self.admin
        self.in_flight = 0
        self.kills: list[Kill] = []

    def use_key(self, token: str) -> None:
        """Have callers come with this key."""
        self.target = Target(self._name, self.admin.url, "main", {"authorization": f"Bearer {token}"})

    def start(self) -> None:
        """Start it; return once it listens."""
        self._process = Process(self._name, self._command, folder=self._home, env=self._env)
        self._process.until_listening(self._port, within=120)

    async def kill(self) -> None:
        """Kill it while it has requests, and start it again at once."""
        patience = time.monotonic() + BUSY_SECONDS
        while self.in_flight < 2 and time.monotonic() < patience:
            await asyncio.sleep(0.005)
        assert self._process is not None
        self.kills.append(Kill(time.monotonic(), self.in_flight))
        os.kill(self._process.pid, signal.SIGKILL)
        await asyncio.to_thread(self._process.stop)
        await asyncio.to_thread(self.start)
        self.kills[-1] = replace(self.kills[-1], back=time.monotonic())

    def silence(self, began: float, ended: float) -> str:
        """Return what it means that no answer came: it was killed meanwhile, was dead before, or neither."""
        if any(began < kill.at <= ended for kill in self.kills):
            return "lost"
        return UNREACHED if any(kill.at <= began <= kill.back for kill in self.kills) else "no answer"

    def stop(self) -> None:
        """End it in order."""
        if self._process is not None:
            self._process.stop(within=30)

    def said(self, word: str) -> list[str]:
        """Return the lines of its log with that word."""
        text = (self._home / f"{self._name}.log").read_text(errors="replace")
        return [line for line in text.splitlines() if word in line]


@dataclass(slots=True)
class Callers:
    """Those who ask, at one gateway after the other; some leave."""

    instances: Sequence[Instance]
    chance: Random
    told: list[Told] = field(default_factory=list)
    asked: int = 0
    retried: int = 0

    async def ask_all(self, questions: Sequence[Question], at_once: int) -> None:
        """Ask everything once, ``at_once`` at a time, in order."""
        left = iter(questions)

        async def caller() -> None:
            for question in left:
                await self.ask(question, leaving=True)

        await asyncio.gather(*(caller() for _ in range(at_once)))

    async def ask(self, question: Question, *, leaving: bool = False) -> Told:
        """Ask one; where a gateway is killed meanwhile, is dead or says that the store is late, ask the other one."""
        number = self.asked
        self.asked += 1
        midway, early = leaving and number % 20 == 9, leaving and number % 25 == 12
        told = Told("", question.stream, "no answer", 0.0, 0.0)
        for turn in range(TRIES):
            instance = self.instances[(number + turn) % len(self.instances)]
            instance.in_flight += 1
            try:
                if midway or early:
                    told = await self._leave(instance, question, midway=midway)
                else:
                    told = await self._ask(instance, question)
            finally:
                instance.in_flight -= 1
            if told.outcome != UNREACHED:
                self.told.append(told)
            if told.outcome not in {UNREACHED, LATE, "lost"}:
                return told
            self.retried += 1
            await asyncio.sleep(0.05)
        return told

    async def _ask(self, instance: Instance, question: Question) -> Told:
        began = time.monotonic()
        answer = await instance.target.ask(instance.target.request(question.body))
        ended = time.monotonic()
        if answer.status:
            outcome = judged(answer, question)
            said = (
                "" if outcome in {"answered", "refused"} else f"{answer.status} {answer.body[-SHOWN:].decode(errors='replace')}"
            )
            return Told(answer.header("x-request-id"), question.stream, outcome, began, ended, said)
        return Told("", question.stream, instance.silence(began, ended), began, ended)

    async def _leave(self, instance: Instance, question: Question, *, midway: bool) -> Told:
        """Ask, and drop the connection: after the first of the answer, or some time before."""
        began = time.monotonic()
        came = asyncio.get_running_loop().create_future()

        def note(_: bytes) -> None:
            if not came.done():
                came.set_result(None)

        try:
            connection = await instance.target.connect()
        except OSError:
            ended = time.monotonic()
            return Told("", question.stream, instance.silence(began, ended), began, ended)
        answer = connection.send(instance.target.request(question.body), note)
        if midway:
            await asyncio.wait((answer, came), timeout=30, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.sleep(self.chance.uniform(0.0, 0.02 if midway else 0.08))
        connection.transport.abort()
        with contextlib.suppress(LostError):
            await answer
        request_id = Answer(0, 0.0, head=connection.head).header("x-request-id")
        return Told(request_id, question.stream, "left", began, time.monotonic())


def judged(answer: Answer, question: Question) -> str:
    """Return what an answer is: a refusal for want of money is one only in the right shape."""
    try:
        error = json.loads(answer.body)["error"]
    except (ValueError, LookupError, TypeError):
        error = None
    if isinstance(error, dict) and error.get("code") == UNAVAILABLE and answer.header("x-should-retry") != "false":
        return LATE
    if not isinstance(error, dict) or error.get("type") != QUOTA:
        return Seen.of(answer, stream=question.stream).outcome
    told = isinstance(error.get("message"), str) and error["message"] and error.keys() == {"message", "type", "param", "code"}
    right = answer.status == TOO_MANY and error.get("code") == QUOTA and answer.header("x-should-retry") == "false"
    return "refused" if told and right and answer.header("x-request-id") else "a refusal of the wrong shape"


async def post(target: Target, path: str, body: dict[str, Any]) -> dict[str, Any]:
    """Have the gateway make something; raise `RuntimeError` when it does not."""
    answer = await target.ask(target.request(json.dumps(body).encode(), path))
    if answer.status != CREATED:
        message = f"POST {path} was answered {answer.status}: {answer.body[:500]!r}"
        raise RuntimeError(message)
    found: dict[str, Any] = json.loads(answer.body)
    return found


class Watcher:
    """Looks at the hard budget as long as the run lasts: at its row, and at what the gateway shows of it."""

    def __init__(self, table: EntityTable, key: rows.AccountKey, instances: Sequence[Instance]) -> None:
        self._table = table
        self._key = key
        self._instances = instances
        self.samples: list[Sample] = []
        self.shown: list[Sample] = []

    async def run(self) -> None:
        """Look until cancelled."""
        looks = 0
        while True:
            await self.look()
            if looks % 5 == 0:
                instance = self._instances[looks // 5 % len(self._instances)]
                with contextlib.suppress(ValueError):  # it is dead: an empty body
                    shown = await get(instance.admin, f"/budgets/{self._key.budget}")
                    if "spent_nano_usd" in shown:
                        self.shown.append(Sample(time.monotonic(), shown["spent_nano_usd"], shown["held_nano_usd"]))
            looks += 1
            await asyncio.sleep(LOOK_SECONDS)

    async def sessions(self) -> int:
        """Count the sessions that are not closed: alive, or not yet recovered."""
        return len([entity async for entity in self._table.query(rows.SESSIONS)])

    async def look(self) -> Sample:
        """Look at the row."""
        found = await self._table.get(rows.account_partition(self._key), rows.HEAD)
        head = rows.Head(0) if found is None else rows.head(found)
        self.samples.append(sample := Sample(time.monotonic(), head.spent, head.reserved))
        return sample

"""One flow, three drivers: asyncio for callers who wait, Durable Functions in Azure, the embedded engine on one machine."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import azure.durable_functions as df  # type: ignore[import-untyped]
import pytest

from functions import chain_flow
from local.durable import LocalEngine
from local.mounting import Activity, Functions
from shared.core.chain import begin
from shared.core.failover import Attempt, AttemptFailed, Succeeded
from shared.executor import drive
from tests.chains.player import Player
from tests.chains.scripts import SCRIPTS, Script
from tests.fakes import FakeClock

Told = tuple[tuple[str, ...], str | None]
"""Whom a chain has asked, and how it ended."""

RETRY = df.RetryOptions(10, 50)
PATIENCE = 30.0


def run_chain(context: chain_flow.Context) -> chain_flow.Orchestration:
    """Drive a chain as the app's orchestrator does, but with little patience for the store."""
    return chain_flow.chain(context, retry=RETRY, tell_retry=RETRY)


class World:
    """A script's activities, in real time."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[str] = []
        self.outcome: str | None = None
        self.ended = asyncio.Event()
        self.cancelled = asyncio.Event()
        self._broken = dict(script.broken_store)

    async def attempt(self, given: dict[str, Any]) -> dict[str, Any]:
        """Make an attempt."""
        self._reach_the_store("attempt_chain")
        self.asked.append(given["candidate"]["deployment"])
        number = given["number"]
        try:
            await asyncio.wait_for(self.cancelled.wait(), self.script.tries[number - 1].seconds)
        except TimeoutError:
            return self.script.happened(number)
        return {"event": "cancelled"}

    async def note(self, given: dict[str, Any]) -> dict[str, Any]:
        """Write down what the chain waits for."""
        assert given["status"]
        self._reach_the_store("note_chain")
        return {}

    async def end(self, given: dict[str, Any]) -> str:
        """Take note of the end."""
        self._reach_the_store("end_chain")
        self.outcome = None if given["outcome"] is None else given["outcome"]["ended"]
        self.ended.set()
        return "ended"

    async def notify(self, given: dict[str, Any]) -> None:
        """Tell nobody."""
        assert given["id"] == "chain_1"
        self._reach_the_store("notify_chain")

    def functions(self, orchestrator: Callable[[Any], Any] = run_chain) -> Functions:
        """Return the app that has these activities."""
        activities: dict[str, Activity] = {
            "attempt_chain": self.attempt,
            "note_chain": self.note,
            "end_chain": self.end,
            "notify_chain": self.notify,
        }
        return Functions([], [], {"run_chain": orchestrator}, activities)

    def _reach_the_store(self, activity: str) -> None:
        if self._broken.get(activity, 0) > 0:
            self._broken[activity] -= 1
            message = "The store is away."
            raise ConnectionError(message)


async def by_asyncio(script: Script) -> Told:
    """Drive a script as for a caller who waits, in virtual time."""
    clock, asked = FakeClock(), []

    async def perform(step: Attempt) -> Succeeded | AttemptFailed:
        asked.append(step.candidate.deployment)
        one = script.tries[step.number - 1]
        await clock.sleep(one.seconds)
        return one.event(clock.seconds - 1_000.0)

    outcome = await drive(begin(script.plan), perform, clock)
    return tuple(asked), outcome.ended.value


async def by_durable_functions(script: Script) -> Told:
    """Play a script to azure-functions-durable's handler, in virtual time."""
    end = Player(run_chain, script).play()
    return tuple(end.attempts), end.outcome


async def by_embedded_engine(script: Script) -> Told:
    """Run a script on the engine of one machine, in real time but less of it."""
    world = World(script.scaled())
    engine = LocalEngine(world.functions())
    try:
        await engine._opened()  # its imports are not the chain's time
        began = time.time()
        await engine.start("run_chain", "chain_1", world.script.given(began))
        if world.script.cancel_at is not None:
            await asyncio.sleep(world.script.cancel_at - (time.time() - began))
            world.cancelled.set()
            await engine.cancel("chain_1")
        async with asyncio.timeout(PATIENCE):
            await world.ended.wait()
            while engine.running:
                await asyncio.sleep(0.01)
    finally:
        await engine.aclose()
    return tuple(world.asked), world.outcome


CASES = (
    *((by_asyncio, script) for script in SCRIPTS if script.cancel_at is None),  # a caller who waits and leaves is told nothing
    *((by_durable_functions, script) for script in SCRIPTS),
    *((by_embedded_engine, script) for script in SCRIPTS),
)


@pytest.mark.parametrize(("driver", "script"), CASES, ids=lambda part: getattr(part, "name", None) or part.__name__)
async def test_every_driver_makes_the_same_attempts(
    driver: Callable[[Script], Coroutine[Any, Any, Told]], script: Script
) -> None:
    """The script says which, and how they end; who drives the flow does not matter."""
    assert (script.attempts, None if script.ends is None else script.ends.value) == await driver(script)

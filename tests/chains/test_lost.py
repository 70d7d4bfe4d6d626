"""Work that an engine of one machine forgot is ended as lost, its holds settled; what a living engine runs is left alone."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from local.durable import Keeper, LocalEngine
from local.mounting import Functions
from shared.background import attempt, start
from shared.chain_outcomes import answer_of, error_of
from shared.chains import Chain, State
from shared.core.registry import Registry
from shared.engines import BEAT_SECONDS, GONE_SECONDS
from tests.chains.inline import InlineEngine, read_chat
from tests.chains.test_background import PAID, given, new
from tests.executor.conftest import CALLER, Bench
from tests.fakes import registry, request

Make = Callable[[Registry], Bench]
HERE = f"{socket.gethostname()}/{os.getpid()}"


def keeper(it: Bench) -> Keeper:
    """Return what a new process watches with."""
    return Keeper(LocalEngine(Functions([], [], {}, {})), it.gateway)


async def begun_by(engine: str, it: Bench, name: str = "chain_1") -> Chain:
    """Store a chain that another engine has begun."""
    inline = InlineEngine(it.gateway)
    inline.name = engine
    inline.away = True
    return await start(it.gateway, inline, CALLER, request(max_output_tokens=100), new(name))


async def state_of(it: Bench, name: str = "chain_1") -> State:
    """Return where a chain stands."""
    return (await it.gateway.chains.get(name)).state


def dead_process() -> int:
    """Return the number of a process that is no more."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        return process.pid


async def test_what_an_engine_that_is_gone_has_begun_is_lost(bench: Make) -> None:
    """At the next start: the chain has failed, and says why."""
    it = bench(registry("a/sol"))
    await begun_by("local-gone", it)

    await keeper(it).step()

    chain = await it.gateway.chains.get("chain_1")
    assert State.FAILED == chain.state
    assert "chain_lost" == error_of(chain).code


async def test_what_was_answered_before_its_engine_was_gone_is_not_lost(bench: Make) -> None:
    """A stop that gives the running attempt its time: the answer was paid for and is kept, so it is given."""
    it = bench(registry("a/sol"))
    chain = await begun_by("local-gone", it)
    await attempt(it.gateway, given(chain), read_chat)

    await keeper(it).step()

    chain = await it.gateway.chains.get("chain_1")
    assert (State.COMPLETED, None, PAID) == (chain.state, chain.error, chain.cost)
    assert "Hello" == (await answer_of(it.gateway, chain)).completion.payload["choices"][0]["message"]["content"]


@pytest.mark.parametrize("engine", ["local-living", "durable"])
async def test_what_a_living_engine_runs_is_left_alone(bench: Make, engine: str) -> None:
    """Another process over the same store, and Durable Functions, which never forgets."""
    it = bench(registry("a/sol"))
    await begun_by(engine, it)
    await it.gateway.engines.beat("local-living", HERE)

    await keeper(it).step()

    assert State.QUEUED == await state_of(it)


async def test_an_engine_leaves_its_own_work_alone(bench: Make) -> None:
    """As often as it looks."""
    it = bench(registry("a/sol"))
    own = keeper(it)
    await begun_by(own._engine.name, it)
    for _ in range(10):
        await own.step()
        it.clock.seconds += BEAT_SECONDS

    assert State.QUEUED == await state_of(it)
    assert {own._engine.name} == await it.gateway.engines.living()


async def test_an_engine_that_falls_silent_is_gone_after_a_while(bench: Make) -> None:
    """On another machine nothing else can be told; what it began after this process started is found too."""
    it, other = bench(registry("a/sol")), "local-elsewhere"
    own = keeper(it)
    await it.gateway.engines.beat(other, "another-machine/1")
    await own.step()
    await begun_by(other, it)
    await own.step()
    assert State.QUEUED == await state_of(it)

    it.clock.seconds += GONE_SECONDS + 1
    await own.step()

    assert State.FAILED == await state_of(it)
    assert other not in {beat.name for beat in await it.gateway.engines.beats()}


async def test_an_engine_whose_process_died_on_this_machine_is_gone_at_once(bench: Make) -> None:
    """A restart does not wait for the silence of what was killed a moment ago."""
    it = bench(registry("a/sol"))
    await it.gateway.engines.beat("local-killed", f"{socket.gethostname()}/{dead_process()}")
    await begun_by("local-killed", it)

    await keeper(it).step()

    assert State.FAILED == await state_of(it)
    assert "local-killed" not in await it.gateway.engines.living()

"""What is done without a request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

from functions import housekeeping
from functions.housekeeping import CHORES, Chore, Rounds
from shared.core.errors import StorageUnavailableError
from shared.gateway import Gateway
from shared.ports import ChainEngine
from tests.fakes import FakeClock
from tests.functions.harness import Edge

Do = Callable[[Gateway, ChainEngine], Awaitable[object]]


def test_everything_that_needs_no_request_is_among_the_chores() -> None:
    """A chore that is missing here is never done."""
    assert {"probe", "write", "recover", "alert", "tell", "sweep", "roll up"} == {chore.name for chore in CHORES}


async def test_a_chore_that_fails_holds_up_no_other(edge: Edge, caplog: pytest.LogCaptureFixture) -> None:
    """Whether the store is away or we have a bug: the rest is done, and the log says what was not."""
    done: list[str] = []

    async def broken(_: Gateway, __: ChainEngine) -> None:
        message = "ours"
        raise RuntimeError(message)

    async def away(_: Gateway, __: ChainEngine) -> None:
        message = "The store is away."
        raise StorageUnavailableError(message)

    async def hanging(_: Gateway, __: ChainEngine) -> None:
        await asyncio.sleep(0)
        done.append("hanging")

    async def well(_: Gateway, __: ChainEngine) -> None:
        done.append("well")

    chores = tuple(Chore(do.__name__, 60.0, do) for do in (broken, away, hanging, well))
    await Rounds(chores).go(edge.gateway, edge.engine)

    assert ["well", "hanging"] == done
    assert "The chore `broken` failed by a bug" in caplog.text
    assert "The chore `away` is left for the next round: The store is away." in caplog.text


async def test_a_chore_that_hangs_holds_up_no_other_for_ever(
    edge: Edge, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run ends without it, so that the next one comes; it is not begun twice, and given up in the end."""
    monkeypatch.setattr(housekeeping, "ROUND", 0.01)
    begun: list[str] = []

    async def hanging(_: Gateway, __: ChainEngine) -> None:
        begun.append("hanging")
        await asyncio.Event().wait()

    async def well(_: Gateway, __: ChainEngine) -> None:
        begun.append("well")

    clock = FakeClock()
    gateway = replace(edge.gateway, clock=clock)
    rounds = Rounds(tuple(Chore(do.__name__, 60.0, do) for do in (hanging, well)))
    async with asyncio.timeout(30):
        for _ in range(3):
            await rounds.go(gateway, edge.engine)
            clock.seconds += 60.0
        assert ["hanging", "well", "well", "well"] == begun

        monkeypatch.setattr(housekeeping, "LONGEST", 0.01)
        monkeypatch.setattr(housekeeping, "ROUND", 30.0)
        rounds = Rounds((Chore("hanging", 60.0, hanging),))
        await rounds.go(gateway, edge.engine)
    assert "The chore `hanging` was given up" in caplog.text


async def test_a_host_that_ends_ends_what_goes_on(edge: Edge) -> None:
    """Nothing works on with a gateway that is being closed."""
    ended = asyncio.Event()

    async def hanging(_: Gateway, __: ChainEngine) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    run = asyncio.create_task(Rounds((Chore("hanging", 60.0, hanging),)).go(edge.gateway, edge.engine))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    run.cancel()
    async with asyncio.timeout(30):
        await ended.wait()


async def test_a_chore_is_done_as_often_as_it_is_due(edge: Edge) -> None:
    """A timer that runs every ten seconds does not add usage up every ten seconds."""
    done: list[str] = []

    def chore(name: str, every: float) -> Chore:
        async def do(_: Gateway, __: ChainEngine) -> None:
            done.append(name)

        return Chore(name, every, do)

    clock = FakeClock()
    gateway = replace(edge.gateway, clock=clock)
    rounds = Rounds((chore("often", 10.0), chore("seldom", 300.0)))
    for _ in range(31):
        await rounds.go(gateway, edge.engine)
        clock.seconds += 10.0

    assert (31, 2) == (done.count("often"), done.count("seldom"))


async def test_another_gateway_has_everything_done(edge: Edge) -> None:
    """What was done for a gateway that is gone was not done for its successor."""
    done: list[Gateway] = []

    async def do(gateway: Gateway, _: ChainEngine) -> None:
        done.append(gateway)

    rounds = Rounds((Chore("one", 300.0, do),))
    other = replace(edge.gateway)
    await rounds.go(edge.gateway, edge.engine)
    await rounds.go(other, edge.engine)

    assert 2 == len(done)

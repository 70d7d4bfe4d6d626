"""What is done without a request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest

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

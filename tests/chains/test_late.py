"""A process that was taken for dead, and comes back: what its attempts cost is one number, in the ledger and in the usage."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from shared import background
from shared.chains import ClaimState, State
from shared.core.registry import Registry
from shared.recovery import recover
from tests.chains.inline import InlineEngine, read_chat
from tests.chains.test_background import BOUND, PAID, found, given, stored
from tests.executor.conftest import Bench
from tests.executor.test_spending import TOTAL, USD, budget, spent
from tests.fakes import FakeClock, registry

Make = Callable[[Registry], Bench]


class Frozen:
    """An attempt whose process does not go on after the provider was asked, until it is thawed."""

    def __init__(self, it: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
        self.it = it
        self.asked = asyncio.Event()
        self.thawed = asyncio.Event()
        self._complete = it.provider.complete
        monkeypatch.setattr(it.provider, "complete", self._slowly)

    async def _slowly(self, call: Any) -> Any:
        self.asked.set()
        await self.thawed.wait()
        return await self._complete(call)


async def taken_for_dead(frozen: Bench, it: Bench) -> None:
    """Recover everything that has been silent so far: a process that is frozen does not say that it lives."""
    tending = frozen.gateway.ledger._task
    assert tending is not None
    tending.cancel()
    await asyncio.gather(tending, return_exceptions=True)
    for _ in range(3):
        await recover(it.gateway)
        cast("FakeClock", it.gateway.ledger._clock).seconds += 400


@pytest.mark.parametrize("back", ["before the end", "after the end", "before it was given up"])
async def test_who_comes_back_changes_nothing_that_was_summed_up(
    bench: Make, monkeypatch: pytest.MonkeyPatch, *, back: str
) -> None:
    """Ledger and usage say the same, whenever the one that was taken for dead wakes up; and nothing is forgotten."""
    one, other = bench(registry("a/sol")), bench(registry("a/sol"))
    name = await budget(one, "1")
    chain = await stored(one)
    frozen = Frozen(one, monkeypatch)
    attempt = asyncio.create_task(background.attempt(one.gateway, given(chain), read_chat))
    await frozen.asked.wait()
    await taken_for_dead(one, other)

    async def wake() -> None:
        frozen.thawed.set()
        await attempt
        await one.gateway.ledger.flush()

    if back == "before it was given up":
        await wake()
    engine = InlineEngine(other.gateway)
    ending = engine.activities["end_chain"]

    async def end(what: dict[str, Any]) -> Any:
        if back == "before the end":
            await wake()
        return await ending(what)

    engine.activities["end_chain"] = end
    await background.beginning.launch(engine, chain)
    await engine.ended(chain.id)
    if back == "after the end":
        await wake()

    ended = await other.gateway.chains.get(chain.id)
    assert State.COMPLETED == ended.state
    usage = (await found(other)).record
    assert await spent(other, name) == usage.cost == ended.cost
    expected = {"before the end": PAID + PAID, "after the end": BOUND + PAID, "before it was given up": PAID}
    assert expected[back] == ended.cost
    assert usage.cost == sum(each.cost or 0 for each in usage.attempts)
    assert 0 == (await other.gateway.ledger.balance(name, TOTAL, USD)).held
    assert {ClaimState.DONE} == {claim.state for claim in await other.gateway.chains.claims(chain.id)}

"""Each attempt of a chain is sent by one run alone and billed once, whatever dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from shared import background
from shared.chain_outcomes import error_of
from shared.chains import Chain, ClaimState, State
from shared.core.errors import (
    StorageUnavailableError,
)
from shared.core.records import LOST
from shared.core.registry import Registry
from shared.ledger import IntentState
from shared.recovery import recover
from tests.chains.inline import InlineEngine, read_chat
from tests.chains.test_background import BOUND, PAID, found, given, stored
from tests.executor.conftest import Bench
from tests.executor.test_recovery import die
from tests.executor.test_spending import TOTAL, USD, budget, intents, spent
from tests.fakes import FakeClock, Hang, registry

Make = Callable[[Registry], Bench]


async def test_an_attempt_run_twice_is_sent_once(bench: Make) -> None:
    """The second run takes what the first one wrote down."""
    it = bench(registry("a/sol"))
    name = await budget(it, "1")
    chain = await stored(it)

    first = await background.attempt(it.gateway, given(chain), read_chat)
    second = await background.attempt(it.gateway, given(chain), read_chat)

    assert {"event": "succeeded"} == first == second
    assert 1 == len(it.provider.asked)
    assert PAID == await spent(it, name)


async def test_an_attempt_run_twice_at_once_is_sent_once(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of two processes sends; the other gives its money back, and waits for the result."""
    monkeypatch.setattr(background.attempting, "LOOK_SECONDS", 0.01)
    one, other = bench(registry("a/sol")), bench(registry("a/sol"))
    name = await budget(one, "1")
    chain = await stored(one)

    results = await asyncio.gather(*(background.attempt(it.gateway, given(chain), read_chat) for it in (one, other)))

    assert [{"event": "succeeded"}] * 2 == results
    assert 1 == len(one.provider.asked) + len(other.provider.asked)
    await one.gateway.ledger.flush()
    assert PAID == await spent(other, name)


async def test_a_second_run_waits_for_the_first(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as the first one lives: its answer is everybody's."""
    monkeypatch.setattr(background.attempting, "LOOK_SECONDS", 0.01)
    one, other = bench(registry("a/sol")), bench(registry("a/sol"))
    chain = await stored(one)
    answering = asyncio.Event()
    whole = one.provider.complete

    async def slow(call: Any) -> Any:
        await answering.wait()
        return await whole(call)

    monkeypatch.setattr(one.provider, "complete", slow)
    first = asyncio.create_task(background.attempt(one.gateway, given(chain), read_chat))
    while await one.gateway.chains.claim(chain.id, 1) is None:
        await asyncio.sleep(0)
    second = asyncio.create_task(background.attempt(other.gateway, given(chain), read_chat))
    await asyncio.sleep(0.1)
    answering.set()

    assert [{"event": "succeeded"}] * 2 == [await first, await second]
    assert (1, 0) == (len(one.provider.asked), len(other.provider.asked))


async def test_nothing_is_sent_before_it_is_written_that_it_may_cost(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where no budget is hard: a chain's process may die at any moment, and what was billed is not to be lost."""
    it = bench(registry("a/sol"))
    chain = await stored(it)
    whole = it.provider.complete
    seen: list[IntentState] = []

    async def look(call: Any) -> Any:
        seen.extend(row.state for row in await intents(it.gateway.tables))
        return await whole(call)

    monkeypatch.setattr(it.provider, "complete", look)
    await background.attempt(it.gateway, given(chain), read_chat)

    assert [IntentState.PENDING] == seen


class Killed(BaseException):
    """The process is gone."""


async def killed(it: Bench, chain: Chain, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run an attempt in a process that dies at a place: nothing it does after that reaches the store."""
    chains = it.gateway.chains
    if where == "before the claim":
        monkeypatch.setattr(chains, "take", _dying)
    elif where == "before it was sent":
        taking = chains.take

        async def take(chain_id: str, claim: Any) -> Any:
            await taking(chain_id, claim)
            raise Killed

        monkeypatch.setattr(chains, "take", take)
    elif where == "after it was sent":
        monkeypatch.setattr(it.provider, "complete", _dying)
    elif where == "after the claim was written":
        finishing = chains.finish

        async def finish(*given: Any) -> bool:
            await finishing(*given)
            raise Killed

        monkeypatch.setattr(chains, "finish", finish)
    else:
        monkeypatch.setattr(chains, "finish", _dying)
    ledger = it.gateway.ledger
    silent = where != "after it was settled"
    for name in ("settle", "void"):
        if silent:
            monkeypatch.setattr(ledger, name, lambda *_, **__: None)
    with pytest.raises(Killed):
        await background.attempt(it.gateway, given(chain), read_chat)
    if not silent:
        await ledger.flush()
    await die(it)


async def _dying(*_: object, **__: object) -> Any:
    raise Killed


@pytest.mark.parametrize(
    ("where", "asked", "cost"),
    [
        ("before the claim", 1, PAID),
        ("before it was sent", 1, BOUND + PAID),
        ("after it was sent", 1, BOUND + PAID),
        ("before it was settled", 1, BOUND + PAID),
        ("after it was settled", 1, PAID + PAID),
        ("after the claim was written", 0, PAID),
    ],
)
async def test_a_process_killed_in_an_attempt_is_made_up_for(
    bench: Make, monkeypatch: pytest.MonkeyPatch, *, where: str, asked: int, cost: int
) -> None:
    """Whatever was perhaps billed is charged once, the rest given back, and the chain goes on to its answer."""
    dead, alive = bench(registry("a/sol")), bench(registry("a/sol"))
    name = await budget(dead, "1")
    chain = await stored(dead)
    await killed(dead, chain, where, monkeypatch)

    recovering = asyncio.create_task(_recovering(alive))
    engine = InlineEngine(alive.gateway)
    await background.beginning.launch(engine, chain)  # as an engine that never forgets would: from the chain's history
    await engine.ended(chain.id)
    for _ in range(3):
        await _recover(alive)
    recovering.cancel()
    await asyncio.gather(recovering, return_exceptions=True)

    ended = await alive.gateway.chains.get(chain.id)
    assert (State.COMPLETED, cost) == (ended.state, ended.cost)
    assert asked == len(alive.provider.asked)
    assert cost == await spent(alive, name) == (await found(alive)).record.cost
    assert 0 == (await alive.gateway.ledger.balance(name, TOTAL, USD)).held
    rows = await intents(alive.gateway.tables)
    assert [] == [row for row in rows if row.state is IntentState.PENDING]
    claims = await alive.gateway.chains.claims(chain.id)
    assert [ClaimState.DONE] * ended.attempts == [claim.state for claim in claims]
    lost = [claim.happened["billed"] for claim in claims[:-1] if claim.happened is not None]
    assert [cost - PAID] * (ended.attempts - 1) == lost  # what counts against a limit of the caller's


async def _recovering(it: Bench) -> None:
    while True:
        await _recover(it)
        await asyncio.sleep(0.01)


async def _recover(it: Bench) -> None:
    await recover(it.gateway)
    cast("FakeClock", it.gateway.ledger._clock).seconds += 400


async def test_a_chain_of_a_process_that_has_gone_is_lost_visibly(bench: Make) -> None:
    """An engine that forgets: the chain has failed, says so, and holds no money."""
    dead, alive = bench(registry("a/sol")), bench(registry("a/sol"))
    name = await budget(dead, "1")
    dead.provider.script("a/sol", Hang())
    chain = await stored(dead)
    attempt = asyncio.create_task(background.attempt(dead.gateway, given(chain), read_chat))
    while not dead.provider.asked:
        await asyncio.sleep(0.01)
    await die(dead)

    assert not await background.lose(alive.gateway, await alive.gateway.chains.get(chain.id))
    while not await background.lose(alive.gateway, await alive.gateway.chains.get(chain.id)):
        await _recover(alive)
    attempt.cancel()
    await asyncio.gather(attempt, return_exceptions=True)

    lost = await alive.gateway.chains.get(chain.id)
    assert (State.FAILED, "chain_lost", BOUND) == (lost.state, error_of(lost).code, lost.cost)
    assert BOUND == await spent(alive, name)
    usage = await found(alive)
    assert [LOST] == [one.outcome for one in usage.attempts]
    assert 0 == (await alive.gateway.ledger.balance(name, TOTAL, USD)).held


async def test_a_claim_that_landed_unheard_is_ones_own(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store's answer was lost: the attempt is made all the same, and not waited for as if it were another's."""
    it = bench(registry("a/sol"))
    chain = await stored(it)
    table = it.gateway.chains._table
    inserting = table.insert

    async def insert(entity: Any) -> str:
        await inserting(entity)
        raise StorageUnavailableError(LOST)

    monkeypatch.setattr(table, "insert", insert)

    assert {"event": "succeeded"} == await background.attempt(it.gateway, given(chain), read_chat)
    assert 1 == len(it.provider.asked)

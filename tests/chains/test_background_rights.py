"""What a chain's caller may do is asked again when its turn comes, and what it used counts against the caller's limits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from shared.adapters.clock import SystemClock
from shared.background import lose, start, sweep
from shared.chain_outcomes import error_of
from shared.chains import State
from shared.core.chat import Usage
from shared.core.errors import PermissionDeniedError, RateLimitError
from shared.core.failures import Failed, FailureKind
from shared.core.records import Caller
from shared.core.registry import Registry
from shared.limits import RateLimits
from shared.ports import Action, Entity, Op
from tests.chains.inline import InlineEngine
from tests.chains.test_background import new, run, stored
from tests.executor.conftest import Bench
from tests.fakes import answer, registry, request

Make = Callable[[Registry], Bench]


@pytest.mark.parametrize("change", ["revoked", "narrowed", "expired"])
async def test_a_key_that_lost_its_right_asks_nobody_any_more(bench: Make, change: str) -> None:
    """A chain may wait for days: its key is looked at before each attempt."""
    it = bench(registry("a/sol"))
    made = await it.gateway.keys.create("shop", "shop", expires_at=it.clock.now() + 1_000.0)
    caller = Caller(made.key.key_id, "shop")
    it.provider.script("a/sol", Failed(FailureKind.RATE_LIMITED, "slow down", retry_after=3600.0))
    engine = InlineEngine(it.gateway)
    noted = engine.activities["note_chain"]

    async def note(given: dict[str, Any]) -> Any:
        if change == "revoked":
            await it.gateway.keys.revoke(caller.key_id)
        elif change == "narrowed":
            await it.gateway.keys.update(caller.key_id, models=frozenset({"luna"}))
        return await noted(given)

    engine.activities["note_chain"] = note
    chain = await start(it.gateway, engine, caller, request(max_output_tokens=100), new())
    await engine.ended(chain.id)

    ended = await it.gateway.chains.get(chain.id)
    error = error_of(ended)
    assert (State.FAILED, "invalid_api_key", 1) == (ended.state, error.code, len(it.provider.asked))
    assert isinstance(error, PermissionDeniedError)


async def test_what_a_chain_used_counts_against_tokens_per_minute(bench: Make) -> None:
    """Beyond what it was counted for when it was asked for: else the background would have no such limit."""
    it = bench(registry("a/sol"))
    limits = RateLimits(it.gateway.tables, SystemClock(), "limits")  # a minute of the fake clock would be over at once
    gateway = replace(it.gateway, limits=limits)
    caller = Caller("key_tpm", "shop", tokens_per_minute=1_000)
    engine = InlineEngine(gateway)
    it.provider.script("a/sol", answer(usage=Usage(600, 900)))
    chain = await start(gateway, engine, caller, request(max_output_tokens=20), new())
    await engine.ended(chain.id)
    await limits.flush()

    with pytest.raises(RateLimitError):
        await start(gateway, engine, caller, request(max_output_tokens=20), new("chain_2"))
    await limits.aclose()


async def test_a_chain_that_was_deleted_can_be_made_again(bench: Make) -> None:
    """Under the same id, which follows from a key: engines take a name only once."""
    it = bench(registry("a/sol"))
    engine = InlineEngine(it.gateway)
    first = await run(it, engine)
    await it.gateway.chains.delete(first.id)
    it.clock.seconds += 1.0

    again = await run(it, engine)

    assert (first.id, State.COMPLETED) == (again.id, again.state)
    assert 2 == len(it.provider.asked)


async def test_a_damaged_chain_keeps_no_other_from_being_swept(bench: Make) -> None:
    """It is left alone, and said so in the log."""
    it = bench(registry("a/sol"))
    chain = await stored(it)
    table = it.gateway.tables.table("chains")
    await table.transact([Op(Action.UPSERT, Entity("open", "chain_0", {"at": it.clock.now()}))])
    await table.transact([Op(Action.UPSERT, Entity("c~chain_0", "0", {"kind": "nothing"}))])
    it.clock.seconds += 60
    engine = InlineEngine(it.gateway)

    assert 1 == await sweep(it.gateway, engine)
    await engine.ended(chain.id)


class Receiver:
    """A webhook that takes everything."""

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []

    async def send(self, url: str, payload: Any, *, delivery: str) -> str | None:
        """Take it."""
        self.told.append({"url": url, "delivery": delivery, **payload})
        await asyncio.sleep(0)
        return None


async def test_who_waits_for_a_chain_is_told_that_it_is_lost(bench: Make) -> None:
    """Its engine is gone and tells nobody any more."""
    it = bench(registry("a/sol"))
    receiver = Receiver()
    gateway = replace(it.gateway, webhook=receiver)
    engine = InlineEngine(gateway)
    engine.away = True
    chain = await start(gateway, engine, Caller("key_test", "shop"), request(), new(webhook="https://hooks.example.com/x"))

    assert await lose(gateway, chain)

    assert ["chain.failed"] == [one["type"] for one in receiver.told]

"""Chains: each attempt sent by one run alone and billed once, whatever dies, and the answer there when it is ready."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import orjson
import pytest

from shared import background
from shared.background import NewChain, cancel, start, wait_for
from shared.chain_outcomes import answer_of, error_of
from shared.chains import Chain, Kind, State
from shared.core.chain import plan_in
from shared.core.errors import (
    AllAttemptsFailedError,
    BudgetExceededError,
    ConflictError,
    DeadlineExceededError,
    GatewayError,
    InvalidRequestError,
)
from shared.core.failures import Failed, FailureKind
from shared.core.records import Caller
from shared.core.registry import Registry
from tests.chains.inline import InlineEngine, read_chat
from tests.executor.conftest import CALLER, Bench
from tests.executor.test_spending import TOTAL, USD, budget, spent
from tests.fakes import Hang, answer, registry, request

Make = Callable[[Registry], Bench]
REQUEST = "req_01KAQ0000000000000000000A1"
BODY = orjson.dumps({"model": "sol", "max_tokens": 100})
PAID = 20_000
BOUND = 40 * 1000 + 100 * 2000


def new(name: str = "chain_1", **fields: Any) -> NewChain:
    """Return a chain to be."""
    given = NewChain(name, REQUEST, Kind.ASYNC, "/v1/chat/completions", BODY, deadline=86_400.0)
    return replace(given, **fields)


async def run(it: Bench, engine: InlineEngine | None = None, **fields: Any) -> Chain:
    """Run a chain to its end."""
    engine = engine or InlineEngine(it.gateway)
    chain = await start(it.gateway, engine, CALLER, request(max_output_tokens=100), new(**fields))
    await engine.ended(chain.id)
    return await it.gateway.chains.get(chain.id)


async def stored(it: Bench, name: str = "chain_1") -> Chain:
    """Store a chain without starting it."""
    engine = InlineEngine(it.gateway)
    engine.away = True
    return await start(it.gateway, engine, CALLER, request(max_output_tokens=100), new(name))


def given(chain: Chain, number: int = 1, place: int = 0) -> dict[str, Any]:
    """Return what an attempt's activity is given."""
    candidate = cast("Any", chain.plan)["candidates"][place]
    return {"id": chain.id, "candidate": candidate, "number": number, "remaining": 1000.0, "forced": False}


async def found(it: Bench) -> Any:
    """Return the request's usage."""
    record = await it.gateway.usage.find(REQUEST)
    assert record is not None
    return record


async def test_a_chain_answers(bench: Make) -> None:
    """The answer, what it cost, one claim, one charge, one record of usage with its decision."""
    it = bench(registry("a/sol"))
    name = await budget(it, "1")

    chain = await run(it)

    assert (State.COMPLETED, PAID, 1) == (chain.state, chain.cost, chain.attempts)
    told = await answer_of(it.gateway, chain)
    assert ("Hello", "sol", "a/sol", 1, PAID) == (
        told.completion.payload["choices"][0]["message"]["content"],
        told.model,
        told.deployment,
        told.attempts,
        told.cost,
    )
    assert PAID == await spent(it, name)
    usage = await found(it)
    assert (PAID, "succeeded", "shop", False) == (
        usage.record.cost,
        usage.record.outcome,
        usage.record.project,
        usage.record.recovered,
    )
    assert "a/sol" == usage.trace["candidates"][0][0]
    assert [] == [one async for one in it.gateway.tables.table("chains").query("open")]


async def test_a_chain_waits_as_long_as_its_provider_asks(bench: Make) -> None:
    """An hour's Retry-After is waited for, and seen from outside while it is."""
    it = bench(registry("a/sol"))
    it.provider.script("a/sol", Failed(FailureKind.RATE_LIMITED, "slow down", retry_after=3600.0))
    engine = InlineEngine(it.gateway)
    seen: list[dict[str, Any]] = []
    noted = engine.activities["note_chain"]

    async def note(given: dict[str, Any]) -> Any:
        await noted(given)
        seen.append(dict((await it.gateway.chains.get(given["id"])).status))

    engine.activities["note_chain"] = note
    before = it.clock.now()
    chain = await run(it, engine)

    assert State.COMPLETED == chain.state
    assert 3600 <= it.clock.now() - before < 3700
    assert ["waiting_until"] == list(seen[0])
    assert ["rate_limited", "succeeded"] == [one.outcome for one in (await found(it)).attempts]


async def test_a_chain_falls_back(bench: Make) -> None:
    """Another candidate answers; both attempts are in the usage, once."""
    it = bench(registry("a/sol", "b/luna"))
    it.provider.script("a/sol", Failed(FailureKind.SERVER_ERROR, "no"))

    chain = await run(it)

    assert (State.COMPLETED, 2, 2) == (chain.state, chain.attempts, chain.answer)
    assert [1, 2] == [one.number for one in (await found(it)).attempts]


@pytest.mark.parametrize(
    ("failed", "error", "code"),
    [
        (
            Failed(FailureKind.INVALID_REQUEST, "bad schema", code="invalid_schema", param="tools"),
            InvalidRequestError,
            "invalid_schema",
        ),
        (Failed(FailureKind.UNAUTHORIZED, "no key"), AllAttemptsFailedError, None),
    ],
)
async def test_a_chain_that_fails_says_why(bench: Make, failed: Failed, error: type[GatewayError], code: str | None) -> None:
    """As an interactive call would have."""
    it = bench(registry("a/sol"))
    it.provider.script("a/sol", failed)

    chain = await run(it)

    assert State.FAILED == chain.state
    told = error_of(chain)
    assert type(told) is error
    assert code == told.code


async def test_a_chain_ends_at_its_deadline(bench: Make) -> None:
    """What nobody answers until then is a failure, and is not tried for ever."""
    it = bench(registry("a/sol"))
    it.provider.script("a/sol", *[Failed(FailureKind.SERVER_ERROR, "no")] * 50)

    chain = await run(it, deadline=600.0)

    assert isinstance(error_of(chain), DeadlineExceededError | AllAttemptsFailedError)
    assert it.clock.now() - chain.created_at <= 700
    assert 5 < len(it.provider.asked) < 30


async def test_an_attempt_whose_turn_comes_late_keeps_to_the_deadline(bench: Make) -> None:
    """It has what is left and no more; after the deadline nothing is sent, and nothing billed."""
    it = bench(registry("a/sol"))
    first, second = await stored(it), await stored(it, "chain_2")
    it.clock.seconds += 86_400.0 - 5.0
    assert {"event": "succeeded"} == await background.attempt(it.gateway, given(first), read_chat)
    it.clock.seconds += 10.0
    late = await background.attempt(it.gateway, given(second), read_chat)

    assert [5.0] == [call.timeouts.whole for call in it.provider.asked]
    assert ("failed", "not_admitted") == (late["event"], late["failed"]["kind"])


async def test_a_budget_ends_a_chain(bench: Make) -> None:
    """As ``insufficient_quota``; nothing was sent."""
    it = bench(registry("a/sol"))
    await budget(it, "0.0001")

    chain = await run(it)

    assert isinstance(error_of(chain), BudgetExceededError)
    assert "insufficient_quota" == error_of(chain).code
    assert [] == it.provider.asked


async def test_the_same_chain_is_started_once(bench: Make) -> None:
    """Whoever starts it again gets the one that is there; somebody else does not."""
    it = bench(registry("a/sol"))
    engine = InlineEngine(it.gateway)
    chain = await run(it, engine)

    again = await start(it.gateway, engine, CALLER, request(), new())
    assert (chain.id, State.COMPLETED) == (again.id, again.state)
    assert 1 == len(it.provider.asked)
    with pytest.raises(ConflictError):
        await start(it.gateway, engine, Caller("key_other", "shop"), request(), new())


async def test_what_could_not_be_started_is_started_later(bench: Make) -> None:
    """The engine was away: the chain is stored, and the sweep starts it."""
    it = bench(registry("a/sol"))
    chain = await stored(it)
    engine = InlineEngine(it.gateway)
    assert 0 == await background.sweep(it.gateway, engine)
    it.clock.seconds += 60

    assert 1 == await background.sweep(it.gateway, engine)
    await engine.ended(chain.id)

    assert State.COMPLETED == (await it.gateway.chains.get(chain.id)).state


# ---- cancelling ------------------------------------------------------------------------------------------------------


async def test_cancelling_ends_a_wait_and_gives_back_what_is_held(bench: Make) -> None:
    """At once, though the provider asked for an hour; twice changes nothing."""
    it = bench(registry("a/sol"))
    name = await budget(it, "1")
    it.provider.script("a/sol", Failed(FailureKind.RATE_LIMITED, "slow down", retry_after=3600.0))
    engine = InlineEngine(it.gateway)
    chain = await start(it.gateway, engine, CALLER, request(max_output_tokens=100), new())
    while "waiting_until" not in (await it.gateway.chains.get(chain.id)).status:
        await asyncio.sleep(0)

    await cancel(it.gateway, engine, chain.id)
    await cancel(it.gateway, engine, chain.id)
    await engine.ended(chain.id)

    ended = await cancel(it.gateway, engine, chain.id)
    assert (State.CANCELLED, 1) == (ended.state, len(it.provider.asked))
    assert 0 == await spent(it, name)
    assert 0 == (await it.gateway.ledger.balance(name, TOTAL, USD)).held
    assert "cancelled" == (await found(it)).record.outcome


async def test_cancelling_stops_the_attempt_that_runs(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider's call is dropped; what it may have cost is charged."""
    monkeypatch.setattr(background.attempting, "LOOK_SECONDS", 0.01)
    it = bench(registry("a/sol"))
    name = await budget(it, "1")
    it.provider.script("a/sol", Hang())
    engine = InlineEngine(it.gateway)
    chain = await start(it.gateway, engine, CALLER, request(max_output_tokens=100), new())
    while not it.provider.asked:
        await asyncio.sleep(0)

    await cancel(it.gateway, engine, chain.id)
    await engine.ended(chain.id)

    assert State.CANCELLED == (await it.gateway.chains.get(chain.id)).state
    assert ["a/sol"] == it.provider.closed_early
    assert BOUND == await spent(it, name)
    assert BOUND == (await found(it)).record.cost


async def test_what_was_answered_is_not_cancelled(bench: Make) -> None:
    """A cancel that comes too late leaves the answer there."""
    it = bench(registry("a/sol"))
    engine = InlineEngine(it.gateway)
    chain = await run(it, engine)

    assert State.COMPLETED == (await cancel(it.gateway, engine, chain.id)).state


async def test_an_ended_chain_attempts_nothing(bench: Make) -> None:
    """An activity that comes after the end sends nothing."""
    it = bench(registry("a/sol"))
    chain = await run(it)

    assert {"event": "cancelled"} == await background.attempt(it.gateway, given(chain, 2), read_chat)
    assert 1 == len(it.provider.asked)
    assert "completed" == await background.end(it.gateway, {"id": chain.id, "outcome": None})


async def test_waiting_for_a_chain(bench: Make) -> None:
    """Returns as soon as it has ended, or when the time is over."""
    it = bench(registry("a/sol"))
    chain = await stored(it)
    assert State.QUEUED == (await wait_for(it.gateway, chain.id, 5.0)).state
    await start(it.gateway, InlineEngine(it.gateway), CALLER, request(), new())
    assert State.COMPLETED == (await wait_for(it.gateway, chain.id, 1000.0)).state


async def test_the_plan_of_a_chain_is_patient(bench: Make) -> None:
    """Within one deadline, with one cap on the attempts and one on the cost."""
    it = bench(registry("a/sol"))
    chain = await start(
        it.gateway, InlineEngine(it.gateway), CALLER, request(max_output_tokens=100, budget_limit=10**9), new(deadline=7200.0)
    )
    plan = plan_in(chain.plan)

    assert (7200.0, 7200.0, 10**9) == (plan.policy.deadline, plan.policy.max_wait, plan.cost_cap)
    assert answer() is not None

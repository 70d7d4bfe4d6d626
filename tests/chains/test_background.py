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
from shared.chains import Chain, ClaimState, Kind, State
from shared.core.chain import plan_in
from shared.core.errors import (
    AllAttemptsFailedError,
    BudgetExceededError,
    ConflictError,
    DeadlineExceededError,
    GatewayError,
    InvalidRequestError,
    StorageUnavailableError,
)
from shared.core.failures import Failed, FailureKind
from shared.core.records import Caller
from shared.core.registry import Registry
from shared.ledger import IntentState
from shared.recovery import LOST, recover
from tests.chains.inline import InlineEngine, read_chat
from tests.executor.conftest import CALLER, Bench
from tests.executor.test_recovery import die
from tests.executor.test_spending import TOTAL, USD, budget, intents, spent
from tests.fakes import FakeClock, Hang, answer, registry, request

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
    assert [] == [one async for one in it.gateway.chains.unfinished()]


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
    monkeypatch.setattr(background, "LOOK_SECONDS", 0.01)
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


# ---- run twice, and killed -------------------------------------------------------------------------------------------


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
    monkeypatch.setattr(background, "LOOK_SECONDS", 0.01)
    one, other = bench(registry("a/sol")), bench(registry("a/sol"))
    name = await budget(one, "1")
    chain = await stored(one)

    results = await asyncio.gather(*(background.attempt(it.gateway, given(chain), read_chat) for it in (one, other)))

    assert [{"event": "succeeded"}] * 2 == results
    assert 1 == len(one.provider.asked) + len(other.provider.asked)
    await one.gateway.ledger.flush()
    assert PAID == await spent(other, name)


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
    await background._launch(engine, chain)  # as an engine that never forgets would: from the chain's history
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
    assert [ClaimState.DONE] * ended.attempts == [claim.state for claim in await alive.gateway.chains.claims(chain.id)]


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

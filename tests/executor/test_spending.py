"""What a request may spend: held before, settled after, refused when a budget does not cover it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from shared.core.budgets import Account
from shared.core.chat import Usage
from shared.core.errors import BudgetExceededError, GatewayError, InvalidRequestError, RateLimitError, StorageUnavailableError
from shared.core.failures import Failed, FailureKind
from shared.core.registry import Limits, Price, Rates, Registry
from shared.executor import PROBE_TOKENS, SILENT_AFTER, AnswerStream, complete, open_stream, probe
from shared.ledger import Hold, Intent, IntentState, Ledger
from shared.ledger import rows as ledger_rows
from shared.ports import Tables
from shared.projects import Project
from tests.executor.conftest import CALLER, Bench
from tests.fakes import FakeClock, Hang, answer, chunks, registry, request

Make = Callable[[Registry], Bench]

USD = 10**9
TOTAL = "total"


class Counting(Ledger):
    """A ledger that counts how often it is asked for money."""

    reservations = 0

    async def reserve(
        self,
        intent: Intent,
        accounts: tuple[Account, ...],
        amount: int,
        *,
        least: int | None = None,
        wait: float | None = None,
        written: bool = False,
    ) -> Hold:
        """Count, and reserve."""
        self.reservations += 1
        return await super().reserve(intent, accounts, amount, least=least, wait=wait, written=written)


async def budget(bench: Bench, limit: str, **fields: object) -> str:
    """Make a budget over everything; return its id."""
    made = await bench.gateway.budgets.create(
        {"name": "all", "scope": {"kind": "organization"}, "limit_usd": limit, "cycle": "total", **fields}
    )
    return made.budget.id


async def intents(tables: Tables) -> list[ledger_rows.IntentRow]:
    """Return every attempt the ledger knows."""
    table = tables.table(ledger_rows.TABLE)
    sessions = [entity.row async for entity in table.query(ledger_rows.SESSIONS)]
    return [
        ledger_rows.intent(entity)
        for session in sessions
        async for entity in table.query(ledger_rows.session_partition(session))
        if entity.row.startswith(ledger_rows.INTENT)
    ]


async def spent(bench: Bench, budget_id: str, limit: int = USD) -> int:
    """Return what the ledger's head says, everything being written."""
    await bench.gateway.ledger.flush()
    return (await bench.gateway.ledger.balance(budget_id, TOTAL, limit)).spent


async def test_an_answer_is_charged_what_it_cost(bench: Make) -> None:
    """Held at the upper bound before, settled at the usage's price after; one row in ledger and usage alike."""
    it = bench(registry("a/sol"))
    name = await budget(it, "1")

    found = await complete(it.gateway, CALLER, request(max_output_tokens=100), request_id="req_1")

    assert found.cost == 10 * 1000 + 5 * 2000 == await spent(it, name)
    (row,) = await intents(it.gateway.tables)
    assert (row.state, row.charged, row.estimate) == (IntentState.DONE, 20_000, 40 * 1000 + 100 * 2000)
    assert it.record.cost == it.record.billed == 20_000


async def test_a_call_without_a_limit_is_sent_with_one_under_a_hard_budget(bench: Make) -> None:
    """What the bound was computed for is what the provider is held to."""
    it = bench(registry("a/sol"))
    await budget(it, "1")

    await complete(it.gateway, CALLER, request(), request_id="req_1")

    assert it.provider.asked[0].payload["max_tokens"] == 1000


async def test_what_a_budget_does_not_cover_is_refused_unsent(bench: Make) -> None:
    """Nothing reaches the provider, nothing is spent, and the refusal names the budget."""
    it = bench(registry("a/sol"))
    name = await budget(it, "0.0001")

    with pytest.raises(BudgetExceededError) as refused:
        await complete(it.gateway, CALLER, request(max_output_tokens=100), request_id="req_1")

    assert (name, []) == (refused.value.budget, it.provider.asked)
    assert refused.value.resets_at is None  # it is for good: there is no next period
    assert it.record.outcome == "over_budget"
    assert await spent(it, name) == 0


async def test_a_refusal_says_when_the_next_period_begins(bench: Make) -> None:
    """A month's budget names the first of the next month, in the message and as a moment."""
    it = bench(registry("a/sol"))
    await budget(it, "0.0001", cycle="month", time_zone="Europe/Berlin")

    with pytest.raises(BudgetExceededError, match=r"next period begins 2026-11-30T23:00:00Z") as refused:
        await complete(it.gateway, CALLER, request(max_output_tokens=100), request_id="req_1")

    assert 1_796_079_600 == refused.value.resets_at


async def test_a_cheaper_candidate_is_asked_when_the_dear_one_does_not_fit(bench: Make) -> None:
    """A budget that covers only the fallback leads to it, and that is no attempt of the dear one."""
    dear = (Price(date(2026, 1, 1), Rates(Decimal(100), Decimal(200))),)
    it = bench(registry("a/sol", "b/luna", prices={"a/sol": dear}))
    await budget(it, "0.001")

    found = await complete(it.gateway, CALLER, request(max_output_tokens=100), request_id="req_1")

    assert ("b/luna", 1) == (found.deployment, found.attempts)


async def test_an_unknown_price_is_refused_under_a_hard_budget_only(bench: Make) -> None:
    """Unknown is never zero; where no hard budget applies the call goes through, its cost unknown."""
    it = bench(registry("a/sol", prices={"a/sol": ()}))
    assert (await complete(it.gateway, CALLER, request(), request_id="req_1")).cost is None

    await budget(it, "1")
    with pytest.raises(BudgetExceededError, match="price"):
        await complete(it.gateway, CALLER, request(), request_id="req_2")


@pytest.mark.parametrize(
    ("kind", "charged"), [(FailureKind.TIMEOUT, 240_000), (FailureKind.RATE_LIMITED, 0), (FailureKind.SERVER_ERROR, 0)]
)
async def test_a_failed_attempt_is_charged_by_what_is_known(bench: Make, kind: FailureKind, charged: int) -> None:
    """Unknown outcomes are charged their whole bound; what providers don't bill is void; the answer is charged beside."""
    it = bench(registry("a/sol", "b/luna"))
    name = await budget(it, "1")
    it.provider.script("a/sol", Failed(kind, "no"))

    found = await complete(it.gateway, CALLER, request(max_output_tokens=100), request_id="req_1")

    assert found.cost == charged + 20_000 == await spent(it, name)
    assert it.record.billed == 20_000


async def test_a_cut_stream_is_charged_its_bound_under_a_hard_budget(bench: Make) -> None:
    """Nobody knows what the provider went on to produce."""
    it = bench(registry("a/sol"))
    name = await budget(it, "1")
    it.provider.script("a/sol", [*chunks("Hel")[:3], Failed(FailureKind.INTERRUPTED, "cut")])

    stream = await open_stream(it.gateway, CALLER, request(stream=True, max_output_tokens=100), request_id="req_1")
    with pytest.raises(Exception, match="cut off"):
        async for _ in stream:
            pass
    await stream.aclose()

    assert await spent(it, name) == 240_000


async def test_a_client_that_leaves_a_stream_is_accounted_for(bench: Make) -> None:
    """The hold is settled at once when the stream is closed, not left to recovery."""
    it = bench(registry("a/sol"))
    name = await budget(it, "1")
    it.provider.script("a/sol", [*chunks("Hel")[:3], Hang()])
    stream = await open_stream(it.gateway, CALLER, request(stream=True, max_output_tokens=100), request_id="req_1")
    async for _ in stream:
        break

    await stream.aclose()

    assert await spent(it, name) == 240_000
    assert {row.state for row in await intents(it.gateway.tables)} == {IntentState.DONE}


async def test_a_client_that_leaves_while_it_waits_is_accounted_for(bench: Make) -> None:
    """A cancelled call may have been billed: it is charged its bound under a hard budget."""
    it = bench(registry("a/sol"))
    name = await budget(it, "1")
    it.provider.script("a/sol", Hang())
    task = asyncio.create_task(complete(it.gateway, CALLER, request(max_output_tokens=100), request_id="req_1"))
    while not it.provider.asked:
        await asyncio.sleep(0)

    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert await spent(it, name) == 240_000


async def test_a_clamping_budget_shortens_the_answer_to_what_is_left(bench: Make) -> None:
    """With at_end=clamp the output is held to what is affordable, down to the floor, then refused."""
    it = bench(registry("a/sol"))
    await budget(it, "0.0003", at_end="clamp", floor_tokens=20)

    await complete(it.gateway, CALLER, request(max_output_tokens=1000), request_id="req_1")

    # 300,000 nano-USD less 40 tokens of input at 1,000 leaves 260,000: 130 tokens at 2,000.
    assert it.provider.asked[0].payload["max_tokens"] == 130
    for number in range(2, 40):
        try:
            await complete(it.gateway, CALLER, request(max_output_tokens=1000), request_id=f"req_{number}")
        except BudgetExceededError:
            break
    assert min(call.payload["max_tokens"] for call in it.provider.asked) >= 20


async def test_a_downgrading_budget_turns_to_cheap_before_its_end(bench: Make) -> None:
    """From `downgrade_at` on, `auto` prefers the cheapest, and the trace says so."""
    it = bench(registry("a/sol"))
    await budget(it, "0.00035", at_end="downgrade", downgrade_at=0.05)
    await complete(it.gateway, CALLER, request(max_output_tokens=100), request_id="req_1")
    await it.gateway.ledger.flush()

    await complete(it.gateway, CALLER, request(max_output_tokens=100), request_id="req_2")

    assert "cost" in str(it.written[1].trace)
    assert it.written[0].trace != it.written[1].trace


async def test_a_soft_budget_only_tells(bench: Make) -> None:
    """It is charged past its limit, and nobody is refused or held to anything."""
    it = bench(registry("a/sol"))
    name = await budget(it, "0.000001", hard=False)

    await complete(it.gateway, CALLER, request(), request_id="req_1")

    assert await spent(it, name) == 20_000
    assert "max_tokens" not in it.provider.asked[0].payload


async def test_every_level_is_charged(bench: Make) -> None:
    """Organisation, project, key and model, by one intent row."""
    it = bench(registry("a/sol"))
    scopes = [
        {"kind": "organization"},
        {"kind": "project", "name": "shop"},
        {"kind": "key", "name": "key_test"},
        {"kind": "model", "name": "sol"},
    ]
    names = [await budget(it, "1", scope=scope) for scope in scopes]
    other = await budget(it, "1", scope={"kind": "project", "name": "other"})

    await complete(it.gateway, CALLER, request(), request_id="req_1")

    assert [20_000] * 4 == [await spent(it, name) for name in names]
    assert await spent(it, other) == 0
    assert len(await intents(it.gateway.tables)) == 1


async def test_an_overrun_is_charged_in_full_and_told(bench: Make, caplog: pytest.LogCaptureFixture) -> None:
    """A provider that bills more than the bound is believed, and somebody hears of it (fault 22)."""
    it = bench(registry("a/sol"))
    name = await budget(it, "1")
    it.provider.script("a/sol", answer(usage=Usage(10, 5000)))

    await complete(it.gateway, CALLER, request(max_output_tokens=100), request_id="req_1")

    assert await spent(it, name) == 10 * 1000 + 5000 * 2000
    assert "overrun" in caplog.text
    assert it.gateway.ledger.overruns == 1


async def test_a_probe_costs_no_more_than_was_held_for_it(bench: Make) -> None:
    """A health probe is held at an upper bound too, its prompt included: it must not be what passes a budget's limit."""
    it = bench(registry("a/sol"))
    await budget(it, "1")
    await complete(it.gateway, CALLER, request(), request_id="req_1")
    it.clock.seconds += SILENT_AFTER
    it.provider.script("a/sol", answer(usage=Usage(input_tokens=8, output_tokens=PROBE_TOKENS)))

    assert {"a/sol": True} == await probe(it.gateway, request_id=lambda: "req_probe")

    assert 0 == it.gateway.ledger.overruns


async def test_candidates_of_one_price_wait_for_money_once(bench: Make) -> None:
    """While others hold the money a request waits for it, but not anew at each candidate that costs as much."""
    it = bench(registry("a/sol", "b/sol", "c/sol"))
    name = await budget(it, "0.001")
    others = Ledger(it.gateway.tables, FakeClock(), "others")
    account = Account(name, TOTAL, USD // 1000, hard=True)
    held = await others.reserve(Intent("req_other", 1), (account,), USD // 1000)
    asked = Counting(it.gateway.tables, FakeClock(), "counting")

    with pytest.raises(BudgetExceededError) as refused:
        await complete(replace(it.gateway, ledger=asked), CALLER, request(max_output_tokens=100), request_id="req_1")

    assert (name, 1) == (refused.value.budget, asked.reservations)
    others.void(held)
    await asked.aclose()
    await others.aclose()


async def test_a_missing_usage_is_charged_the_bound(bench: Make) -> None:
    """An answer whose provider did not say what it used costs what was held (fault 22)."""
    it = bench(registry("a/sol"))
    name = await budget(it, "1")
    it.provider.script("a/sol", answer(usage=None))

    await complete(it.gateway, CALLER, request(max_output_tokens=100), request_id="req_1")

    assert await spent(it, name) == 240_000
    assert not it.record.exact


@pytest.mark.parametrize(
    ("facts", "extra"),
    [
        ({"images": 1}, 75_000 * 1000),
        ({"unsized": True}, 200_000 * 1000),
        ({"images": 2}, 100_000 * 1000),
        ({"prediction_bound": 30}, 30 * 2000),
        ({"prediction_bound": 30, "n": 2}, 30 * 2 * 2000 + 100 * 2000),
    ],
)
async def test_what_is_held_covers_more_than_text(bench: Make, facts: dict[str, Any], extra: int) -> None:
    """A picture, a document, pictures that fill the window, a prediction that does not come true. All is given back later."""
    it = bench(registry("a/sol"))
    name = await budget(it, "1")

    await complete(it.gateway, CALLER, request(max_output_tokens=100, **facts), request_id="req_1")

    assert 20_000 == await spent(it, name)
    (row,) = await intents(it.gateway.tables)
    assert 40 * 1000 + 100 * 2000 + extra == row.estimate


@pytest.mark.parametrize("limit", ["budget", "budget_limit"])
async def test_what_is_billed_beyond_the_price_list_is_refused_by_every_limit(bench: Make, limit: str) -> None:
    """A budget and a request's own limit have one rule; without either the call goes through."""
    it = bench(registry("a/sol"))
    asked = request(surcharged=frozenset({"cache_control.ttl"}), max_output_tokens=100)
    await complete(it.gateway, CALLER, asked, request_id="req_1")
    if limit == "budget":
        await budget(it, "1")
    else:
        asked = replace(asked, requirements=replace(asked.requirements, budget_limit=USD))

    with pytest.raises(GatewayError, match=r"cache_control\.ttl"):
        await complete(it.gateway, CALLER, asked, request_id="req_2")

    assert 1 == len(it.provider.asked)


async def test_a_service_tier_nobody_priced_is_charged_the_bound_and_told_once(
    bench: Make, caplog: pytest.LogCaptureFixture
) -> None:
    """What it cost may have been more than was held: somebody hears of it, but not at every call."""
    it = bench(registry("a/sol"))
    name = await budget(it, "1")
    for number in (1, 2):
        it.provider.script("a/sol", answer(usage=Usage(10, 5, service_tier="turbo")))
        await complete(it.gateway, CALLER, request(max_output_tokens=100), request_id=f"req_{number}")

    assert 2 * 240_000 == await spent(it, name)
    assert 1 == caplog.text.count("overrun possible")
    assert "a/sol" in caplog.text
    assert "'turbo'" in caplog.text


async def test_a_keys_limit_refuses_with_the_headers(bench: Make) -> None:
    """The second request of one a minute is told when to come back, and nothing is sent or charged."""
    it = bench(registry("a/sol"))
    caller = replace(CALLER, requests_per_minute=1)
    first = await complete(it.gateway, caller, request(), request_id="req_1")

    with pytest.raises(RateLimitError) as refused:
        await complete(it.gateway, caller, request(), request_id="req_2")

    assert "x-ratelimit-limit-requests" in dict(first.limits)
    assert dict(refused.value.headers)["x-ratelimit-remaining-requests"] == "0"
    assert refused.value.retry_after is not None
    assert 0 < refused.value.retry_after <= 60
    assert len(it.provider.asked) == 1


async def test_a_projects_limit_holds_for_all_its_keys(bench: Make) -> None:
    """Two keys share their project's limit."""
    it = bench(registry("a/sol"))
    await it.gateway.projects.put(Project("shop", requests_per_minute=1))
    it.gateway.projects.limits("shop")  # starts reading
    await asyncio.sleep(0.05)
    await complete(it.gateway, CALLER, request(), request_id="req_1")

    with pytest.raises(RateLimitError, match="project:shop"):
        await complete(it.gateway, replace(CALLER, key_id="key_other"), request(), request_id="req_2")


async def test_a_deployments_limit_leads_to_the_next(bench: Make) -> None:
    """A deployment that has used up its requests per minute is passed over, without an attempt."""
    built = registry("a/sol", "b/luna")
    limited = replace(built.deployments["a/sol"], limits=Limits(requests_per_minute=1))
    built = replace(built, deployments={**built.deployments, "a/sol": limited}, by_model={**built.by_model, "sol": (limited,)})
    it = bench(built)

    found = [await complete(it.gateway, CALLER, request(), request_id=f"req_{n}") for n in (1, 2)]

    assert [("a/sol", 1), ("b/luna", 1)] == [(one.deployment, one.attempts) for one in found]


async def test_nothing_is_left_open(bench: Make) -> None:
    """After answers, failures, streams and refusals no hold remains, whatever came of them."""
    it = bench(registry("a/sol", "b/luna"))
    name = await budget(it, "1")
    it.provider.script("a/sol", Failed(FailureKind.TIMEOUT, "no"), Failed(FailureKind.INVALID_REQUEST, "bad"))
    for number in range(4):
        await complete(it.gateway, CALLER, request(max_output_tokens=10), request_id=f"req_{number}")
    stream: AnswerStream = await open_stream(it.gateway, CALLER, request(stream=True), request_id="req_s")
    async for _ in stream:
        pass

    await it.gateway.ledger.aclose()

    balance = await it.gateway.ledger.balance(name, TOTAL, USD)
    assert balance.held == 0
    assert balance.spent == sum(record.cost or 0 for record in it.written)


async def test_a_store_that_is_down_refuses_hard_budgets_and_serves_the_rest(
    bench: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fault 23: without the ledger nothing is promised; a caller without a hard budget is served all the same."""
    it = bench(registry("a/sol"))
    await complete(it.gateway, CALLER, request(), request_id="req_1")
    await budget(it, "1", scope={"kind": "project", "name": "rich"})

    async def down(*_: object, **__: object) -> list[str]:
        message = "The store did not answer."
        raise StorageUnavailableError(message)

    table = it.gateway.ledger._table  # the store is broken under the feet of the ledger
    monkeypatch.setattr(table, "transact", down)

    served = await complete(it.gateway, CALLER, request(), request_id="req_2")
    with pytest.raises(StorageUnavailableError):
        await complete(it.gateway, replace(CALLER, project="rich"), request(), request_id="req_3")

    assert served.deployment == "a/sol"
    assert len(it.provider.asked) == 2
    monkeypatch.undo()


async def test_a_callers_own_limit_counts_the_most_a_timeout_may_have_cost(bench: Make) -> None:
    """`budget_limit` covers one attempt of unknown outcome: there is no second one, whatever little was seen going in."""
    it = bench(registry("a/sol", "b/luna"))
    it.provider.script("a/sol", Failed(FailureKind.TIMEOUT, "no"))

    with pytest.raises(InvalidRequestError) as refused:
        await complete(it.gateway, CALLER, request(max_output_tokens=100, budget_limit=300_000), request_id="req_1")

    assert "budget_limit" == refused.value.param
    assert 1 == len(it.provider.asked)

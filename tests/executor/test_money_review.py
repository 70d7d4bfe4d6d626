"""Money and places that are held for a call come back whichever way the call is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest

from shared.core.chat import Chunk, Usage
from shared.core.errors import BudgetExceededError
from shared.core.failures import Failed, FailureKind
from shared.core.registry import Price, ProviderKind, Rates, Registry
from shared.executor import PROBE_INPUT_BOUND, complete, open_stream, probe
from shared.ports import Call
from tests.executor.conftest import CALLER, Bench
from tests.fakes import ScriptedProvider, answer, chunks, registry, request

Make = Callable[[Registry], Bench]

USD = 10**9


async def budget(bench: Bench, limit: str) -> str:
    """Make a budget over everything; return its id."""
    made = await bench.gateway.budgets.create(
        {"name": "all", "scope": {"kind": "organization"}, "limit_usd": limit, "cycle": "total"}
    )
    return made.budget.id


async def balance(bench: Bench, name: str) -> tuple[int, int]:
    """Return what is spent and what is still held by calls, everything being written."""
    await bench.gateway.ledger.flush()
    held = sum(session.holds for session in bench.gateway.ledger._sessions())  # nothing else tells what never ends
    return (await bench.gateway.ledger.balance(name, "total", USD)).spent, held


class SlowToClose(ScriptedProvider):
    """A provider whose streams take for ever to be closed."""

    async def stream(self, call: Call) -> AsyncGenerator[list[Chunk | Failed], None]:
        """Answer streamed; then never let go."""
        try:
            async for batch in super().stream(call):
                yield batch
        finally:
            await asyncio.Event().wait()


def slow_to_close(bench: Bench) -> tuple[Bench, SlowToClose]:
    """Return the same bench with such a provider."""
    provider = SlowToClose()
    gateway = replace(bench.gateway, providers=dict.fromkeys(ProviderKind, provider))
    return replace(bench, gateway=gateway), provider


async def test_a_client_that_leaves_while_a_failed_stream_is_closed_leaves_nothing_held(bench: Make) -> None:
    """The failed attempt is settled before anything is waited for."""
    it, provider = slow_to_close(bench(registry("a/sol")))
    name = await budget(it, "1")
    provider.script("a/sol", [Failed(FailureKind.TIMEOUT, "slow")])
    task = asyncio.ensure_future(
        open_stream(it.gateway, CALLER, request(stream=True, max_output_tokens=100), request_id="req_1")
    )
    await asyncio.sleep(0.1)

    task.cancel()
    await asyncio.wait([task])

    assert (240_000, 0) == await balance(it, name)
    assert "timeout" == it.record.attempts[0].outcome


async def test_a_stream_whose_closing_is_cut_short_leaves_nothing_held(bench: Make) -> None:
    """Whoever closes it may be cancelled too: what went by is written down all the same."""
    it, provider = slow_to_close(bench(registry("a/sol")))
    name = await budget(it, "1")
    provider.script("a/sol", chunks("Hello"))
    stream = await open_stream(it.gateway, CALLER, request(stream=True, max_output_tokens=100), request_id="req_1")
    task = asyncio.ensure_future(stream.aclose())
    await asyncio.sleep(0.05)

    task.cancel()
    await asyncio.wait([task])

    assert (240_000, 0) == await balance(it, name)
    assert "cancelled" == it.record.outcome


async def test_a_service_tier_without_a_price_is_no_bounded_cost(bench: Make) -> None:
    """What asks for a dearer tier is refused by a hard budget where nobody knows what that tier costs."""
    it = bench(registry("a/sol"))
    name = await budget(it, "1")
    with pytest.raises(BudgetExceededError, match="price"):
        await complete(it.gateway, CALLER, request(service_tier="priority", max_output_tokens=100), request_id="req_1")
    assert ([], (0, 0)) == (it.provider.asked, await balance(it, name))

    priced = Price(date(2026, 1, 1), Rates(Decimal(1), Decimal(2)), service_tiers={"priority": Rates(Decimal(2), Decimal(4))})
    it = bench(registry("a/sol", prices={"a/sol": (priced,)}))
    it.provider.script("a/sol", answer(usage=Usage(10, 5, service_tier="priority")))
    found = await complete(it.gateway, CALLER, request(service_tier="priority", max_output_tokens=100), request_id="req_2")
    assert 10 * 2000 + 5 * 4000 == found.cost


@pytest.mark.parametrize("field", ["speed", "models", "search_parameters"])
async def test_fields_that_change_the_price_are_refused_by_hard_budgets(bench: Make, field: str) -> None:
    """A vendor's own field passes through, but not where the cost must be bounded."""
    it = bench(registry("a/sol"))
    asked = request(parameters=frozenset({field}), max_output_tokens=100)
    await complete(it.gateway, CALLER, asked, request_id="req_1")

    await budget(it, "1")
    with pytest.raises(BudgetExceededError, match=field):
        await complete(it.gateway, CALLER, asked, request_id="req_2")


async def test_a_probe_is_held_at_its_bound(bench: Make) -> None:
    """What a probe may cost at most counts its input too."""
    it = bench(registry("a/sol"))
    await budget(it, "1")
    await complete(it.gateway, CALLER, request(max_output_tokens=100), request_id="req_1")
    it.clock.seconds += 700
    it.provider.script("a/sol", Failed(FailureKind.TIMEOUT, "slow"))

    await probe(it.gateway, request_id=lambda: "req_probe")

    assert PROBE_INPUT_BOUND * 1000 + 16 * 2000 == it.written[-1].cost

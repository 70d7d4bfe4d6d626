"""A store that goes away and comes back, and a host that dies, over Table Storage's emulator."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from local.simulator import Simulator, start_simulator
from shared.core.records import LOST
from shared.gateway import Gateway
from shared.ledger import Ledger, LedgerPolicy
from shared.recovery import recover
from shared.usage import UsageQuery
from tests.azurite.process import Azurite
from tests.e2e.test_azurite import HELLO, User, at_host, beside, made, user
from tests.faults.money import books

FROZEN_SECONDS = 6.0
ANSWER_SECONDS = 30.0
HASTY = LedgerPolicy(ttl=0.5, skew=0.0)
BUDGET = {
    "name": "b",
    "id": "b",
    "scope": {"kind": "project", "name": "paid"},
    "limit_usd": "1",
    "cycle": "total",
    "hard": True,
}


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    """Return the providers."""
    async with await start_simulator() as running:
        yield running


async def recovered(gateway: Gateway) -> int:
    """Look for dead sessions until some were found; return how many requests a second look finds."""
    async with asyncio.timeout(20):
        while not await recover(gateway):
            await asyncio.sleep(0.2)
    return await recover(gateway)


async def test_a_killed_hosts_calls_are_settled_by_another(tmp_path: Path, azurite: Azurite, simulator: Simulator) -> None:
    """Kill -9 with calls in flight: each is charged its bound once, what was answered is not charged again, all is reported."""
    azurite.clear()
    async with at_host(tmp_path, azurite, simulator) as host:
        await made(host, "/v1/budgets", BUDGET)
        paid = await user(host, "paid")
        assert 200 == await paid.chat()
        simulator.script({"faults": [{"kind": "hang_before_headers", "times": 3}]})
        calls = [asyncio.create_task(paid.chat()) for _ in range(3)]
        async with asyncio.timeout(20):
            while len(simulator.log()) < 4:  # the one before and three
                await asyncio.sleep(0.05)
        await host.stop(signal.SIGKILL)
        assert all(isinstance(lost, aiohttp.ClientError) for lost in await asyncio.gather(*calls, return_exceptions=True))

    async with beside(azurite, simulator) as gateway:
        ledger = Ledger(gateway.tables, gateway.clock, "hasty", policy=HASTY, usage_until=gateway.usage.written_until)
        assert 0 == await recovered(replace(gateway, ledger=ledger))
        found = await books(gateway.tables, "b")
        assert 4 == len(found.attempts)
        assert (found.spent, found.held) == (sum(found.charges), 0)
        outcomes = []
        for attempt in found.attempts:
            stored = await gateway.usage.find(attempt.request_id)
            assert stored is not None
            outcomes.append(stored.record.outcome)
        assert ["succeeded", LOST, LOST, LOST] == sorted(outcomes, key=lambda outcome: outcome == LOST)
        await ledger.aclose()


async def _ask(who: User) -> tuple[int, int]:
    """Return the status, which must come in good time, and what it cost in nano-USD."""
    async with asyncio.timeout(ANSWER_SECONDS):
        status, _, headers = await who.ask("POST", "/v1/chat/completions", HELLO)
    assert status in {200, 503}
    return status, round(float(headers.get("x-switchyard-cost-usd", 0)) * 1e9)


async def _well(who: User) -> int:
    """Ask until it is answered; return the cost."""
    async with asyncio.timeout(ANSWER_SECONDS):
        while True:
            status, cost = await _ask(who)
            if status == 200:
                return cost
            await asyncio.sleep(0.2)


async def test_a_store_that_restarts_and_freezes(tmp_path: Path, simulator: Simulator) -> None:
    """Who has no hard budget is served all the while; who has one is refused with 503, never let through; then all adds up."""
    folder = tmp_path / "store"
    folder.mkdir()
    with Azurite(folder) as own:
        async with at_host(tmp_path, own, simulator) as host:
            await made(host, "/v1/budgets", BUDGET)
            paid, free = await user(host, "paid"), await user(host, "free")
            assert (200, 200) == (await paid.chat(), await free.chat())
            own.stop()
            assert [200, 200] == [(await _ask(free))[0] for _ in range(2)]
            assert 503 == (await _ask(paid))[0]
            own.start()
            await _well(paid)

            own.freeze()
            asked = [asyncio.create_task(_ask(who)) for who in (free, free, paid, paid)]
            await asyncio.sleep(FROZEN_SECONDS)
            own.thaw()
            assert [200, 200] == [status for status, _ in await asyncio.gather(*asked)][:2]
            await _well(paid)
            await _well(free)
            answered = simulator.log()
            assert 0 == await host.stop()

        async with beside(own, simulator) as gateway:
            found = await books(gateway.tables, "b")
            assert (found.spent, found.held) == (sum(found.charges), 0)
            report = await gateway.usage.report(UsageQuery(0, time.time() + 1, group_by=("project",)))
            used = {row.group["project"]: row for row in report}
            assert found.spent == used["paid"].cost
            assert len(answered) == used["paid"].attempts + used["free"].attempts

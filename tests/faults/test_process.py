"""A real process that dies, freezes or has the wrong time in the middle of a call (29, 31, 32).

The process under test is a host as users start it. The one that recovers runs here, over the same file, with a TTL of half a
second instead of thirty: when a session counts as dead is decided by whoever recovers, so the dead and the frozen are real.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest

from functions import gateway as holder
from local.simulator import Simulator, start_simulator
from shared import bootstrap
from shared.adapters.clock import SystemClock
from shared.bootstrap import open_gateway
from shared.core.errors import StorageUnavailableError
from shared.core.records import LOST
from shared.gateway import Gateway
from shared.ledger import IntentState, Ledger, LedgerPolicy
from shared.recovery import recover
from tests.e2e.harness import Host, hosting
from tests.faults.money import CHAT, INPUT, OUTPUT, PAYING, Books, ask, books, budget, chat, finish, over, settled
from tests.functions.harness import CATALOG, SETTINGS, Edge

HASTY = LedgerPolicy(ttl=0.5, skew=0.0)
LONG = {"kind": "slow", "delay_ms": 1_500}


@asynccontextmanager
async def host(folder: Path, simulator: Simulator) -> AsyncIterator[Host]:
    """Run a host in a process of its own, whose providers are the simulator here."""
    async with hosting(folder, SWITCHYARD_CATALOG=CATALOG, SWITCHYARD_UPSTREAM=simulator.url) as found:
        made = {"name": "b", "scope": {"kind": "project", "name": PAYING}, "limit_usd": "1", "cycle": "total", "id": "b"}
        assert (await found.call("POST", "/v1/budgets", made))[0] == 201
        yield found


@asynccontextmanager
async def recoverer(folder: Path, simulator: Simulator) -> AsyncIterator[Gateway]:
    """Return another instance over the host's store, which takes sessions over after half a second."""
    storage = f"sqlite:{folder / '.switchyard' / 'state.db'}"
    opened = await open_gateway(replace(SETTINGS, storage=storage, upstream=simulator.url), environment={})
    ledger = Ledger(opened.tables, opened.clock, "hasty", policy=HASTY, usage_until=opened.usage.written_until)
    hasty = replace(opened, ledger=ledger)
    yield hasty
    await opened.ledger.aclose()
    await hasty.aclose()


async def recovered(gateway: Gateway) -> int:
    """Look for dead sessions until some were found; return how many."""
    async with asyncio.timeout(20):
        while True:
            try:
                found = await recover(gateway)
            except StorageUnavailableError:  # a file that two processes write to may be busy
                found = 0
            if found:
                return found
            await asyncio.sleep(0.2)


async def key_of(running: Host) -> dict[str, str]:
    """Return the headers of a key of the paying project."""
    _, made = await running.call("POST", "/v1/keys", {"name": "k", "project": PAYING})
    return {"authorization": f"Bearer {made['key']}"}


async def post(running: Host, headers: dict[str, str]) -> tuple[int, int]:
    """Ask; return the status, and what it cost in nano-USD."""
    async with running.session.post(running.url + CHAT, json=chat(), headers=headers) as response:
        await response.read()
        return response.status, round(float(response.headers.get("x-switchyard-cost-usd", 0)) * 1e9)


async def asked(simulator: Simulator, number: int = 1) -> None:
    """Wait until the provider has been asked so often."""
    async with asyncio.timeout(20):
        while len(simulator.log()) < number:
            await asyncio.sleep(0.01)


async def only(gateway: Gateway) -> Books:
    """Return the books of the budget, of which one attempt is known."""
    found = await books(gateway.tables, "b")
    assert len(found.attempts) == 1
    return found


async def test_29_a_kill_in_mid_call_is_charged_once_at_the_estimate(tmp_path: Path) -> None:
    """Kill -9: another instance charges the call's bound and writes its usage down; a second look changes nothing."""
    async with await start_simulator() as simulator:
        simulator.script({"faults": ["hang_before_headers"]})
        async with host(tmp_path, simulator) as running:
            call = asyncio.create_task(post(running, await key_of(running)))
            await asked(simulator)
            await running.stop(signal.SIGKILL)
            with pytest.raises(aiohttp.ClientError):
                await call
        async with recoverer(tmp_path, simulator) as gateway:
            before = await only(gateway)
            assert ({IntentState.PENDING}, 0) == (before.states, before.spent)
            assert before.held >= before.attempts[0].estimate
            assert 1 == await recovered(gateway)
            await asyncio.sleep(2 * HASTY.ttl)
            assert 0 == await recover(gateway)

            after = await only(gateway)
            estimate = before.attempts[0].estimate
            assert ({IntentState.CHARGED}, estimate, 0) == (after.states, after.spent, after.held)
            assert 50 * OUTPUT < estimate < 50 * OUTPUT + 2_000 * INPUT
            stored = await gateway.usage.find(after.attempts[0].request_id)
            assert stored is not None
            record = stored.record
            assert (True, LOST, estimate, PAYING) == (record.recovered, record.outcome, record.cost, record.project)


async def test_29_the_next_host_counts_what_the_killed_one_held(tmp_path: Path) -> None:
    """Before recovery has come by, what was held is still held: the next process can't spend it again."""
    async with await start_simulator() as simulator:
        simulator.script({"faults": ["hang_before_headers"]})
        async with host(tmp_path, simulator) as running:
            headers = await key_of(running)
            call = asyncio.create_task(post(running, headers))
            await asked(simulator)
            await running.stop(signal.SIGKILL)
            await asyncio.gather(call, return_exceptions=True)
        async with hosting(tmp_path, SWITCHYARD_CATALOG=CATALOG, SWITCHYARD_UPSTREAM=simulator.url) as running:
            _, shown = await running.call("GET", "/v1/budgets/b")
            assert shown["held_nano_usd"] > 50 * OUTPUT
            await running.call("PATCH", "/v1/budgets/b", {"limit_usd": f"{shown['held_nano_usd']:d}e-9"})
            assert 429 == (await post(running, headers))[0]
            assert 1 == len(simulator.log())


async def test_31_a_frozen_process_is_fenced_and_corrected(tmp_path: Path) -> None:
    """SIGSTOP in mid-call: charged at the bound meanwhile; once it wakes, its client is answered and the charge put right."""
    async with await start_simulator() as simulator:
        simulator.script({"latency_ms": 1_000})
        async with host(tmp_path, simulator) as running:
            headers = await key_of(running)
            call = asyncio.create_task(post(running, headers))
            await asked(simulator)
            os.kill(running.process.pid, signal.SIGSTOP)
            try:
                async with recoverer(tmp_path, simulator) as gateway:
                    assert 1 == await recovered(gateway)
                    fenced = await only(gateway)
            finally:
                os.kill(running.process.pid, signal.SIGCONT)
            assert {IntentState.CHARGED} == fenced.states
            assert fenced.spent == fenced.attempts[0].estimate

            answers = [await call, await post(running, headers)]
            assert 0 == await running.stop()
        async with recoverer(tmp_path, simulator) as gateway:
            after = await books(gateway.tables, "b")
            usage = [await gateway.usage.find(row.request_id) for row in after.attempts]

            assert [200, 200] == [status for status, _ in answers]
            assert (sum(cost for _, cost in answers), 0) == (after.spent, after.held)
            assert answers[0][1] < fenced.spent
            assert sorted(cost for _, cost in answers) == sorted(found.record.cost or 0 for found in usage if found is not None)


# ---- 32 ------------------------------------------------------------------------------------------------------------------


class Off(SystemClock):
    """A clock that is five minutes fast."""

    ahead = 300.0

    def __init__(self) -> None:
        super().__init__()
        self.now = lambda: time.time() + self.ahead


class Behind(Off):
    """A clock that is five minutes slow."""

    ahead = -300.0


@asynccontextmanager
async def also(edge: Edge, clock: type[SystemClock], monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Gateway]:
    """Return another instance over the edge's store, whose clock is wrong."""
    with monkeypatch.context() as patch:
        patch.setattr(bootstrap, "SystemClock", clock)
        opened = await open_gateway(replace(edge.gateway.settings, storage=edge.gateway.settings.storage), environment={})
    assert abs(opened.clock.now() - time.time()) > 299
    yield opened
    await opened.aclose()


@pytest.mark.parametrize("clock", [Off, Behind], ids=["fast", "slow"])
async def test_32_a_clock_five_minutes_off_overspends_nothing(
    tmp_path: Path, clock: type[SystemClock], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two instances spend one budget to its end, one with a wrong clock, each recovering all the while: never above it."""
    async with over(f"sqlite:{tmp_path / 'state.db'}") as edge, also(edge, clock, monkeypatch) as other:
        limit = 12 * 110_000
        name = await budget(edge, f"{limit}e-9")
        key = await edge.key(PAYING)
        statuses = []
        for number in range(24):
            holder.use(other if number % 2 else edge.gateway)
            statuses.append((await ask(edge, key)).status)
            if number % 6 == 0:
                await recover(other)
                await recover(edge.gateway)
        await finish(other)
        holder.use(edge.gateway)
        found = await settled(edge, name)

        assert {200, 429} == set(statuses)
        assert statuses.count(200) == len(edge.sent()) == sum(row.state is IntentState.DONE for row in found.attempts)
        assert found.spent <= limit
        assert {IntentState.DONE, IntentState.VOID} >= found.states

"""What a process that died in mid-call leaves behind is settled, and its usage written down, by another one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

from shared.core.failover import Attempt
from shared.core.registry import Registry
from shared.execution import Execution, Sent
from shared.recovery import LOST, records_of, recover
from tests.executor.conftest import CALLER, Bench
from tests.executor.test_spending import TOTAL, USD, budget, spent
from tests.fakes import FakeClock, registry, request

Make = Callable[[Registry], Bench]
REQUEST = "req_01KAQ0000000000000000000A1"


async def die_in_mid_call(it: Bench) -> None:
    """Hold an attempt's money as if it were being sent, and stop the process's ledger for good."""
    execution = Execution(it.gateway, CALLER, request(max_output_tokens=100), REQUEST)
    route = await execution.plan()
    assert isinstance(await execution._admitted(Attempt(route.candidates[0], 1, 60.0)), Sent)
    ledger = it.gateway.ledger
    for session in ledger._sessions():
        await session.stop()
    if ledger._task is not None:
        ledger._task.cancel()
        await asyncio.gather(ledger._task, return_exceptions=True)


async def test_a_call_that_died_is_charged_and_written_down_once(bench: Make) -> None:
    """The budget is charged the bound, the usage has the attempt with that amount, marked; doing it again changes nothing."""
    dead, alive = bench(registry("a/sol")), bench(registry("a/sol"))
    name = await budget(dead, "1")
    await die_in_mid_call(dead)

    await recover(alive.gateway)
    cast("FakeClock", alive.gateway.ledger._clock).seconds += 400
    assert 1 == await recover(alive.gateway)
    assert 0 == await recover(alive.gateway)

    assert 40 * 1000 + 100 * 2000 == await spent(alive, name)
    assert 0 == (await alive.gateway.ledger.balance(name, TOTAL, USD)).held


async def test_the_record_says_what_is_known(bench: Make) -> None:
    """Who asked for what, of whom; how it ended nobody knows; the amount is not exact."""
    dead, alive = bench(registry("a/sol")), bench(registry("a/sol"))
    await budget(dead, "1")
    await die_in_mid_call(dead)
    cast("FakeClock", alive.gateway.ledger._clock).seconds += 400
    await alive.gateway.ledger.recover()
    cast("FakeClock", alive.gateway.ledger._clock).seconds += 400

    (session,) = await alive.gateway.ledger.recover()
    (record,) = records_of(session.attempts)

    assert (REQUEST, "key_test", "shop", "sol", LOST, True) == (
        record.request_id,
        record.key_id,
        record.project,
        record.original_model,
        record.outcome,
        record.recovered,
    )
    (attempt,) = record.attempts
    assert ("a/sol", LOST, 240_000, False) == (attempt.deployment, attempt.outcome, attempt.cost, attempt.exact)

"""What a process that died in mid-call leaves behind is settled, and its usage written down, by another one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import pytest

from shared.core.chat import Usage
from shared.core.failover import Attempt
from shared.core.failures import Failed, FailureKind
from shared.core.records import LOST, SUCCEEDED
from shared.core.registry import Registry
from shared.execution import Execution, Sent
from shared.ledger import Hold, Ledger
from shared.recovery import records_of, recover
from shared.usage import UsageLog
from tests.executor.conftest import CALLER, Bench
from tests.executor.test_spending import TOTAL, USD, budget, spent
from tests.fakes import FakeClock, registry, request

Make = Callable[[Registry], Bench]
REQUEST = "req_01KAQ0000000000000000000A1"


async def die_in_mid_call(it: Bench) -> None:
    """Hold an attempt's money as if it were being sent, and die."""
    execution = Execution(it.gateway, CALLER, request(max_output_tokens=100), REQUEST)
    route = await execution.plan()
    assert isinstance(await execution._admitted(Attempt(route.candidates[0], 1, 60.0)), Sent)
    await die(it)


async def die(it: Bench) -> None:
    """Stop the process's ledger for good."""
    await stop(it.gateway.ledger)


async def stop(ledger: Ledger) -> None:
    """Stop a process's ledger for good, as a kill would."""
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


class Speechless(Ledger):
    """The ledger of a process that dies before it has written how its calls ended."""

    def settle(self, hold: Hold, charged: int, *, facts: Mapping[str, Any] | None = None) -> None:
        """Say nothing."""


@pytest.mark.parametrize("sent", [True, False])
async def test_what_the_dead_wrote_as_usage_is_what_is_charged(bench: Make, *, sent: bool) -> None:
    """Killed between the two writes, usage and settlement: the ledger follows the usage, once, and they are one sum."""
    dead, alive = bench(registry("a/sol")), bench(registry("a/sol"))
    name = await budget(dead, "1")
    execution = Execution(dead.gateway, CALLER, request(max_output_tokens=100), REQUEST)
    route = await execution.plan()
    attempt = await execution._admitted(Attempt(route.candidates[0], 1, 60.0))
    assert isinstance(attempt, Sent)
    if sent:  # else its caller left just before
        execution.spending._gateway = replace(dead.gateway, ledger=Speechless(dead.gateway.tables, FakeClock(), "speechless"))
        execution._write(attempt, SUCCEEDED, Usage(10, 5))
    execution.close(SUCCEEDED if sent else "cancelled")
    await dead.gateway.usage.flush()
    await die(dead)

    await recover(alive.gateway)
    cast("FakeClock", alive.gateway.ledger._clock).seconds += 400
    assert 1 == await recover(alive.gateway)
    assert 0 == await recover(alive.gateway)

    stored = await alive.gateway.usage.find(REQUEST)
    assert stored is not None
    assert not stored.record.recovered
    assert (20_000 if sent else 0) == stored.record.cost == await spent(alive, name)
    assert 0 == (await alive.gateway.ledger.balance(name, TOTAL, USD)).held


async def test_attempts_in_two_sessions_make_one_record(bench: Make) -> None:
    """A request that began in one session and went on in the next is written down with both attempts, as it was charged."""
    dead, alive = bench(registry("a/sol", "b/luna")), bench(registry("a/sol", "b/luna"))
    name = await budget(dead, "1")
    execution = Execution(dead.gateway, CALLER, request(max_output_tokens=100), REQUEST)
    route = await execution.plan()
    first = await execution._admitted(Attempt(route.candidates[0], 1, 60.0))
    assert isinstance(first, Sent)
    execution._failed(first, Failed(FailureKind.TIMEOUT, "no"))
    ledger = dead.gateway.ledger
    if ledger._session is not None:  # on a slow machine the clock, which runs while the store works, has ended it already
        ledger._retire(ledger._session)
    assert isinstance(await execution._admitted(Attempt(route.candidates[1], 2, 60.0)), Sent)
    await asyncio.sleep(0.05)
    await stop(ledger)

    await recover(alive.gateway)
    cast("FakeClock", alive.gateway.ledger._clock).seconds += 400
    assert 2 == await recover(alive.gateway)

    found = await UsageLog(alive.gateway.tables, FakeClock()).find(REQUEST)
    assert found is not None
    assert [1, 2] == [attempt.number for attempt in found.attempts]
    assert 2 * 240_000 == found.record.cost == await spent(alive, name)

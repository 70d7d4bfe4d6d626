"""How things stand, as it is told: breakers at once, budgets and the queue now and then."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from shared.background import start
from shared.chains import Queue
from shared.core import semconv
from shared.core.budgets import Budget, Cycle, Scope, ScopeKind
from shared.core.failures import Failed, FailureKind
from shared.core.registry import Registry
from shared.core.semconv import Instrument
from shared.core.telemetry import Attribute
from shared.executor import ask
from shared.gauges import period_gauges, queue_gauges, tell, tell_breakers
from shared.ports import Tables
from tests.chains.inline import InlineEngine
from tests.chains.test_background import new
from tests.executor.conftest import CALLER, Bench
from tests.executor.test_spending import budget
from tests.fakes import RecordingTelemetry, registry, request

Make = Callable[[Registry], Bench]
USD = 1_000_000_000


def told(telemetry: RecordingTelemetry, instrument: Instrument, name: str) -> dict[Attribute, int | float]:
    """Return a gauge's values by one of its attributes."""
    return {dict(where)[name]: value for (gauge, where), value in telemetry.gauges.items() if gauge == instrument.name}


async def test_a_breaker_is_told_when_it_opens(bench: Make) -> None:
    """With the failure that opened it: no later request is needed for it to be told."""
    it, telemetry = bench(registry("a/sol", "b/luna")), RecordingTelemetry()
    it.gateway = replace(it.gateway, telemetry=telemetry)
    it.provider.script("a/sol", Failed(FailureKind.UNAUTHORIZED, "no", status=401))

    await ask(it.gateway, CALLER, request(), request_id="req_1")
    assert {"a/sol": 2} == told(telemetry, semconv.BREAKER, semconv.DEPLOYMENT)

    tell_breakers(it.gateway)
    assert {"a/sol": 2, "b/luna": 0} == told(telemetry, semconv.BREAKER, semconv.DEPLOYMENT)


async def test_budgets_and_the_queue_are_told(bench: Make) -> None:
    """In nano-USD: the limit, what is spent, what is held; how many chains there are."""
    it, telemetry = bench(registry("a/sol")), RecordingTelemetry()
    it.gateway = replace(it.gateway, telemetry=telemetry)
    name = await budget(it, "1")
    await ask(it.gateway, CALLER, request(max_output_tokens=100), request_id="req_1")
    await it.gateway.ledger.flush()
    engine = InlineEngine(it.gateway)
    engine.away = True
    await start(it.gateway, engine, CALLER, request(max_output_tokens=100), new())
    it.clock.seconds += 60

    await tell(it.gateway)

    assert {name: USD} == told(telemetry, semconv.BUDGET_LIMIT, semconv.BUDGET)
    assert {"total": USD} == told(telemetry, semconv.BUDGET_LIMIT, semconv.CYCLE)
    assert {name: 20_000} == told(telemetry, semconv.BUDGET_SPENT, semconv.BUDGET)
    assert {name: 0} == told(telemetry, semconv.BUDGET_HELD, semconv.BUDGET)
    assert {"queued": 1, "running": 0, "waiting": 0, "other": 0} == told(telemetry, semconv.QUEUE_DEPTH, semconv.QUEUE_STATE)
    assert 60 == telemetry.gauges[semconv.QUEUE_AGE.name, frozenset()]


def test_a_budget_with_days_of_its_own_tells_its_period() -> None:
    """Who reads telemetry has no time zones: in New York the month begins at five in the morning, or four, of UTC."""
    morning = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()
    ours = Budget("b", "b", Scope(ScopeKind.ORGANIZATION), USD, Cycle.MONTH, time_zone="America/New_York")

    bounds = {measured.instrument: datetime.fromtimestamp(measured.value, UTC) for measured in period_gauges(ours, morning)}
    wanted = {
        semconv.BUDGET_BEGAN: datetime(2026, 11, 1, 4, tzinfo=UTC),
        semconv.BUDGET_ENDS: datetime(2026, 12, 1, 5, tzinfo=UTC),
    }
    assert wanted == bounds
    assert [] == period_gauges(replace(ours, time_zone="UTC"), morning)
    assert [] == period_gauges(replace(ours, cycle=Cycle.TOTAL), morning)


async def test_nothing_is_read_when_nothing_is_told(bench: Make) -> None:
    """The store may even be away."""
    it = bench(registry("a/sol"))
    away: Tables = None  # type: ignore[assignment]  # nobody asks it for anything
    gateway = replace(it.gateway, budgets=None, chains=None, tables=away)  # type: ignore[arg-type]  # as above

    await tell(gateway)
    tell_breakers(gateway)
    assert not gateway.tells


def test_chains_that_were_not_looked_at_are_told_too() -> None:
    """Beyond so many only their number is known."""
    depths = {one.attributes.get(semconv.QUEUE_STATE): one.value for one in queue_gauges(Queue(700, 100, 300, 100), 0.0)}

    assert {"queued": 100, "running": 300, "waiting": 100, "other": 200, None: 0.0} == depths

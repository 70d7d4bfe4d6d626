"""A gateway over real stores in memory, a scripted provider and a clock moved by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

import pytest

from shared.adapters.tables import open_tables
from shared.alerts import Alerts
from shared.batches import Batches
from shared.budgets import Budgets
from shared.chains import Chains
from shared.core.records import Caller, RequestRecord
from shared.core.registry import ProviderKind, Registry
from shared.engines import Engines
from shared.feedback import Feedback
from shared.files import Files
from shared.gateway import Gateway
from shared.health_book import HealthBook
from shared.idempotency import Idempotency
from shared.keys import Keys
from shared.ledger import Ledger
from shared.limits import RateLimits
from shared.metrics import Metrics
from shared.projects import Projects
from shared.responses import Responses
from shared.settings import Settings
from shared.shared_health import SharedHealth
from shared.traffic import Traffic
from shared.usage import UsageLog
from tests.fakes import FakeClock, ScriptedProvider

CALLER = Caller(key_id="key_test", project="shop")


@dataclass
class Bench:
    """What a test of the executor needs."""

    gateway: Gateway
    provider: ScriptedProvider
    clock: FakeClock
    written: list[RequestRecord]

    @property
    def record(self) -> RequestRecord:
        """The one record that was written."""
        (record,) = self.written
        return record


@pytest.fixture
async def bench() -> AsyncIterator[Callable[[Registry], Bench]]:
    """Return a maker of gateways; closes what it made."""
    made: list[Gateway] = []
    tables = open_tables("memory:")

    def make(registry: Registry) -> Bench:
        clock, provider = FakeClock(), ScriptedProvider()
        theirs = FakeClock()  # what the stores' background tasks sleep must not move the executor's time
        usage, metrics = UsageLog(tables, theirs), Metrics(tables, theirs, "test")
        written: list[RequestRecord] = []

        def write(record: RequestRecord) -> None:
            written.append(record)
            usage.record(record)

        kept = {"aclose": usage.aclose, "flush": usage.flush, "find": usage.find, "insert_recovered": usage.insert_recovered}
        log = cast("UsageLog", SimpleNamespace(record=write, **kept))
        health, budgets = HealthBook(), Budgets(tables, clock)
        ledger = Ledger(tables, theirs, "test", usage_until=usage.written_until)
        gateway = Gateway(
            settings=Settings(),
            catalog=SimpleNamespace(current=registry),  # type: ignore[arg-type]  # all the executor asks of it
            providers=dict.fromkeys(ProviderKind, provider),
            transport=None,  # type: ignore[arg-type]  # the scripted provider needs none
            tokens=None,  # type: ignore[arg-type]  # as above
            tables=tables,
            usage=log,
            metrics=metrics,
            keys=Keys(tables, clock, None),
            feedback=Feedback(tables, usage, clock),
            health=health,
            shared_health=SharedHealth(tables, theirs, health, "test"),
            budgets=budgets,
            ledger=ledger,
            limits=RateLimits(tables, theirs, "test"),
            projects=Projects(tables, clock),
            idempotency=Idempotency(tables, clock),
            alerts=Alerts(tables, theirs, budgets, ledger.balance),
            chains=Chains(tables, clock),
            engines=Engines(tables, clock),
            responses=Responses(tables, clock),
            files=Files(tables, clock),
            batches=Batches(tables, clock),
            traffic=Traffic(),
            clock=clock,
        )
        made.append(gateway)
        return Bench(gateway, provider, clock, written)

    yield make
    for gateway in made:
        for store in (gateway.shared_health, gateway.budgets, gateway.projects, gateway.usage, gateway.ledger, gateway.limits):
            await store.aclose()
        await gateway.metrics.aclose()
    await tables.aclose()

"""``GET /metrics``: what Prometheus scrapes. Counted over all instances, from the store: whichever of them is asked, the same.

Counters are of the current UTC day and begin anew at midnight, which Prometheus takes for the restart of a process: use
``rate`` and ``increase`` on them. They count whole minutes that have been over for a while, so that no instance knows less than
another said before. Breakers are those of the instance that answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Final

from starlette.responses import Response

from functions.endpoints import Endpoint, Parameter, blueprint
from functions.http import Call, endpoint
from functions.rendering import NO_STORE, text_response
from functions.scopes import project_of
from shared.core import semconv
from shared.core.chat import AUTO
from shared.core.exposition import Family, Kind, Number, render
from shared.core.records import SUCCEEDED
from shared.core.registry import Registry
from shared.core.sketch import Sketch
from shared.core.telemetry import Measurement
from shared.core.telling import UNKNOWN
from shared.gauges import balances, breakers, budget_gauges, queue_gauges
from shared.metrics import Cell, DayTotals

OPENMETRICS: Final = "application/openmetrics-text"
BOUNDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Seconds."""
NANO: Final = Decimal("1e-9")
_MILLISECONDS: Final = 1000
_TODAY: Final = "of this UTC day"

GAUGES: Final[Mapping[str, tuple[str, str]]] = {
    semconv.BREAKER.name: (
        "switchyard_breaker_state",
        "A deployment's circuit breaker at this instance: 0 closed, 1 half open, 2 open.",
    ),
    semconv.BUDGET_LIMIT.name: ("switchyard_budget_limit_usd", "What a budget allows in its period."),
    semconv.BUDGET_SPENT.name: ("switchyard_budget_spent_usd", "What has been spent in a budget's period."),
    semconv.BUDGET_HELD.name: ("switchyard_budget_held_usd", "What is held for calls in flight."),
    semconv.QUEUE_DEPTH.name: ("switchyard_queue_chains", semconv.QUEUE_DEPTH.description),
    semconv.QUEUE_AGE.name: ("switchyard_queue_age_seconds", semconv.QUEUE_AGE.description),
}
LABELS: Final[Mapping[str, str]] = {
    semconv.DEPLOYMENT: "deployment",
    semconv.REQUEST_MODEL: "model",
    semconv.PROVIDER: "provider",
    semconv.REGION: "region",
    semconv.BUDGET: "budget",
    semconv.CYCLE: "cycle",
    semconv.PROJECT: "project",
    semconv.QUEUE_STATE: "state",
}


async def get_prometheus(call: Call) -> Response:
    """Show counters, latencies, breakers, budgets and the queue as Prometheus reads them."""
    gateway, project = call.gateway, project_of(call)
    totals = await gateway.metrics.today()
    visible = None if call.caller.admin else {stored.budget.id for stored in await gateway.budgets.covering(call.caller)}
    measured = breakers(gateway)
    for budget, balance in await balances(gateway):
        if visible is None or budget.id in visible:
            measured += budget_gauges(budget, balance)
    measured += queue_gauges(await gateway.chains.queue(), gateway.clock.now())
    openmetrics = OPENMETRICS in call.accept
    text = render([*_counted(totals, gateway.catalog.current, project), *_gauges(measured)], openmetrics=openmetrics)
    kind = f"{OPENMETRICS}; version=1.0.0" if openmetrics else "text/plain; version=0.0.4"
    return text_response(text, media_type=kind, headers=[NO_STORE])


# ---- what was counted ------------------------------------------------------------------------------------------------


class Counted:
    """The families of what is counted, empty."""

    def __init__(self) -> None:
        self.requests = _counter("switchyard_requests", f"Requests that have ended, by outcome, {_TODAY}.")
        self.attempts = _counter("switchyard_attempts", f"Calls to deployments {_TODAY}.")
        self.errors = _counter("switchyard_attempt_errors", f"Calls to deployments that failed, by kind, {_TODAY}.")
        self.fallbacks = _counter("switchyard_fallbacks", f"Calls made because another deployment had failed, {_TODAY}.")
        self.tokens = _counter("switchyard_tokens", f"Tokens by type {_TODAY}.")
        self.cost = _counter("switchyard_cost_usd", f"What calls cost in US dollars {_TODAY}, as far as it is known.")
        self.unknown = _counter("switchyard_cost_unknown_attempts", f"Calls whose cost is not known, {_TODAY}.")
        durations = f"How long requests that succeeded took, {_TODAY}, within 1%."
        self.durations = Family("switchyard_request_duration_seconds", Kind.HISTOGRAM, durations)
        firsts = f"How long streams took to their first content, {_TODAY}, within 1%."
        self.firsts = Family("switchyard_time_to_first_content_seconds", Kind.HISTOGRAM, firsts)

    def add(self, where: dict[str, str], cell: Cell) -> None:
        """Add what was counted of a model and a project."""
        counts = cell.counts
        outcomes = {SUCCEEDED: counts["requests"] - cell.errors.total(), **dict(sorted(cell.errors.items()))}
        self._by(self.requests, where, "outcome", outcomes)
        self._by(self.errors, where, "error", dict(sorted(cell.attempt_errors.items())))
        self._by(self.tokens, where, "type", {"input": counts["input_tokens"], "output": counts["output_tokens"]})
        self.attempts.add(where, counts["attempts"])
        self.fallbacks.add(where, counts["fallbacks"])
        self.cost.add(where, counts["cost"] * NANO)
        self.unknown.add(where, counts["cost_unknown"])
        _observe(self.durations, where, cell.latency)
        _observe(self.firsts, where, cell.first_content)

    @staticmethod
    def _by(family: Family, where: dict[str, str], label: str, values: Mapping[str, Number]) -> None:
        for name, value in values.items():
            family.add({**where, label: name}, value)


def _counter(name: str, described: str) -> Family:
    return Family(name, Kind.COUNTER, described)


def _observe(family: Family, where: dict[str, str], sketch: Sketch) -> None:
    if sketch.count:
        counts = sketch.counts([bound * _MILLISECONDS for bound in BOUNDS])
        family.observe(where, BOUNDS, counts, count=sketch.count, total=sketch.total / _MILLISECONDS)


def _counted(totals: DayTotals, registry: Registry, project: str | None) -> Iterable[Family]:
    """Return the counters of what the caller may see. Names of models that callers made up are one series."""
    cells: dict[tuple[str, str], Cell] = {}
    for (model, of), cell in totals.cells.items():
        if project in {None, of}:
            named = model == AUTO or model in registry.models or model in registry.aliases
            cells.setdefault((model if named else UNKNOWN, of), Cell()).merge(cell)
    counted = Counted()
    for (model, of), cell in sorted(cells.items()):
        counted.add({"model": model, "project": of}, cell)
    until = Family("switchyard_counted_until_timestamp_seconds", Kind.GAUGE, "The moment until which the counters count.")
    until.add({}, totals.until)
    return (*vars(counted).values(), until)


# ---- how things stand ------------------------------------------------------------------------------------------------


def _gauges(measured: Iterable[Measurement]) -> Iterator[Family]:
    families: dict[str, Family] = {}
    for one in measured:
        name, described = GAUGES[one.instrument.name]
        family = families.setdefault(name, Family(name, Kind.GAUGE, described))
        labels = {LABELS[attribute]: str(value) for attribute, value in one.attributes.items()}
        family.add(labels, int(one.value) * NANO if one.instrument.unit == semconv.BUDGET_LIMIT.unit else one.value)
    yield from families.values()


ENDPOINTS: Final = (
    Endpoint(
        name="get_prometheus",
        method="GET",
        path="/metrics",
        handler=get_prometheus,
        summary="The same for Prometheus",
        tag="Accounting",
        parameters=(Parameter("project", "Only this project. Keys other than the administrator's see their own only."),),
        answers="Counters of the UTC day over all instances, breakers of this one, budgets and the queue; as OpenMetrics for "
        "those who accept it.",
        media_types=("text/plain", OPENMETRICS),
    ),
)

BLUEPRINT: Final = blueprint(ENDPOINTS, endpoint)

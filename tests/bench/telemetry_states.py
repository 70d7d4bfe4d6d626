"""What queries about budgets, breakers, queues and alerts must give; see `tests.bench.telemetry_checks`.

Web tests and the workspace's own bill are not told by the gateway: for those two tables there are rows made up here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from shared.core import semconv
from shared.core.records import SUCCEEDED
from tests.bench.telemetry_checks import CHECKS as OTHERS
from tests.bench.telemetry_checks import NANO, Ask, Finding, Near, attempts, binned, ending, health_now, nano, number, seconds
from tests.bench.telemetry_scene import Books
from tests.kusto.query import table
from tests.kusto.scope import Table

OPEN: Final = 2
MINUTE: Final = timedelta(minutes=1)
STALE: Final = timedelta(seconds=15)
"""A gauge is noted every two seconds, and told some seconds later; a busy machine takes its time."""
LOOK_BACK: Final = timedelta(minutes=10)
LEAST: Final = 20
TOO_EARLY: Final = 0.02
"""Of a budget's period."""
THROTTLED: Final = frozenset({"rate_limited", "overloaded", "quota_exhausted"})
WEB_TESTS: Final = (True, True, False, True)
BILLED_MB: Final = {"AppMetrics": 500.0, "AppDependencies": 250.0}
FREE_MB: Final = 1000.0
USD_PER_GB: Final = 2.3


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a gauge, as it was told."""

    time: datetime
    name: str
    attributes: Mapping[str, Any]
    value: float


def points(metrics: Table) -> list[Point]:
    """Return what was told of gauges."""
    return [Point(row["TimeGenerated"], row["Name"], row["Properties"], row["Sum"]) for row in metrics.rows]


def made_up(ended: datetime) -> dict[str, Table]:
    """Return the tables that the gateway does not tell."""
    at = ended - timedelta(minutes=5)
    tests = [{"TimeGenerated": at, "Success": passed, "Location": "Sweden"} for passed in WEB_TESTS]
    usage = [{"TimeGenerated": at, "DataType": name, "Quantity": mb, "IsBillable": True} for name, mb in BILLED_MB.items()]
    usage.append({"TimeGenerated": at, "DataType": "Usage", "Quantity": FREE_MB, "IsBillable": False})
    return {"AppAvailabilityResults": table("AppAvailabilityResults", tests), "Usage": table("Usage", usage)}


class States:
    """The checks, over the gauges' points."""

    def __init__(self, told: Iterable[Point]) -> None:
        self._told = sorted(told, key=lambda point: point.time)

    def checks(self) -> dict[str, Callable[[Ask, Books], Iterator[Finding]]]:
        """Return query → what it must give, of all queries."""
        mine = (
            self.alert_breakers,
            self.alert_budgets,
            self.alert_error_rate,
            self.alert_ingestion,
            self.alert_latency,
            self.alert_queue_age,
            self.alert_throttling,
            self.availability,
            self.breaker_openings,
            self.breakers_now,
            self.breakers_open,
            self.budget_forecast,
            self.budget_share,
            self.health_now,
            self.ingestion,
            self.queue_age,
            self.queue_depth,
        )
        return {**OTHERS, **{check.__name__: check for check in mine}}

    def _of(self, name: str, least: datetime | None = None, most: datetime | None = None) -> list[Point]:
        return [
            point
            for point in self._told
            if point.name == name and (least is None or point.time > least) and (most is None or point.time <= most)
        ]

    def _open(self) -> dict[str, list[datetime]]:
        found: defaultdict[str, list[datetime]] = defaultdict(list)
        for point in self._of(semconv.BREAKER.name):
            if point.value == OPEN:
                found[point.attributes[semconv.DEPLOYMENT]].append(point.time)
        return found

    # ---- breakers --------------------------------------------------------------------------------------------------------

    def breaker_openings(self, ask: Ask, books: Books) -> Iterator[Finding]:
        """From when to when each was open: as it was told, and as administrators saw it."""
        rows = ask("breaker_openings")
        wanted = {name: (binned(times[0], MINUTE), binned(times[-1], MINUTE)) for name, times in self._open().items()}
        found = {row["deployment"]: (row["opened"], row["last_open"]) for row in rows}
        yield Finding("openings: what was told", found, wanted)
        lengths = {name: (last - first) // MINUTE + 1 for name, (first, last) in wanted.items()}
        yield Finding("minutes", {row["deployment"]: row["minutes"] for row in rows}, lengths)
        failed: defaultdict[str, list[datetime]] = defaultdict(list)
        for _, attempt in attempts(books):
            if attempt.outcome != SUCCEEDED:  # may have opened it for less than a look's time
                failed[attempt.deployment].append(datetime.fromtimestamp(attempt.started_at, UTC))
        groundless = [
            (name, str(time))
            for name, times in self._open().items()
            for time in times
            if not any(time - STALE <= seen <= time for seen in (*books.open_seen.get(name, ()), *failed[name]))
        ]
        yield Finding("told open although GET /v1/metrics did not say so and nothing failed", groundless, [])
        yield Finding("the providers that the script took down", {"east/main-east", "last/claude"} <= set(found), True)

    def breakers_open(self, ask: Ask, books: Books) -> Iterator[Finding]:
        """How many minutes of a time step each was open."""
        del books
        wanted: defaultdict[tuple[datetime, str], set[datetime]] = defaultdict(set)
        for name, times in self._open().items():
            for time in times:
                wanted[binned(time), name].add(binned(time, MINUTE))
        rows = ask("breakers_open")
        found = {(row["TimeGenerated"], row["deployment"]): row["minutes_open"] for row in rows}
        yield Finding("minutes open: what was told", found, {key: len(minutes) for key, minutes in wanted.items()})

    def breakers_now(self, ask: Ask, books: Books) -> Iterator[Finding]:
        """How they stand: the last that was told, at the end and when one was open."""
        for moment in (books.ended, self._open()["last/claude"][-1]):
            last = {point.attributes[semconv.DEPLOYMENT]: point.value for point in self._of(semconv.BREAKER.name, None, moment)}
            found = {row["deployment"]: row["state"] for row in ask("breakers_now", now=moment)}
            states = {0: "closed", 1: "half open", 2: "open"}
            yield Finding(f"states at {moment:%H:%M:%S}", found, {name: states[round(value)] for name, value in last.items()})

    def alert_breakers(self, ask: Ask, books: Books) -> Iterator[Finding]:
        """A model is out of reach while all its breakers are open, and no longer."""
        moment = self._open()["last/claude"][-1]
        minutes: defaultdict[tuple[str, datetime], dict[str, float]] = defaultdict(dict)
        for point in self._of(semconv.BREAKER.name, moment - LOOK_BACK, moment):
            states = minutes[point.attributes[semconv.REQUEST_MODEL], binned(point.time, MINUTE)]
            name = point.attributes[semconv.DEPLOYMENT]
            states[name] = max(states.get(name, 0), point.value)
        out = {model for (model, _), states in minutes.items() if min(states.values()) > 0 and max(states.values()) == OPEN}
        found = {row["model"]: row["instances"] for row in ask("alert_breakers@minute", now=moment)}
        yield Finding("models out of reach while all their breakers were open", found, dict.fromkeys(out, 1))
        yield Finding("the model that the script took down", "claude" in found, True)
        yield Finding("some minutes later", list(ask("alert_breakers@minute", now=books.ended + LOOK_BACK)), [])

    # ---- budgets ---------------------------------------------------------------------------------------------------------

    def budget_forecast(self, ask: Ask, books: Books) -> Iterator[Finding]:
        """What the ledger says of each budget, and a straight line to its period's end."""
        rows = {row["budget"]: row for row in ask("budget_forecast")}
        amounts = {"limit_usd": "limit_nano_usd", "spent_usd": "spent_nano_usd", "held_usd": "held_nano_usd"}
        found = {name: [nano(row[column]) for column in amounts] for name, row in rows.items()}
        yield Finding(
            "limit, spent, held: the ledger",
            found,
            {name: [shown[one] for one in amounts.values()] for name, shown in books.budgets.items()},
        )
        for name, row in rows.items():
            shown = books.budgets[name]
            spent, limit = shown["spent_nano_usd"] / NANO, shown["limit_nano_usd"] / NANO
            begin, end = _moment(shown["period"].get("start")), _moment(shown["period"].get("end"))
            forever = begin is None or end is None
            yield Finding(f"{name}: its period's end", row["ends"], end)
            elapsed = 1.0 if begin is None or end is None else (row["told"] - begin) / (end - begin)
            if elapsed < TOO_EARLY:  # chance would draw the line
                yield Finding(f"{name}: projected", row["projected_usd"], None)
                yield Finding(f"{name}: verdict", row["verdict"], "exhausted" if spent >= limit else "too early to say")
                continue
            line = spent / elapsed
            yield Finding(f"{name}: projected", row["projected_usd"], Near(line, 1e-9 + line * 1e-6))
            gone = forever or line <= limit or not spent or begin is None
            runs_out = None if gone or begin is None else begin + (row["told"] - begin) * (limit / spent)
            yield Finding(f"{name}: runs out", _to_second(row["runs_out"]), _to_second(runs_out))
            yield Finding(f"{name}: verdict", row["verdict"], _verdict(spent, line, limit))

    def budget_share(self, ask: Ask, books: Books) -> Iterator[Finding]:
        """How full each is."""
        found = {row["budget"]: row["spent_percent"] for row in ask("budget_share")}
        yield Finding("spent share of budgets: the ledger", found, _shares(books))

    def alert_budgets(self, ask: Ask, books: Books) -> Iterator[Finding]:
        """The same, for the alert."""
        found = {row["budget"]: row["spent_percent"] for row in ask("alert_budgets")}
        yield Finding("spent share of budgets: the ledger", found, _shares(books))

    # ---- queues ----------------------------------------------------------------------------------------------------------

    def queue_depth(self, ask: Ask, books: Books) -> Iterator[Finding]:
        """Chains by state."""
        del books
        wanted: defaultdict[str, float] = defaultdict(float)
        for point in self._of(semconv.QUEUE_DEPTH.name):
            state = point.attributes[semconv.QUEUE_STATE]
            wanted[state] = max(wanted[state], point.value)
        found = {row["state"]: row["chains"] for row in ask("queue_depth")}
        yield Finding("chains by state: what was told", found, dict(wanted))
        yield Finding("states", {"queued", "running", "waiting"} <= set(found), True)

    def queue_age(self, ask: Ask, books: Books) -> Iterator[Finding]:
        """How long the oldest one waited."""
        del books
        wanted = max(point.value for point in self._of(semconv.QUEUE_AGE.name))
        yield Finding("seconds waited: what was told", max(row["oldest_seconds"] for row in ask("queue_age")), wanted)

    def alert_queue_age(self, ask: Ask, books: Books) -> Iterator[Finding]:
        """The same, for the alert; nothing when nothing was told for a while."""
        wanted = max(point.value for point in self._of(semconv.QUEUE_AGE.name))
        yield Finding("seconds waited: what was told", [row["oldest_seconds"] for row in ask("alert_queue_age")], [wanted])
        later = books.ended + timedelta(hours=1)
        yield Finding("an hour later", list(ask("alert_queue_age", now=later)), [])

    def health_now(self, ask: Ask, books: Books) -> Iterator[Finding]:
        """The figures at the top, with that of the queue."""
        yield from health_now(ask, books)
        waited = self._of(semconv.QUEUE_AGE.name, books.ended - LOOK_BACK, books.ended)[-1].value
        (shown,) = [row["value"] for row in ask("health_now") if row["figure"] == "Oldest waiting"]
        yield Finding("waiting: what was told", number(shown), Near(waited, 0.501))

    # ---- other alerts ----------------------------------------------------------------------------------------------------

    def alert_error_rate(self, ask: Ask, books: Books) -> Iterator[Finding]:
        """The share of requests that failed, if there are enough."""
        total = len(books.records)
        failed = sum(1 for record in books.records if ending(record) == "failed")
        (row,) = ask("alert_error_rate")
        found = (row["requests"], row["failures"], row["error_percent"])
        yield Finding("failures: the usage log", found, (total, failed, Near(100 * failed / total, 1e-9)))
        yield Finding("too few to say", list(ask("alert_error_rate@many")), [])

    def alert_latency(self, ask: Ask, books: Books) -> Iterator[Finding]:
        """What the slowest of answered requests waited."""
        waits = [one.duration_ms for one in books.records if one.outcome == SUCCEEDED and one.chain is None]
        (row,) = ask("alert_latency")
        yield Finding(
            "p95 and requests: the usage log", (row["p95_seconds"], row["requests"]), (seconds(waits, 95), len(waits))
        )
        yield Finding("too few to say", list(ask("alert_latency@many")), [])

    def alert_throttling(self, ask: Ask, books: Books) -> Iterator[Finding]:
        """The share of attempts that were refused for their number."""
        made = Counter(attempt.deployment for _, attempt in attempts(books))
        refused = Counter(attempt.deployment for _, attempt in attempts(books) if attempt.outcome in THROTTLED)
        wanted = {name: (count, Near(100 * refused[name] / count, 1e-9)) for name, count in made.items() if count >= LEAST}
        found = {row["deployment"]: (row["attempts"], row["throttled_percent"]) for row in ask("alert_throttling")}
        yield Finding("throttled: the usage log", found, wanted)

    # ---- tables that the gateway does not tell ---------------------------------------------------------------------------

    def availability(self, ask: Ask, books: Books) -> Iterator[Finding]:
        """The share of web tests that passed."""
        del books
        found = [row["passed_percent"] for row in ask("availability")]
        yield Finding("passed, of rows made up", found, [100 * sum(WEB_TESTS) / len(WEB_TESTS)])

    def ingestion(self, ask: Ask, books: Books) -> Iterator[Finding]:
        """What telemetry costs by table: a gigabyte is a thousand megabytes, as Azure bills it."""
        del books
        found = {row["table_name"]: (row["gigabytes"], row["usd"]) for row in ask("ingestion")}
        wanted = {name: (mb / 1000, Near(mb / 1000 * USD_PER_GB, 1e-9)) for name, mb in BILLED_MB.items()}
        yield Finding("gigabytes and US dollars, of rows made up", found, wanted)

    def alert_ingestion(self, ask: Ask, books: Books) -> Iterator[Finding]:
        """The same, for the alert."""
        del books
        found = [row["usd"] for row in ask("alert_ingestion")]
        yield Finding("US dollars, of rows made up", found, [Near(sum(BILLED_MB.values()) / 1000 * USD_PER_GB, 1e-9)])


def _moment(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text).astimezone(UTC)


def _to_second(moment: datetime | None) -> datetime | None:
    return None if moment is None else (moment + timedelta(milliseconds=500)).replace(microsecond=0)


def _shares(books: Books) -> dict[str, Near]:
    shown = books.budgets.items()
    return {name: Near(100 * budget["spent_nano_usd"] / budget["limit_nano_usd"], 1e-9) for name, budget in shown}


def _verdict(spent: float, line: float, limit: float) -> str:
    if spent >= 0.999 * limit:
        return "exhausted"
    if line > limit:
        return "will run out"
    return "close" if line >= 0.8 * limit else "fine"

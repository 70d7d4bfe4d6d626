"""What each query over a run's telemetry must give: computed from what the gateway wrote down, billed and answered.

A check yields what was found and what is true, which must be equal. Money is compared to the nano-dollar. Durations are told in
whole milliseconds of two clock readings, so they may be one off.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from shared.core.records import SUCCEEDED, AttemptRecord, RequestRecord
from tests.bench.audit import PROBER
from tests.bench.telemetry_scene import REFUSED, Books
from tests.kusto.values import Row

Ask = Callable[..., Sequence[Row]]
"""Runs a query, or a variant of it: ``ask(name)``, ``ask(name, now=moment)``."""

CALLERS: Final = frozenset({"invalid_request", "context_length", "content_filter", "cancelled"})
REFUSALS: Final = frozenset({"rate_limited", "over_budget", "refused"})
MS: Final = 1.001
"""How far durations may be apart, in milliseconds."""
STEP: Final = timedelta(minutes=30)
"""Of a day."""
NANO: Final = 10**9


@dataclass(frozen=True, slots=True)
class Finding:
    """One comparison."""

    what: str
    found: object
    true: object

    @property
    def holds(self) -> bool:
        """Whether both are the same."""
        return self.found == self.true


@dataclass(frozen=True, slots=True)
class Near:
    """A number that others may differ from a little: equal to any within ``by``."""

    value: float | None
    by: float

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Near):
            return self == other.value
        if self.value is None or not isinstance(other, int | float):
            return self.value is other
        return abs(self.value - other) <= self.by

    def __hash__(self) -> int:
        return 0

    def __repr__(self) -> str:
        return f"{self.value}"


def nano(usd: float) -> int:
    """Return an amount in whole nano-USD: what queries divide at the very end."""
    return round(usd * NANO)


def attempts(books: Books) -> list[tuple[RequestRecord, AttemptRecord]]:
    """Return every attempt with its request."""
    return [(record, attempt) for record in books.records for attempt in record.attempts]


def rank(values: Iterable[float | None], percent: float) -> float | None:
    """Return the nearest-rank percentile: the rule, written once more, for what was written down."""
    known = sorted(value for value in values if value is not None)
    return known[max(0, math.ceil(percent * len(known) / 100) - 1)] if known else None


def seconds(values: Iterable[float | None], percent: float) -> Near:
    """Return the percentile of milliseconds, in seconds."""
    found = rank(values, percent)
    return Near(None if found is None else found / 1000, MS / 1000)


def binned(moment: datetime, step: timedelta = STEP) -> datetime:
    """Return the begin of a time's step."""
    since = datetime(1, 1, 1, tzinfo=UTC)
    return since + (moment - since) // step * step


def began(record: RequestRecord) -> datetime:
    """Return when a request began."""
    return datetime.fromtimestamp(record.started_at, UTC)


def added(rows: Iterable[Row], by: Sequence[str], value: str) -> dict[Any, int]:
    """Return the sums of a column, as whole numbers, by others."""
    sums: Counter[Any] = Counter()
    for row in rows:
        sums[tuple(row[name] for name in by) if len(by) > 1 else row[by[0]]] += row[value]
    return {key: round(total) for key, total in sums.items()}


# ---- money and tokens ----------------------------------------------------------------------------------------------------


def cost_by_project(ask: Ask, books: Books) -> Iterator[Finding]:
    """By whom: what ``GET /v1/usage`` says of every key, and what the budgets' ledger has spent."""
    rows = ask("cost_by_project")
    wanted: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for row in books.usage:
        if row["attempts"]:
            sums = wanted[row["project"], row["key"]]
            for at, name in enumerate(("cost_nano_usd", "input_tokens", "output_tokens")):
                sums[at] += row[name]
    found = {(row["spender"], row["key_id"]): [nano(row["usd"]), row["input_tokens"], row["output_tokens"]] for row in rows}
    yield Finding("cost and tokens by project and key: usage", found, dict(wanted))
    yield Finding("cost of all: the ledger", sum(nano(row["usd"]) for row in rows), spent(books, "everything"))
    alpha = sum(nano(row["usd"]) for row in rows if row["spender"] == "alpha")
    yield Finding("cost of alpha: its budget's ledger", alpha, spent(books, "alpha-daily"))
    yield Finding("shares", sum(row["share_percent"] for row in rows), Near(100.0, 1e-6))
    chosen = ask("cost_by_project@alpha")
    yield Finding("cost of the chosen project", sum(nano(row["usd"]) for row in chosen), spent(books, "alpha-daily"))
    yield Finding("the chosen project only", {row["spender"] for row in chosen}, {"alpha"})


def spent(books: Books, budget: str) -> int:
    """Return what the ledger says that a budget has spent."""
    return int(books.budgets[budget]["spent_nano_usd"])


def cost_by_model(ask: Ask, books: Books) -> Iterator[Finding]:
    """On which model: what usage says of every deployment."""
    rows = ask("cost_by_model")
    wanted: defaultdict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0, 0])
    for row in books.usage:
        if row["attempts"] and (row["cost_nano_usd"] or row["input_tokens"]):
            sums = wanted[row["model"], row["deployment"]]
            for at, name in enumerate(("cost_nano_usd", "input_tokens", "output_tokens")):
                sums[at] += row[name]
    found = {(row["model"], row["deployment"]): [nano(row["usd"]), row["input_tokens"], row["output_tokens"]] for row in rows}
    yield Finding("cost and tokens by model and deployment: usage", found, dict(wanted))
    guessed: Counter[str] = Counter()
    for _, attempt in attempts(books):
        guessed[attempt.deployment] += 0 if attempt.exact else attempt.cost or 0
    shown = {row["deployment"]: round(row["inexact_percent"] * row["usd"] * NANO / 100) for row in rows}
    yield Finding("of which not exact", shown, {row["deployment"]: guessed[row["deployment"]] for row in rows})
    per_million = {row["deployment"]: row["usd_per_million_tokens"] for row in rows}
    prices = {
        deployment: Near(cost * 1e6 / NANO / (told + made) if told + made else None, 1e-9)
        for (_, deployment), (cost, told, made) in wanted.items()
    }
    yield Finding("US dollars per million tokens", per_million, prices)


def cost_over_time(ask: Ask, books: Books) -> Iterator[Finding]:
    """The same money, over time."""
    found: Counter[str] = Counter()
    for row in ask("cost_over_time"):
        found[row["model"]] += nano(row["usd"])
    wanted: Counter[str] = Counter()
    for _, attempt in attempts(books):
        wanted[attempt.model] += attempt.cost or 0
    yield Finding("cost by model: the usage log", +found, +wanted)
    yield Finding("all of it: GET /v1/usage", found.total(), books.total["cost_nano_usd"])


def tokens_over_time(ask: Ask, books: Books) -> Iterator[Finding]:
    """Tokens, as usage has them."""
    wanted = {"input": books.total["input_tokens"], "output": books.total["output_tokens"]}
    yield Finding("tokens: GET /v1/usage", added(ask("tokens_over_time"), ["token_type"], "tokens"), wanted)


# ---- requests ------------------------------------------------------------------------------------------------------------


def ending(record: RequestRecord) -> str:
    """Return how a request ended, as people say it."""
    if record.outcome == SUCCEEDED:
        return "answered"
    return "caller's mistake" if record.outcome in CALLERS else "refused" if record.outcome in REFUSALS else "failed"


def requests_by_outcome(ask: Ask, books: Books) -> Iterator[Finding]:
    """How requests end, as callers saw it."""
    found = added(ask("requests_by_outcome"), ["ending"], "requests")
    yield Finding("requests by ending: the usage log", found, dict(Counter(ending(record) for record in books.records)))
    probes = sum(1 for record in books.records if record.key_id == PROBER)
    yield Finding("all: what callers sent, and the gateway's own probes", sum(found.values()), books.statuses.total() + probes)
    yield Finding("refused: what the script overspent", found.get("refused"), REFUSED)
    yield Finding("refused: 429 at callers", found.get("refused"), books.statuses[429])
    yield Finding("the caller's mistake: 400 at callers", found.get("caller's mistake"), books.statuses[400])


def requests_not_answered(ask: Ask, books: Books) -> Iterator[Finding]:
    """Why requests were not answered, and whose they were."""
    wanted = Counter((record.outcome, record.project) for record in books.records if record.outcome != SUCCEEDED)
    found = added(ask("requests_not_answered"), ["outcome", "asked_by"], "requests")
    yield Finding("by outcome and project: the usage log", found, dict(wanted))


def budget_refusals(ask: Ask, books: Books) -> Iterator[Finding]:
    """Whom a budget refused; the script lets one run out."""
    yield from _refused(ask("budget_refusals"), books)


def alert_refusals(ask: Ask, books: Books) -> Iterator[Finding]:
    """The same, for the alert; nothing once it is over."""
    yield from _refused(ask("alert_refusals"), books)
    yield Finding("an hour later", list(ask("alert_refusals", now=books.ended + timedelta(hours=1))), [])


def _refused(rows: Sequence[Row], books: Books) -> Iterator[Finding]:
    wanted = Counter(record.project for record in books.records if record.outcome == "over_budget")
    yield Finding("refused by project: the usage log", added(rows, ["asked_by"], "refused"), dict(wanted))
    yield Finding("somebody was refused", bool(wanted), True)


def failed_requests(ask: Ask, books: Books) -> Iterator[Finding]:
    """The newest requests that failed, each with what was written down of it."""
    rows = ask("failed_requests")
    failed = sorted((record for record in books.records if ending(record) == "failed"), key=lambda one: -one.started_at)[:50]
    wanted = {one.request_id: (one.project, one.outcome, len(one.attempts)) for one in failed}
    found = {row["request_id"]: (row["asked_by"], row["outcome"], row["attempts"]) for row in rows}
    yield Finding("the newest failures: the usage log", found, wanted)
    waited = {one.request_id: Near(one.duration_ms / 1000, MS / 1000) for one in failed}
    yield Finding("how long they took", {row["request_id"]: row["seconds"] for row in rows}, waited)
    yield Finding("each in a trace", all(len(row["OperationId"]) == 32 for row in rows), True)


def error_logs(ask: Ask, books: Books) -> Iterator[Finding]:
    """Log lines name requests that there were; a request that nobody could answer has one."""
    rows = ask("error_logs")
    known = {record.request_id for record in books.records}
    strangers = {row["a_request_id"] for row in rows if row["a_request_id"]} - known
    yield Finding("log lines of requests that nobody made", strangers, set())
    told = [row["what"] for row in rows if row["a_request_id"] and row["a_request_id"] in row["what"]]
    yield Finding("complaints apart only because each names its request", told, [])
    failed = sum(1 for record in books.records if record.outcome == "all_attempts_failed" and record.chain is None)
    lines = sum(row["lines"] for row in rows if "AllAttemptsFailedError" in row["what"])
    yield Finding("a line for each request that no model could answer", lines, failed)


def choices_of_model(ask: Ask, books: Books) -> Iterator[Finding]:
    """Every model that was asked for can be chosen."""
    wanted = {record.model or (record.attempts[0].model if record.attempts else "(unknown)") for record in books.records}
    yield Finding("models", [row["value"] for row in ask("choices_of_model")], sorted({"*", *wanted}))


def choices_of_project(ask: Ask, books: Books) -> Iterator[Finding]:
    """Every project that asked can be chosen."""
    projects = sorted({record.project for record in books.records})
    yield Finding("projects", [row["value"] for row in ask("choices_of_project")], sorted({"*", *projects}))


# ---- attempts ------------------------------------------------------------------------------------------------------------


def failures_by_kind(ask: Ask, books: Books) -> Iterator[Finding]:
    """What goes wrong at providers, as usage has it and as the script did it."""
    found = added(ask("failures_by_kind"), ["failure"], "failures")
    yield Finding("failed attempts by kind: GET /v1/usage", found, books.total["attempt_errors"])
    scripted = Counter(one.fault for one in books.received if not one.disconnected)
    yield Finding("429: the script", found.get("rate_limited"), scripted["rate_limited_s"])
    yield Finding("500: the script", found.get("server_error"), scripted["server_error"])
    yield Finding("529: the script", found.get("overloaded"), scripted["overloaded"])
    hung = sum(1 for one in books.received if one.fault == "hang_before_headers")
    yield Finding("at least the timeouts of the script", found.get("timeout", 0) >= hung, True)


def fallbacks(ask: Ask, books: Books) -> Iterator[Finding]:
    """What fell over to what."""
    wanted: Counter[tuple[str, str, str]] = Counter()
    for record in books.records:
        for one, after in zip(record.attempts, record.attempts[1:], strict=False):
            if one.outcome != SUCCEEDED and one.deployment != after.deployment:
                wanted[one.deployment, after.deployment, one.outcome] += 1
    found = added(ask("fallbacks"), ["from_deployment", "to_deployment", "because"], "fallbacks")
    yield Finding("fallbacks: the usage log", found, dict(wanted))
    yield Finding("some", bool(found), True)


def deployments(ask: Ask, books: Books) -> Iterator[Finding]:
    """How each deployment does."""
    rows = ask("deployments")
    by: defaultdict[str, list[AttemptRecord]] = defaultdict(list)
    for _, attempt in attempts(books):
        by[attempt.deployment].append(attempt)
    wanted = {
        name: (
            len(made),
            sum(1 for one in made if one.outcome != SUCCEEDED),
            seconds((one.duration_ms for one in made if one.outcome == SUCCEEDED), 50),
            seconds((one.duration_ms for one in made if one.outcome == SUCCEEDED), 95),
            seconds((one.first_content_ms for one in made), 50),
        )
        for name, made in by.items()
    }
    columns = ("attempts", "failures", "p50_seconds", "p95_seconds", "first_content_seconds")
    yield Finding(
        "by deployment: the usage log", {row["deployment"]: tuple(row[name] for name in columns) for row in rows}, wanted
    )
    received = Counter(one.profile for one in books.received)
    made = Counter(attempt.provider for _, attempt in attempts(books) if attempt.outcome != "not_admitted")
    yield Finding("attempts: what providers received", dict(made), dict(received))


# ---- waits ---------------------------------------------------------------------------------------------------------------


def latency_percentiles(ask: Ask, books: Books) -> Iterator[Finding]:
    """How long callers waited for an answer: refusals, which take no time, would hide that it is slow."""
    steps: defaultdict[datetime, list[float]] = defaultdict(list)
    for record in books.records:
        if record.chain is None and record.outcome == SUCCEEDED:
            steps[binned(began(record))].append(record.duration_ms)
    wanted = {step: tuple(seconds(waits, percent) for percent in (50, 95, 99)) for step, waits in steps.items()}
    rows = ask("latency_percentiles")
    found = {row["TimeGenerated"]: (row["p50"], row["p95"], row["p99"]) for row in rows}
    yield Finding("percentiles per time step: the usage log", found, wanted)


def latency_compared(ask: Ask, books: Books) -> Iterator[Finding]:
    """What got slower, from the minute before half of the ordinary requests to the minute after it."""
    span = timedelta(minutes=1)
    rows = ask("latency_compared@minute", now=books.half + span)
    models: dict[tuple[str, str], tuple[object, ...]] = {}
    answered = [one for one in books.records if one.outcome == SUCCEEDED and one.chain is None]
    for model in sorted({one.model or "" for one in answered}):
        mine = [one for one in answered if one.model == model]
        before = [one.duration_ms for one in mine if books.half - span <= began(one) < books.half]
        after = [one.duration_ms for one in mine if books.half <= began(one) <= books.half + span]
        for percent in (50, 95, 99) if before and after else ():
            models[model, f"p{percent}"] = (seconds(before, percent), seconds(after, percent), len(before), len(after))
    columns = ("before_seconds", "now_seconds", "requests_before", "requests_now")
    found = {(row["model"], row["percentile"]): tuple(row[name] for name in columns) for row in rows}
    yield Finding("percentiles before and now: the usage log", found, models)
    changes = [100 * (row["now_seconds"] - row["before_seconds"]) / row["before_seconds"] for row in rows]
    yield Finding("change in %", [row["change_percent"] for row in rows], [Near(change, 1e-6) for change in changes])
    yield Finding("a day has no day before it here", list(ask("latency_compared")), [])


def first_content(ask: Ask, books: Books) -> Iterator[Finding]:
    """How long until a streamed answer began."""
    steps: defaultdict[datetime, list[float]] = defaultdict(list)
    for record, attempt in attempts(books):
        if attempt.first_content_ms is not None:
            steps[binned(datetime.fromtimestamp(attempt.started_at or record.started_at, UTC))].append(attempt.first_content_ms)
    wanted = {
        step: tuple(Near((rank(waits, percent) or 0) / 1000, 1e-6) for percent in (50, 95)) for step, waits in steps.items()
    }
    found = {row["TimeGenerated"]: (row["p50"], row["p95"]) for row in ask("first_content")}
    yield Finding("time to first content: the usage log", found, wanted)


# ---- the whole -----------------------------------------------------------------------------------------------------------


def health_now(ask: Ask, books: Books) -> Iterator[Finding]:
    """The figures at the top of the workbook."""
    figures = {row["figure"]: row["value"] for row in ask("health_now")}
    total = len(books.records)
    endings = Counter(ending(record) for record in books.records)
    waits = [record.duration_ms for record in books.records if record.chain is None and record.outcome == SUCCEEDED]
    yield Finding("requests", int(figures["Requests"]), total)
    yield Finding("answered", number(figures["Answered"]), Near(100 * endings["answered"] / total, 0.005001))
    yield Finding("failed", number(figures["Failed"]), Near(100 * endings["failed"] / total, 0.005001))
    yield Finding("slowest", number(figures["Slowest 5 %"]), replace(seconds(waits, 95), by=0.00601))
    usd = books.total["cost_nano_usd"] / NANO
    yield Finding("spent", number(figures["Spent"]), Near(usd, 0.0000501 if usd < 1 else 0.00501))


def number(figure: str) -> float:
    """Return the number in a figure's text."""
    return float(figure.strip("$ %s"))


def instances(ask: Ask, books: Books) -> Iterator[Finding]:
    """One instance served."""
    del books
    yield Finding("instances", {row["instances"] for row in ask("instances")}, {1})


def telemetry_dropped(ask: Ask, books: Books) -> Iterator[Finding]:
    """Nothing was dropped."""
    del books
    yield Finding("dropped", list(ask("telemetry_dropped")), [])


CHECKS: Final[Mapping[str, Callable[[Ask, Books], Iterator[Finding]]]] = {
    check.__name__: check
    for check in (
        alert_refusals,
        budget_refusals,
        choices_of_model,
        choices_of_project,
        cost_by_model,
        cost_by_project,
        cost_over_time,
        deployments,
        error_logs,
        failed_requests,
        failures_by_kind,
        fallbacks,
        first_content,
        health_now,
        instances,
        latency_compared,
        latency_percentiles,
        requests_by_outcome,
        requests_not_answered,
        telemetry_dropped,
        tokens_over_time,
    )
}
"""Query → what it must give. Those about budgets, breakers, queues and alerts are in `tests.bench.telemetry_states`."""

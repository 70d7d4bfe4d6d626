"""The queries of the workbook, the dashboards and the alerts: Microsoft's binder takes them, and they give what is true."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.bench.telemetry_run import QUERIES, asked, differences, findings, play, setting, texts
from tests.kusto.official import TABLES, Analysis, analyse
from tests.kusto.query import run, table
from tests.kusto.scope import Table
from tests.kusto.values import Row

REQUESTS: Final = 90
PLANTED: Final = {
    "a column": "AppMetrics | where TimeGenerated > ago(1d) | summarize sum(Value)",
    "a table": "customMetrics | count",
    "a function": "AppMetrics | summarize percentile_w(Sum, ItemCount, 95)",
    "a type": "AppDependencies | where DurationMs > 1s",
    "a word": "AppMetrics | summarise count()",
    "a dynamic key": 'AppMetrics | summarize count() by Properties["gateway.project"]',
}
"""Mistakes."""
NUMBERS: Final = frozenset({"real", "long", "int"})
TYPES: Final = {"time": frozenset({"datetime"}), "state": frozenset({"string"})}
"""How the workbook shows a column → what it may be; numbers for all else."""
TERRAFORM: Final = QUERIES.parent
NIGHT: Final = datetime(2026, 11, 23, 3, 0, tzinfo=UTC)
BEGINNING: Final = datetime(2026, 11, 1, 0, 1, tzinfo=UTC)


def in_workbook() -> dict[str, str]:
    """Return the queries as the portal asks them for the workbook, with its choices filled in."""
    lines = {"since": "datetime(2026-11-22T10:00:00.000Z)", "until": "datetime(2026-11-23T10:00:00.000Z)"}
    chosen = lines | {"in_project": '"shop"', "of_model": '"big"'}
    found = texts()
    for name in found:
        for line, value in chosen.items():
            if f"let {line} " in found[name]:
                found[name] = setting(found[name], line, value)
    return {f"{name}, in the workbook": text for name, text in found.items()}


def items() -> list[dict[str, Any]]:
    """Return what the workbook shows."""
    plan = yaml.safe_load((TERRAFORM / "workbook" / "workbook.yaml").read_text(encoding="utf-8"))
    return [item for tab in plan["tabs"] for item in tab["items"] if "query" in item]


@pytest.fixture(scope="module")
def read() -> dict[str, Analysis]:
    """Return the queries as the language service reads them, and the mistakes: one run of it for all."""
    month = {"instances, over a month": setting(texts()["instances"], "since", "ago(30d)")}
    return analyse({**asked(), **in_workbook(), **month, **PLANTED})


def test_every_query_is_one_that_a_workspace_takes(read: dict[str, Analysis]) -> None:
    """Tables, columns, functions and types are those that Microsoft documents; what does not exist is noticed."""
    right = {**asked(), **in_workbook()}

    assert {} == {name: read[name].problems for name in right if read[name].problems}
    assert [] == [name for name in PLANTED if not read[name].problems]


def test_the_workbook_shows_columns_that_there_are(read: dict[str, Analysis]) -> None:
    """Each is of the type it is shown as; a chart has a number to draw."""
    for item in items():
        columns = dict(read[item["query"]].columns)
        for name, look in item.get("columns", {}).items():
            assert columns.get(name) in TYPES.get(look.get("as"), NUMBERS if "as" in look else {columns.get(name)}), (
                item,
                name,
            )
            assert name in columns, (item["query"], name)
        assert {item[part] for part in ("value", "group") if part in item} <= set(columns), item["query"]
        assert item["show"] == "table" or NUMBERS & set(columns.values()), item["query"]


def test_alerts_look_at_columns_that_there_are(read: dict[str, Analysis]) -> None:
    """What is measured is a number; what alerts are told apart by is a text."""
    rule = r'query = "(\w+)", measure = (?:"(\w+)"|null), dimension = (?:"(\w+)"|null)'
    rules = re.findall(rule, (TERRAFORM / "alerts.tf").read_text(encoding="utf-8"))

    assert {name for name in texts() if name.startswith("alert_")} == {query for query, _, _ in rules}
    for query, measure, dimension in rules:
        columns = dict(read[query].columns)
        assert not measure or columns[measure] in NUMBERS, (query, measure)
        assert not dimension or columns[dimension] == "string", (query, dimension)


def test_queries_are_in_their_files_only() -> None:
    """What Terraform's other files ask, nobody would check."""
    tables = re.compile(r"\bApp(Metrics|Dependencies|Traces|Exceptions|Requests)\b")
    elsewhere = [path for path in TERRAFORM.rglob("*") if path.suffix in {".tf", ".json", ".yaml", ".tftpl"} and path.is_file()]

    assert [] == [path.name for path in elsewhere if tables.search(path.read_text(encoding="utf-8"))]


def workspace(**rows: Iterable[Row]) -> dict[str, Table]:
    """Return a workspace with these rows and no others."""
    return {name: table(name, list(rows.get(name, ()))) for name in TABLES}


def of_budget(name: str, at: datetime, spent: int, limit: int = 100) -> list[Row]:
    """Return what is told of a monthly budget, in US dollars."""
    told = {"gateway.budget.id": name, "gateway.budget.cycle": "month"}
    sums = {"limit": limit, "spent": spent, "held": 0}
    return [
        {"TimeGenerated": at, "Name": f"gateway.budget.{what}", "Sum": 1e9 * usd, "Properties": told}
        for what, usd in sums.items()
    ]


def test_a_budget_that_is_told_no_more_is_gone(read: dict[str, Analysis]) -> None:
    """Deleted hours ago, it is not shown as exhausted: all that are in force are told each minute."""
    rows = [*of_budget("gone", NIGHT - timedelta(hours=5), 300), *of_budget("there", NIGHT - timedelta(minutes=2), 22)]

    found = run(read["budget_forecast"], workspace(AppMetrics=rows), NIGHT).rows
    assert [("there", "fine")] == [(row["budget"], row["verdict"]) for row in found]


def test_no_line_is_drawn_through_a_minute(read: dict[str, Analysis]) -> None:
    """A month that has just begun says nothing of its end; a budget that is exhausted already is, and comes first."""
    rows = [*of_budget("busy", BEGINNING, 3), *of_budget("spent", BEGINNING, 1, limit=1)]

    found = run(read["budget_forecast"], workspace(AppMetrics=rows), BEGINNING).rows
    wanted = [("spent", "exhausted", None), ("busy", "too early to say", None)]
    assert wanted == [(row["budget"], row["verdict"], row["projected_usd"]) for row in found]


def test_a_budget_with_days_of_its_own_is_judged_by_them(read: dict[str, Analysis]) -> None:
    """A dollar by one in the morning, in a place where that is UTC's evening, is many by the end of that day."""
    began = NIGHT - timedelta(hours=1)
    told = {"gateway.budget.id": "away", "gateway.budget.cycle": "day"}
    bounds = {"period.start": began.timestamp(), "period.end": (began + timedelta(days=1)).timestamp()}
    rows = [
        {"TimeGenerated": NIGHT, "Name": f"gateway.budget.{what}", "Sum": value, "Properties": told}
        for what, value in {"limit": 10e9, "spent": 1e9, "held": 0.0, **bounds}.items()
    ]

    (found,) = run(read["budget_forecast"], workspace(AppMetrics=rows), NIGHT).rows
    assert ("will run out", 24.0, began + timedelta(days=1)) == (found["verdict"], found["projected_usd"], found["ends"])
    assert began + timedelta(hours=10) == found["runs_out"]


@pytest.mark.parametrize("query", ["latency_percentiles", "health_now"])
def test_refusals_do_not_hide_that_answers_are_slow(query: str, read: dict[str, Analysis]) -> None:
    """A caller over its budget who asks again and again gets its refusal in no time."""
    row = {"TimeGenerated": NIGHT - timedelta(minutes=9), "ItemCount": 1}
    ended = [("succeeded", 40_000.0), *[("over_budget", 1.0)] * 99]
    spans = [
        {**row, "DurationMs": took, "Properties": {"gateway.attempts": "1", "gateway.outcome": outcome}}
        for outcome, took in ended
    ]

    found = run(read[query], workspace(AppDependencies=spans), NIGHT).rows
    assert [40.0] == [row["p95"] for row in found] if query != "health_now" else "40.0 s" in [row["value"] for row in found]


def test_the_end_of_the_time_range_is_its_end(read: dict[str, Analysis]) -> None:
    """Work that waited nine minutes ago, and has begun since, does not wait."""
    aged = {9: 4_000.0, 1: 0.0}
    rows = [
        {"TimeGenerated": NIGHT - timedelta(minutes=ago), "Name": "gateway.queue.age", "Sum": age, "AppRoleInstance": str(ago)}
        for ago, age in aged.items()
    ]

    found = run(read["health_now"], workspace(AppMetrics=rows), NIGHT).rows
    assert ["0.0 s"] == [row["value"] for row in found if row["figure"] == "Oldest waiting"]


def test_a_hard_budget_that_refuses_is_told_of(read: dict[str, Analysis]) -> None:
    """It refuses what no longer fits, or has no price, and never comes to 100 %: nothing else would ring."""
    at = NIGHT - timedelta(minutes=3)
    rows: list[Row] = [
        {
            "TimeGenerated": at,
            "Name": "gateway.requests",
            "Sum": 2.0,
            "Properties": {"gateway.project": "shop", "gateway.outcome": outcome},
        }
        for outcome in ("over_budget", "rate_limited", "succeeded")
    ]
    tables = workspace(AppMetrics=[*rows, *of_budget("b", at, 97)])

    assert [97.0] == [row["spent_percent"] for row in run(read["alert_budgets"], tables, NIGHT).rows]
    assert [{"asked_by": "shop", "refused": 2.0}] == list(run(read["alert_refusals"], tables, NIGHT).rows)


def test_instances_are_those_at_once(read: dict[str, Analysis]) -> None:
    """One that is replaced every hour is one, however long the time step."""
    rows = [
        {"TimeGenerated": NIGHT - timedelta(hours=hour), "Name": "gateway.requests", "Sum": 1.0, "AppRoleInstance": str(hour)}
        for hour in range(1, 24)
    ]
    month = read["instances, over a month"]

    assert {1} == {row["instances"] for row in run(month, workspace(AppMetrics=rows), NIGHT).rows}


def test_an_alert_says_what_to_do() -> None:
    """Where it sends whoever it woke there is a page of the runbook."""
    anchors = re.findall(r'runbook  = "([\w-]+)"|runbook\.md#([\w-]+)', (TERRAFORM / "alerts.tf").read_text(encoding="utf-8"))
    headings = re.findall(r"^## (.+)$", (QUERIES.parents[2] / "docs" / "runbook.md").read_text(encoding="utf-8"), re.MULTILINE)

    titled = {heading.lower().replace(" ", "-") for heading in headings}
    assert len(anchors) >= len([name for name in texts() if name.startswith("alert_")])
    assert {one or other for one, other in anchors} <= titled


def test_green_is_not_what_an_outage_looks_like() -> None:
    """No data is good news only where there would be some if something were wrong."""
    fine = {item["query"] for item in items() if item.get("fine")}

    assert {"failures_by_kind", "breakers_open", "failed_requests"} <= fine
    assert not fine & {
        "requests_by_outcome",
        "latency_percentiles",
        "breakers_now",
        "instances",
        "availability",
        "cost_over_time",
    }


async def test_every_query_gives_what_is_true_of_a_run(tmp_path: Path, read: dict[str, Analysis]) -> None:
    """Of requests that were made, told by the real exporter and ingested: money, counts, waits, breakers, budgets.

    ``python -m tests.bench.telemetry_run`` does the same with a host of its own and a thousand requests.
    """
    books, tables = await play(tmp_path, REQUESTS, in_process=True)

    assert [] == differences(findings(read, books, tables))
    assert {"alpha", "beta", "tiny"} == {record.project for record in books.records}

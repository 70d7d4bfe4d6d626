"""The queries of the workbook, the dashboards and the alerts: Microsoft's binder takes them, and they give what is true."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.bench.telemetry_run import asked, differences, findings, play, setting, texts
from tests.kusto.official import Analysis, analyse

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


@pytest.fixture(scope="module")
def read() -> dict[str, Analysis]:
    """Return the queries as the language service reads them, and the mistakes: one run of it for all."""
    return analyse({**asked(), **PLANTED})


def test_every_query_is_one_that_a_workspace_takes(read: dict[str, Analysis]) -> None:
    """Tables, columns, functions and types are those that Microsoft documents; what does not exist is noticed."""
    assert {} == {name: read[name].problems for name in asked() if read[name].problems}
    assert [] == [name for name in PLANTED if not read[name].problems]


def test_every_query_says_what_it_answers_and_what_can_be_set() -> None:
    """The first line is the question; a line that Terraform replaces is there once, or the query has no such setting."""
    settable = {"since": "ago(1h)", "until": "now()", "in_project": '"shop"', "of_model": '"big"'}

    for name, text in texts().items():
        assert text.startswith("// "), name
        assert "?" in text.splitlines()[0], name
        for setting_name, value in settable.items():
            if f"let {setting_name} " in text:
                setting(text, setting_name, value)


async def test_every_query_gives_what_is_true_of_a_run(tmp_path: Path, read: dict[str, Analysis]) -> None:
    """Of requests that were made, told by the real exporter and ingested: money, counts, waits, breakers, budgets.

    ``python -m tests.bench.telemetry_run`` does the same with a host of its own and a thousand requests.
    """
    books, tables = await play(tmp_path, REQUESTS, in_process=True)

    assert [] == differences(findings(read, books, tables))
    assert {"alpha", "beta", "tiny"} == {record.project for record in books.records}

"""The evaluator gives what Microsoft's documentation of Kusto says; most examples are from its pages."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest

from tests.kusto.official import Analysis, analyse
from tests.kusto.query import run, table
from tests.kusto.values import UnsupportedError

HERE: Final = Path(__file__).resolve().parent
NOW: Final = datetime(2026, 11, 23, 12, 30, tzinfo=UTC)


def examples() -> dict[str, tuple[str, list[list[Any]]]]:
    """Return name → query and rows."""
    text = (HERE / "examples.kql").read_text(encoding="utf-8")
    found = re.findall(r"^// (.+)\n((?:.*\n)+?)//= (.+)$", text.split("\n\n", 1)[1], re.MULTILINE)
    return {name: (query, json.loads(rows)) for name, query, rows in found}


EXAMPLES: Final = examples()


@pytest.fixture(scope="module")
def read() -> dict[str, Analysis]:
    """Return the examples as the language service reads them: one run of it for all."""
    return analyse(
        {name: text for name, (text, _) in EXAMPLES.items()} | {"unknown": "print cosmos = geo_distance_2points(1,2,3,4)"}
    )


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_evaluator_does_as_documented(name: str, read: dict[str, Analysis]) -> None:
    """What the documentation shows is what comes out."""
    answer = run(read[name], {}, NOW)

    rows = [[row[column] for column in answer.names] for row in answer.rows]
    assert EXAMPLES[name][1] == json.loads(json.dumps(rows, default=shown))


def shown(value: object) -> str:
    """Return a time or a span as the examples write it."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def test_what_is_not_known_is_refused(read: dict[str, Analysis]) -> None:
    """A guess would prove nothing."""
    with pytest.raises(UnsupportedError, match="geo_distance_2points"):
        run(read["unknown"], {}, NOW)


def test_a_table_has_all_its_columns_and_no_others() -> None:
    """A row with a column that Log Analytics does not have would be a translation that lies."""
    made = table("AppMetrics", [{"Name": "x"}])

    assert {"Name": "x", "Sum": None, "OperationId": ""}.items() <= made.rows[0].items()
    with pytest.raises(ValueError, match="AppMetrics has no column Value"):
        table("AppMetrics", [{"Value": 1}])

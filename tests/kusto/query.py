"""Queries, run over rows: what a workspace would answer, as far as Microsoft's documentation says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from tests.kusto.expressions import let, result
from tests.kusto.official import TABLES, Analysis
from tests.kusto.operators import tabulate
from tests.kusto.scope import Scope, Table
from tests.kusto.values import Row, absent


def table(name: str, rows: Sequence[Row]) -> Table:
    """Return rows as a workspace's table: every column is there; one that it does not have raises `ValueError`."""
    columns = tuple(TABLES[name].items())
    unknown = {column for row in rows for column in row} - {column for column, _ in columns}
    if unknown:
        message = f"{name} has no column {min(unknown)}."
        raise ValueError(message)
    return Table(columns, [{column: row.get(column, absent(kind)) for column, kind in columns} for row in rows])


def run(query: Analysis, tables: Mapping[str, Table], now: datetime) -> Table:
    """Return what a query gives of tables at a time. Raise `ValueError` when it has problems."""
    if query.problems:
        message = "\n".join(query.problems)
        raise ValueError(message)
    scope = Scope(now, tables, tabulate)
    answer: Table | None = None
    for statement in query.tree.nodes("Statements"):
        if statement.kind == "LetStatement":
            scope = let(statement, scope)
        else:
            found = result(statement.node("Expression"), scope)
            assert isinstance(found, Table)
            answer = found
    assert answer is not None
    return answer

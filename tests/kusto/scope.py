"""What an expression of a query can see: the time, the tables, what `let` named, and the row or group it is about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime

from tests.kusto.official import Column, Node
from tests.kusto.values import Row, Value


@dataclass(frozen=True, slots=True)
class Table:
    """Rows, and the names and types of their columns in order."""

    columns: tuple[Column, ...]
    rows: Sequence[Row]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the columns' names."""
        return tuple(name for name, _ in self.columns)


@dataclass(frozen=True, slots=True)
class Function:
    """A lambda that `let` named, with what it could see there."""

    declaration: Node
    scope: Scope


@dataclass(frozen=True, slots=True)
class Scope:
    """What can be seen. ``rows`` and ``at`` are the table around a row in `extend` and `project`, for `prev` and the like."""

    now: datetime
    tables: Mapping[str, Table]
    tabular: Callable[[Node, Scope], Table]
    """Evaluates a table's expression."""
    names: Mapping[str, Value | Table | Function] = field(default_factory=dict)
    row: Row = field(default_factory=dict)
    rows: Sequence[Row] = ()
    at: int = 0
    group: Sequence[Row] | None = None
    """The rows that aggregates are about."""

    def about(self, row: Row) -> Scope:
        """Return the scope of one row."""
        return replace(self, row=row, group=None)

    def within(self, rows: Sequence[Row], at: int) -> Scope:
        """Return the scope of a row among others."""
        return replace(self, row=rows[at], rows=rows, at=at, group=None)

    def over(self, group: Sequence[Row]) -> Scope:
        """Return the scope of a group of rows."""
        return replace(self, group=group, row={})

    def naming(self, name: str, value: Value | Table | Function) -> Scope:
        """Return a scope with a further name."""
        return replace(self, names={**self.names, name: value})

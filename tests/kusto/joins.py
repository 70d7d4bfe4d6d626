"""`join` and `lookup`. Keys that are null join nothing; a column without a partner is null, or "" when it is a string."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from tests.kusto.official import Column, Node
from tests.kusto.scope import Table
from tests.kusto.values import Row, UnsupportedError, Value, absent, group_key


@dataclass(frozen=True, slots=True)
class Join:
    """Two tables, the columns that come out, and the conditions: a column both have, or ``$left.a == $right.b``."""

    left: Table
    right: Table
    columns: tuple[Column, ...]
    on: Sequence[Node]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Return the columns that must be equal: the left table's and the right table's."""
        return [_pair(node) for node in self.on]

    def matches(self) -> tuple[list[list[Row]], set[int]]:
        """Return for each row of the left those of the right that match it, and the ids of right rows that matched."""
        index: dict[tuple[Value, ...], list[Row]] = {}
        for row in self.right.rows:
            index.setdefault(_key(row, [name for _, name in self.pairs]), []).append(row)
        lefts = [_key(row, [name for name, _ in self.pairs]) for row in self.left.rows]
        found = [index.get(key, []) if _KNOWN not in key else [] for key in lefts]
        return found, {id(row) for rows in found for row in rows}

    def table(self, lines: Sequence[Sequence[Value]]) -> Table:
        """Return the lines under the columns."""
        names = [name for name, _ in self.columns]
        return Table(self.columns, [dict(zip(names, line, strict=True)) for line in lines])


_KNOWN: Final = (False, None)
"""The group key of null."""
_ALONE: Final[list[Row | None]] = [None]
"""What a row without a partner is joined with."""


def _pair(node: Node) -> tuple[str, str]:
    if node.kind == "NameReference":
        return node.name, node.name
    if node.kind != "EqualExpression":
        message = f"join on {node.kind}"
        raise UnsupportedError(message)
    sides = {node.node(part).node("Expression").name: node.node(part).node("Selector").name for part in ("Left", "Right")}
    return sides["$left"], sides["$right"]


def _key(row: Row, names: Sequence[str]) -> tuple[Value, ...]:
    return tuple(group_key(row[name]) for name in names)


def _line(table: Table, row: Row | None) -> list[Value]:
    return [absent(kind) if row is None else row[name] for name, kind in table.columns]


def _inner(join: Join) -> Table:
    found, _ = join.matches()
    pairs = ((left, right) for left, rights in zip(join.left.rows, found, strict=True) for right in rights)
    return join.table([_line(join.left, left) + _line(join.right, right) for left, right in pairs])


def _inner_unique(join: Join) -> Table:
    names = [name for name, _ in join.pairs]
    first = {_key(row, names): row for row in reversed(join.left.rows)}
    return _inner(Join(Table(join.left.columns, list(first.values())[::-1]), join.right, join.columns, join.on))


def _left_outer(join: Join) -> Table:
    found, _ = join.matches()
    pairs = ((left, right) for left, rights in zip(join.left.rows, found, strict=True) for right in rights or _ALONE)
    return join.table([_line(join.left, left) + _line(join.right, right) for left, right in pairs])


def _full_outer(join: Join) -> Table:
    _, matched = join.matches()
    alone = [_line(join.left, None) + _line(join.right, row) for row in join.right.rows if id(row) not in matched]
    outer = _left_outer(join)
    return Table(join.columns, [*outer.rows, *join.table(alone).rows])


def _left_semi(join: Join) -> Table:
    found, _ = join.matches()
    return Table(join.columns, [row for row, rights in zip(join.left.rows, found, strict=True) if rights])


def _left_anti(join: Join) -> Table:
    found, _ = join.matches()
    return Table(join.columns, [row for row, rights in zip(join.left.rows, found, strict=True) if not rights])


_JOINS: Final[Mapping[str, Callable[[Join], Table]]] = {
    "fullouter": _full_outer,
    "inner": _inner,
    "innerunique": _inner_unique,
    "leftanti": _left_anti,
    "leftouter": _left_outer,
    "leftsemi": _left_semi,
}


def join(tables: Join, kind: str) -> Table:
    """Return a join of a kind."""
    if kind not in _JOINS:
        message = f"join kind={kind}"
        raise UnsupportedError(message)
    return _JOINS[kind](tables)


def lookup(tables: Join, kind: str) -> Table:
    """Return a lookup: a join without the right table's keys."""
    keys = {right for _, right in tables.pairs}
    found, _ = tables.matches()
    kept = Table(tuple(column for column in tables.right.columns if column[0] not in keys), ())
    lines = [
        _line(tables.left, left) + _line(kept, right)
        for left, rights in zip(tables.left.rows, found, strict=True)
        for right in (rights or (_ALONE if kind == "leftouter" else []))
    ]
    return tables.table(lines)

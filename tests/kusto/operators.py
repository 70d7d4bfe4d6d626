"""Tabular operators: a table, the operator's node and a scope → a table. Columns' names and types are the binder's."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cmp_to_key
from typing import Final

from tests.kusto import joins, values
from tests.kusto.expressions import apply, evaluate
from tests.kusto.official import Column, Node
from tests.kusto.scope import Function, Scope, Table
from tests.kusto.values import Row, UnsupportedError, Value, group_key, sort_key


def tabulate(node: Node, scope: Scope) -> Table:
    """Return the table of a tabular expression. Raise `UnsupportedError` for what is not known here."""
    if node.kind == "PipeExpression":
        return operate(tabulate(node.node("Expression"), scope), node.node("Operator"), scope)
    if node.kind in _SOURCES:
        return _SOURCES[node.kind](node, scope)
    message = f"the table {node.kind}"
    raise UnsupportedError(message)


def operate(table: Table, operator: Node, scope: Scope) -> Table:
    """Return what an operator makes of a table."""
    if operator.kind not in _OPERATORS:
        message = f"the operator {operator.kind}"
        raise UnsupportedError(message)
    return _OPERATORS[operator.kind](table, operator, scope)


# ---- where tables come from ----------------------------------------------------------------------------------------------


def _named(node: Node, scope: Scope) -> Table:
    found = scope.names[node.name] if node.name in scope.names else scope.tables.get(node.name)
    if isinstance(found, Function):
        found = apply(found, (), scope)
    if found is None:
        found = Table(node.columns or (), ())
    assert isinstance(found, Table)
    return found


def _called(node: Node, scope: Scope) -> Table:
    name = node.node("Name").name
    if name not in scope.names:
        message = f"the table function {name}()"
        raise UnsupportedError(message)
    found = apply(scope.names[name], node.node("ArgumentList").nodes("Expressions"), scope)
    assert isinstance(found, Table)
    return found


def _inside(node: Node, scope: Scope) -> Table:
    return tabulate(node.node("Expression"), scope)


def _columns(node: Node) -> tuple[Column, ...]:
    assert node.columns is not None, node.kind
    return node.columns


def _rows(columns: Sequence[Column], lines: Sequence[Sequence[Value]]) -> list[Row]:
    return [dict(zip([name for name, _ in columns], line, strict=True)) for line in lines]


def _datatable(node: Node, scope: Scope) -> Table:
    columns = _columns(node)
    given = [evaluate(value, scope) for value in node.nodes("Values")]
    lines = [given[at : at + len(columns)] for at in range(0, len(given), len(columns))]
    return Table(columns, _rows(columns, lines))


def _print(node: Node, scope: Scope) -> Table:
    columns = _columns(node)
    return Table(columns, _rows(columns, [[evaluate(value, scope) for value in node.nodes("Expressions")]]))


def _range(node: Node, scope: Scope) -> Table:
    value, end, step = (evaluate(node.node(part), scope) for part in ("From", "To", "Step"))
    found = []
    while value <= end:
        found.append([value])
        value += step
    return Table(_columns(node), _rows(_columns(node), found))


# ---- columns -------------------------------------------------------------------------------------------------------------


def _extend(table: Table, operator: Node, scope: Scope) -> Table:
    known = {name for name, _ in table.columns}
    unnamed = [name for name in (column for column, _ in _columns(operator)) if name not in known]
    names = [_name_of(node) for node in operator.nodes("Expressions")]
    missing = iter([name for name in unnamed if name not in names])
    named = [name or next(missing) for name in names]
    rows = []
    for at, row in enumerate(table.rows):
        inside = scope.within(table.rows, at)
        extended = {**row}
        for name, node in zip(named, operator.nodes("Expressions"), strict=True):
            extended[name] = _typed(node, evaluate(node, inside))
        rows.append(extended)
    return Table(_columns(operator), rows)


def _name_of(node: Node) -> str:
    if node.kind == "SimpleNamedExpression":
        return node.node("Name").name
    return node.name if node.kind == "NameReference" else ""


def _typed(node: Node, value: Value) -> Value:
    """Keep to the static type: a real column holds no whole numbers, a string column no null."""
    if value is None:
        return values.absent(node.type)
    return float(value) if node.type == "real" and isinstance(value, int) else value


def _project(table: Table, operator: Node, scope: Scope) -> Table:
    nodes = operator.nodes("Expressions")
    insides = (scope.within(table.rows, at) for at in range(len(table.rows)))
    lines = [[_typed(node, evaluate(node, inside)) for node in nodes] for inside in insides]
    return Table(_columns(operator), _rows(_columns(operator), lines))


def _renamed(table: Table, operator: Node, _: Scope) -> Table:
    names = [name for name, _ in _columns(operator)]
    return Table(_columns(operator), [dict(zip(names, (row[name] for name in table.names), strict=True)) for row in table.rows])


def _kept(table: Table, operator: Node, _: Scope) -> Table:
    names = [name for name, _ in _columns(operator)]
    return Table(_columns(operator), [{name: row[name] for name in names} for row in table.rows])


# ---- rows ----------------------------------------------------------------------------------------------------------------


def _where(table: Table, operator: Node, scope: Scope) -> Table:
    condition = operator.node("Condition")
    return Table(table.columns, [row for row in table.rows if evaluate(condition, scope.about(row)) is True])


def _distinct(table: Table, operator: Node, scope: Scope) -> Table:
    star = any(node.kind == "StarExpression" for node in operator.nodes("Expressions"))
    projected = table if star else _project(table, operator, scope)
    kept = {tuple(group_key(row[name]) for name in projected.names): row for row in reversed(projected.rows)}
    return Table(projected.columns, list(kept.values())[::-1])


def _count(table: Table, operator: Node, _: Scope) -> Table:
    return Table(_columns(operator), _rows(_columns(operator), [[len(table.rows)]]))


def _take(table: Table, operator: Node, scope: Scope) -> Table:
    return Table(table.columns, table.rows[: evaluate(operator.node("Expression"), scope)])


def _sorted(table: Table, by: Sequence[Node], scope: Scope) -> Table:
    rows = list(table.rows)
    for node in reversed(by):
        ascending, nulls_first, expression = _ordering(node)
        keys = [sort_key(evaluate(expression, scope.about(row))) for row in rows]

        def compare(
            left: int, right: int, keys: list[tuple[int, Value]] = keys, *, up: bool = ascending, first: bool = nulls_first
        ) -> int:
            one, other = keys[left], keys[right]
            if one[0] != other[0]:
                return -1 if (one[0] == 0) is first else 1
            order = int(one[1] > other[1]) - int(one[1] < other[1])
            return order if up else -order

        rows = [rows[at] for at in sorted(range(len(rows)), key=cmp_to_key(compare))]
    return Table(table.columns, rows)


def _ordering(node: Node) -> tuple[bool, bool, Node]:
    """Return whether a sort is ascending, whether nulls come first, and by what: descending unless it says so."""
    if node.kind != "OrderedExpression":
        return False, False, node
    ordering = node.node("Ordering")
    ascending = ordering.text("AscOrDescKeyword") == "asc"
    clause = ordering.parts.get("NullsClause")
    first = ascending if not isinstance(clause, Node) else clause.text("FirstOrLastKeyword") == "first"
    return ascending, first, node.node("Expression")


def _sort(table: Table, operator: Node, scope: Scope) -> Table:
    return _sorted(table, operator.nodes("Expressions"), scope)


def _top(table: Table, operator: Node, scope: Scope) -> Table:
    sorted_rows = _sorted(table, [operator.node("ByExpression")], scope)
    return Table(table.columns, sorted_rows.rows[: evaluate(operator.node("Expression"), scope)])


# ---- groups --------------------------------------------------------------------------------------------------------------


def _by(operator: Node) -> tuple[Node, ...]:
    clause = operator.parts.get("ByClause")
    return clause.nodes("Expressions") if isinstance(clause, Node) else ()


def grouped(table: Table, by: Sequence[Node], scope: Scope) -> list[tuple[list[Value], list[Row]]]:
    """Return the values of a `by` clause and the rows that have them, in the order they appear in; one group without it."""
    if not by:
        return [([], list(table.rows))]
    groups: dict[tuple[Value, ...], tuple[list[Value], list[Row]]] = {}
    for row in table.rows:
        key = [_typed(node, evaluate(node, scope.about(row))) for node in by]
        groups.setdefault(tuple(group_key(value) for value in key), (key, []))[1].append(row)
    return list(groups.values())


def _summarize(table: Table, operator: Node, scope: Scope) -> Table:
    by, columns = _by(operator), _columns(operator)
    taken = {name for name, _ in columns[: len(by)]}
    lines = []
    for key, rows in grouped(table, by, scope):
        inside = scope.over(rows)
        line = list(key)
        for node in operator.nodes("Aggregates"):
            line.extend(_aggregated(node, inside, taken))
        lines.append(line)
    return Table(columns, _rows(columns, lines))


def _aggregated(node: Node, scope: Scope, taken: set[str]) -> list[Value]:
    """Return the values of one aggregate's columns: those of ``*`` that are grouped by are not given again."""
    call = node.node("Expression") if node.kind in {"SimpleNamedExpression", "CompoundNamedExpression"} else node
    value = evaluate(call, scope)
    if call.columns is None:
        return [_typed(node, value)]
    star = any(argument.kind == "StarExpression" for argument in call.node("ArgumentList").nodes("Expressions"))
    names = [name for name, _ in call.columns]
    return [item for at, item in enumerate(value) if not (star and at > 0 and names[at] in taken)]


def _make_series(table: Table, operator: Node, scope: Scope) -> Table:
    limits = operator.node("RangeClause")
    begin, end, step = (
        evaluate(limits.node(f"MakeSeries{part}Clause").node("Expression"), scope) for part in ("From", "To", "Step")
    )
    points: list[datetime] = []
    while begin + len(points) * step < end:
        points.append(begin + len(points) * step)
    on = operator.node("OnClause").node("Expression")
    lines = []
    for key, rows in grouped(table, _by(operator), scope):
        line = list(key)
        for made in operator.nodes("Aggregates"):
            line += [[_at_point(rows, point, step, (made, on), scope) for point in points]]
        lines.append([*line, points])
    return Table(_columns(operator), _rows(_columns(operator), lines))


def _at_point(rows: Sequence[Row], point: datetime, step: Value, about: tuple[Node, Node], scope: Scope) -> Value:
    made, on = about
    inside = [row for row in rows if point <= evaluate(on, scope.about(row)) < point + step]
    if inside:
        return evaluate(made.node("Expression"), scope.over(inside))
    default = made.parts.get("DefaultExpression")
    return evaluate(default.node("Expression"), scope) if isinstance(default, Node) else 0


def _mv_expand(table: Table, operator: Node, scope: Scope) -> Table:
    (expanded,) = operator.nodes("Expressions")
    node = expanded.node("Expression")
    name, kind = _name_of(node), "dynamic"
    if isinstance(typed := expanded.parts.get("ToTypeOf"), Node):
        kind = typed.node("TypeOf").nodes("Types")[0].text("Type")
    rows: list[Row] = []
    for row in table.rows:
        value = evaluate(node, scope.about(row))
        items = [{key: item} for key, item in value.items()] if isinstance(value, dict) else value
        every = items if isinstance(items, list) else [items]
        rows.extend({**row, name: values.to_kind(item, kind)} for item in every)
    return Table(_columns(operator), rows)


# ---- several tables ------------------------------------------------------------------------------------------------------


def _united(tables: Sequence[Table], columns: tuple[Column, ...]) -> Table:
    rows = [{name: row.get(name, values.absent(kind)) for name, kind in columns} for table in tables for row in table.rows]
    return Table(columns, rows)


def _parameter(operator: Node, name: str) -> str:
    found = [parameter for parameter in operator.nodes("Parameters") if parameter.node("Name").name == name]
    return (found[0].node("Expression").value or found[0].node("Expression").name) if found else ""


def _union(table: Table | None, operator: Node, scope: Scope) -> Table:
    if _parameter(operator, "withsource"):
        message = "union withsource"
        raise UnsupportedError(message)
    tables = [tabulate(node, scope) for node in operator.nodes("Expressions")]
    return _united([*([table] if table else []), *tables], _columns(operator))


def _join(table: Table, operator: Node, scope: Scope) -> Table:
    right = tabulate(operator.node("Expression"), scope)
    kind = _parameter(operator, "kind") or "innerunique"
    return joins.join(joins.Join(table, right, _columns(operator), operator.node("ConditionClause").nodes("Expressions")), kind)


def _lookup(table: Table, operator: Node, scope: Scope) -> Table:
    right = tabulate(operator.node("Expression"), scope)
    kind = _parameter(operator, "kind") or "leftouter"
    return joins.lookup(joins.Join(table, right, _columns(operator), operator.node("LookupClause").nodes("Expressions")), kind)


def _same(table: Table, _: Node, __: Scope) -> Table:
    return table


_SOURCES: Final[Mapping[str, Callable[[Node, Scope], Table]]] = {
    "DataTableExpression": _datatable,
    "FunctionCallExpression": _called,
    "MaterializeExpression": _inside,
    "NameReference": _named,
    "ParenthesizedExpression": _inside,
    "PrintOperator": _print,
    "RangeOperator": _range,
    "UnionOperator": lambda node, scope: _union(None, node, scope),
}
_OPERATORS: Final[Mapping[str, Callable[[Table, Node, Scope], Table]]] = {
    "CountOperator": _count,
    "DistinctOperator": _distinct,
    "ExtendOperator": _extend,
    "FilterOperator": _where,
    "JoinOperator": _join,
    "LookupOperator": _lookup,
    "MakeSeriesOperator": _make_series,
    "MvExpandOperator": _mv_expand,
    "ProjectAwayOperator": _kept,
    "ProjectKeepOperator": _kept,
    "ProjectOperator": _project,
    "ProjectRenameOperator": _renamed,
    "ProjectReorderOperator": _kept,
    "RenderOperator": _same,
    "SerializeOperator": _extend,
    "SortOperator": _sort,
    "SummarizeOperator": _summarize,
    "TakeOperator": _take,
    "TopOperator": _top,
    "UnionOperator": _union,
}

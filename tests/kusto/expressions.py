"""Scalar expressions: a node of the tree and a scope → a value."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Final

from tests.kusto import aggregates, scalars, values
from tests.kusto.official import Node
from tests.kusto.scope import Function, Scope, Table
from tests.kusto.values import UnsupportedError, Value

Evaluate = Callable[[Node, Scope], Value]


def evaluate(node: Node, scope: Scope) -> Value:
    """Return what an expression is in a scope. Raise `UnsupportedError` for what is not known here."""
    if node.kind in _OPERATORS:
        return _OPERATORS[node.kind](evaluate(node.node("Left"), scope), evaluate(node.node("Right"), scope))
    if node.kind not in _KINDS:
        message = f"the expression {node.kind}"
        raise UnsupportedError(message)
    return _KINDS[node.kind](node, scope)


def result(node: Node, scope: Scope) -> Value | Table:
    """Return a table of a tabular expression, else a value."""
    return scope.tabular(node, scope) if tabular(node) else evaluate(node, scope)


def tabular(node: Node) -> bool:
    """Say whether an expression is a table."""
    return node.columns is not None


# ---- names and literals --------------------------------------------------------------------------------------------------


def _name(node: Node, scope: Scope) -> Value:
    if node.name in scope.row:
        return scope.row[node.name]
    if node.name in scope.names:
        return scope.names[node.name]
    message = f"the name {node.name}"
    raise UnsupportedError(message)


def _named(node: Node, scope: Scope) -> Value:
    return evaluate(node.node("Expression"), scope)


def _literal(node: Node, _: Scope) -> Value:
    if node.value is None or re.fullmatch(r"\w+\(null\)", node.text("Token")):
        return values.absent(node.type)
    if node.type in {"datetime", "timespan"}:
        inside = re.fullmatch(r"\w+\((.*)\)", node.text("Token"))
        return values.to_kind(inside[1].strip("'\" ") if inside else node.text("Token"), node.type)
    if node.type == "real":
        return {"real(+inf)": math.inf, "real(-inf)": -math.inf, "real(nan)": math.nan}.get(node.text("Token")) or float(
            node.value
        )
    return node.value if node.type == "string" else values.to_kind(node.value, node.type)


def _compound_string(node: Node, _: Scope) -> Value:
    return node.value


def _dynamic(node: Node, scope: Scope) -> Value:
    return None if node.value in {None, "null"} else _json(node.node("Expression"), scope)


def _json(node: Node, scope: Scope) -> Value:
    if node.kind == "JsonArrayExpression":
        return [_json(value, scope) for value in node.nodes("Values")]
    if node.kind == "JsonObjectExpression":
        return {pair.text("Name")[1:-1]: _json(pair.node("Value"), scope) for pair in node.nodes("Pairs")}
    return evaluate(node, scope)


# ---- operators -----------------------------------------------------------------------------------------------------------


def _ordering(holds: Callable[[int], bool]) -> Callable[[Value, Value], bool | None]:
    def compared(left: Value, right: Value) -> bool | None:
        order = values.compare(left, right)
        return None if order is None else holds(order)

    return compared


def _unequal(left: Value, right: Value) -> bool | None:
    same = values.equal(left, right)
    return None if same is None else not same


def _both(left: Value, right: Value) -> bool | None:
    if left is False or right is False:
        return False
    return None if left is None or right is None else True


def _either(left: Value, right: Value) -> bool | None:
    if left is True or right is True:
        return True
    return None if left is None or right is None else False


def _has(text: str, term: str) -> bool:
    return re.search(rf"(?<![A-Za-z0-9]){re.escape(term)}(?![A-Za-z0-9])", text, re.IGNORECASE) is not None


def _on_text(holds: Callable[[str, str], bool], *, not_so: bool = False) -> Callable[[Value, Value], bool]:
    return lambda left, right: holds(values.to_string(left), values.to_string(right)) is not not_so


_OPERATORS: Final[Mapping[str, Callable[[Value, Value], Value]]] = {
    "AddExpression": values.add,
    "SubtractExpression": values.subtract,
    "MultiplyExpression": values.multiply,
    "DivideExpression": values.divide,
    "ModuloExpression": values.modulo,
    "EqualExpression": values.equal,
    "NotEqualExpression": _unequal,
    "LessThanExpression": _ordering(lambda order: order < 0),
    "LessThanOrEqualExpression": _ordering(lambda order: order <= 0),
    "GreaterThanExpression": _ordering(lambda order: order > 0),
    "GreaterThanOrEqualExpression": _ordering(lambda order: order >= 0),
    "AndExpression": _both,
    "OrExpression": _either,
    "HasExpression": _on_text(_has),
    "NotHasExpression": _on_text(_has, not_so=True),
    "ContainsExpression": _on_text(lambda text, part: part.lower() in text.lower()),
    "NotContainsExpression": _on_text(lambda text, part: part.lower() in text.lower(), not_so=True),
    "ContainsCsExpression": _on_text(lambda text, part: part in text),
    "StartsWithExpression": _on_text(lambda text, part: text.lower().startswith(part.lower())),
    "NotStartsWithExpression": _on_text(lambda text, part: text.lower().startswith(part.lower()), not_so=True),
    "EndsWithExpression": _on_text(lambda text, part: text.lower().endswith(part.lower())),
    "EqualTildeExpression": _on_text(lambda left, right: left.lower() == right.lower()),
    "BangTildeExpression": _on_text(lambda left, right: left.lower() == right.lower(), not_so=True),
    "MatchesRegexExpression": _on_text(lambda text, pattern: re.search(pattern, text) is not None),
}


def _members(node: Node, scope: Scope) -> list[Value]:
    found: list[Value] = []
    for item in node.nodes("Expressions"):
        member = result(item, scope)
        if isinstance(member, Table):
            found.extend(row[member.names[0]] for row in member.rows)
        else:
            found.extend(member if isinstance(member, list) else [member])
    return found


def _in(node: Node, scope: Scope) -> bool:
    left = evaluate(node.node("Left"), scope)
    members = _members(node.node("Right"), scope)
    if node.text("Operator").endswith("~"):
        found = any(str(left).lower() == str(member).lower() for member in members)
    else:
        found = any(values.equal(left, member) for member in members)
    return found is not node.kind.startswith("NotIn")


def _has_any(node: Node, scope: Scope) -> bool:
    left = values.to_string(evaluate(node.node("Left"), scope))
    return any(_has(left, values.to_string(term)) for term in _members(node.node("Right"), scope))


def _between(node: Node, scope: Scope) -> bool | None:
    left = evaluate(node.node("Left"), scope)
    low = evaluate(node.node("Right").node("First"), scope)
    high = evaluate(node.node("Right").node("Second"), scope)
    high = low + high if isinstance(high, timedelta) and not isinstance(low, timedelta) else high
    if left is None or low is None or high is None:
        return None
    return (low <= left <= high) is not node.kind.startswith("Not")


def _negative(node: Node, scope: Scope) -> Value:
    value = evaluate(node.node("Expression"), scope)
    return None if value is None else -value


# ---- dynamic access ------------------------------------------------------------------------------------------------------


def _path(node: Node, scope: Scope) -> Value:
    selector = node.node("Selector")
    return _element_of(evaluate(node.node("Expression"), scope), selector.name)


def _element(node: Node, scope: Scope) -> Value:
    at = evaluate(node.node("Selector").node("Expression"), scope)
    return _element_of(evaluate(node.node("Expression"), scope), at)


def _element_of(value: Value, at: str | int) -> Value:
    if isinstance(value, dict):
        return value.get(at)
    if isinstance(value, list) and isinstance(at, int) and -len(value) <= at < len(value):
        return value[at]
    return None


# ---- functions -----------------------------------------------------------------------------------------------------------


def _call(node: Node, scope: Scope) -> Value:
    name = node.node("Name").name
    arguments = node.node("ArgumentList").nodes("Expressions")
    if name in scope.names:
        return apply(scope.names[name], arguments, scope)
    if name in aggregates.NAMES and scope.group is not None:
        return _aggregate(node, name, arguments, scope)
    if name in _LAZY:
        return _LAZY[name](arguments, scope)
    return scalars.call(name, [evaluate(argument, scope) for argument in arguments])


def apply(function: Value | Table | Function, arguments: tuple[Node, ...], scope: Scope) -> Value | Table:
    """Return what a lambda gives of its arguments; something else that `let` named is given as it is."""
    if not isinstance(function, Function):
        return function
    inside = function.scope
    parameters = function.declaration.node("Parameters").nodes("Parameters")
    for at, parameter in enumerate(parameters):
        given = arguments[at] if at < len(arguments) else parameter.node("DefaultValue").node("Value")
        declared = parameter.node("NameAndType")
        of_table = declared.node("Type").kind == "SchemaTypeExpression"
        value = scope.tabular(given, scope) if of_table else evaluate(given, scope)
        inside = inside.naming(declared.node("Name").name, value)
    body = function.declaration.node("Body")
    for statement in body.nodes("Statements"):
        inside = let(statement, inside)
    return result(body.node("Expression"), inside)


def let(statement: Node, scope: Scope) -> Scope:
    """Return the scope after a `let` statement."""
    name, expression = statement.node("Name").name, statement.node("Expression")
    if expression.kind == "FunctionDeclaration":
        return scope.naming(name, Function(expression, scope))
    return scope.naming(name, result(expression, scope))


def _aggregate(node: Node, name: str, arguments: tuple[Node, ...], scope: Scope) -> Value:
    rows = scope.group or ()
    if name == "count":
        return len(rows)
    if name in aggregates.PICKING:
        return _picked(node, arguments, scope)
    of_rows = aggregates.OF_ROWS.get(name, len(arguments))
    columns = [[evaluate(argument, scope.about(row)) for row in rows] for argument in arguments[:of_rows]]
    columns += [[evaluate(argument, scope)] for argument in arguments[of_rows:]]
    if name in aggregates.MANY:
        return aggregates.MANY[name](columns)
    value = aggregates.ONE[name](columns)
    return float(value) if node.type == "real" and isinstance(value, int) else value


def _picked(node: Node, arguments: tuple[Node, ...], scope: Scope) -> list[Value]:
    """Return the values of the columns that `arg_max` or `arg_min` gives, in the order of the node's columns."""
    rows = scope.group or ()
    at = aggregates.picked(node.node("Name").name, [evaluate(arguments[0], scope.about(row)) for row in rows])
    kinds = [kind for _, kind in node.columns] if node.columns else [node.type]
    if at is None:
        return [values.absent(kind) for kind in kinds]
    inside = scope.about(rows[at])
    if len(arguments) > 1 and arguments[1].kind == "StarExpression":
        names = [name for name, _ in node.columns or ()]
        return [evaluate(arguments[0], inside), *(rows[at][name] for name in names[1:])]
    return [evaluate(argument, inside) for argument in arguments]


def _iff(arguments: tuple[Node, ...], scope: Scope) -> Value:
    condition, then, other = arguments
    return evaluate(then if evaluate(condition, scope) else other, scope)


def _case(arguments: tuple[Node, ...], scope: Scope) -> Value:
    for condition, then in zip(arguments[:-1:2], arguments[1::2], strict=False):
        if evaluate(condition, scope):
            return evaluate(then, scope)
    return evaluate(arguments[-1], scope)


def _coalesce(arguments: tuple[Node, ...], scope: Scope) -> Value:
    found: Value = None
    for argument in arguments:
        found = evaluate(argument, scope)
        if found not in {None, ""} if not isinstance(found, dict | list) else True:
            return found
    return found


def _now(arguments: tuple[Node, ...], scope: Scope) -> Value:
    return values.add(scope.now, evaluate(arguments[0], scope)) if arguments else scope.now


def _ago(arguments: tuple[Node, ...], scope: Scope) -> Value:
    return values.subtract(scope.now, evaluate(arguments[0], scope))


def _toscalar(arguments: tuple[Node, ...], scope: Scope) -> Value:
    given = result(arguments[0], scope)
    if not isinstance(given, Table):
        return given
    return given.rows[0][given.names[0]] if given.rows else values.absent(given.columns[0][1])


def _neighbour(sign: int) -> Callable[[tuple[Node, ...], Scope], Value]:
    def found(arguments: tuple[Node, ...], scope: Scope) -> Value:
        steps = evaluate(arguments[1], scope) if len(arguments) > 1 else 1
        at = scope.at + sign * steps
        if 0 <= at < len(scope.rows):
            return evaluate(arguments[0], scope.within(scope.rows, at))
        return evaluate(arguments[2], scope) if len(arguments) > 2 else values.absent(arguments[0].type)

    return found


def _row_cumsum(arguments: tuple[Node, ...], scope: Scope) -> Value:
    total: Value = None
    for at in range(scope.at + 1):
        here = scope.within(scope.rows, at)
        term = evaluate(arguments[0], here)
        restart = len(arguments) > 1 and evaluate(arguments[1], here)
        total = term if restart or total is None else values.add(total, term)
    return total


def _row_number(arguments: tuple[Node, ...], scope: Scope) -> Value:
    if len(arguments) > 1:
        message = "row_number that starts again"
        raise UnsupportedError(message)
    return scope.at + (evaluate(arguments[0], scope) if arguments else 1)


_LAZY: Final[Mapping[str, Callable[[tuple[Node, ...], Scope], Value]]] = {
    "ago": _ago,
    "case": _case,
    "coalesce": _coalesce,
    "iff": _iff,
    "iif": _iff,
    "next": _neighbour(1),
    "now": _now,
    "prev": _neighbour(-1),
    "row_cumsum": _row_cumsum,
    "row_number": _row_number,
    "toscalar": _toscalar,
}
"""Functions that do not just take their arguments' values."""

_KINDS: Final[Mapping[str, Evaluate]] = {
    "BetweenExpression": _between,
    "BooleanLiteralExpression": _literal,
    "CompoundStringLiteralExpression": _compound_string,
    "DateTimeLiteralExpression": _literal,
    "DynamicExpression": _dynamic,
    "ElementExpression": _element,
    "FunctionCallExpression": _call,
    "HasAnyExpression": _has_any,
    "InExpression": _in,
    "InCsExpression": _in,
    "IntLiteralExpression": _literal,
    "LongLiteralExpression": _literal,
    "NameReference": _name,
    "NotBetweenExpression": _between,
    "NotInExpression": _in,
    "NotInCsExpression": _in,
    "ParenthesizedExpression": _named,
    "NullLiteralExpression": lambda _, __: None,
    "PathExpression": _path,
    "RealLiteralExpression": _literal,
    "SimpleNamedExpression": _named,
    "StringLiteralExpression": _literal,
    "TimespanLiteralExpression": _literal,
    "ToScalarExpression": lambda node, scope: _toscalar((node.node("Expression"),), scope),
    "UnaryMinusExpression": _negative,
}

"""What Microsoft's own language service says of queries: what is wrong with them, which columns they give, how they are read.

No Kusto engine runs outside of Azure, but its parser and binder do: the package the portal's editor uses. It knows the tables
from tables.json, as Microsoft documents them.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.node_package import install

HERE: Final = Path(__file__).resolve().parent
PACKAGE: Final = "@kusto/language-service-next"
TABLES: Final[Mapping[str, Mapping[str, str]]] = json.loads((HERE / "tables.json").read_text(encoding="utf-8"))["tables"]
"""Table → column → type."""
SECONDS: Final = 120.0

Column = tuple[str, str]
"""A name and a type."""


@dataclass(frozen=True, slots=True)
class Node:
    """A piece of a query as the binder understood it.

    ``columns`` is there when it is a table's, ``type`` when it is a scalar's, ``name`` when it names something, ``value`` when
    it is a literal, as text. ``parts`` are nodes, tokens' texts or lists of both.
    """

    kind: str
    type: str = ""
    columns: tuple[Column, ...] | None = None
    name: str = ""
    value: str | None = None
    parts: Mapping[str, Any] = field(default_factory=dict)

    def node(self, part: str) -> Node:
        """Return a part that is a node."""
        found = self.parts[part]
        assert isinstance(found, Node), (self.kind, part)
        return found

    def nodes(self, part: str) -> tuple[Node, ...]:
        """Return a part that is a list of nodes; empty when it is absent."""
        return tuple(self.parts.get(part) or ())

    def text(self, part: str) -> str:
        """Return a part that is a token; "" when it is absent."""
        return str(self.parts.get(part) or "")


@dataclass(frozen=True, slots=True)
class Analysis:
    """One query: its problems as sentences, the columns it gives, and its tree."""

    problems: tuple[str, ...]
    columns: tuple[Column, ...]
    tree: Node


def analyse(queries: Mapping[str, str], tables: Mapping[str, Mapping[str, str]] = TABLES) -> dict[str, Analysis]:
    """Return what the language service says of each query. Raise `RuntimeError` when it can't be run."""
    install(HERE, PACKAGE, "queries are checked with Microsoft's language service, a Node program")
    question = json.dumps({"tables": tables, "queries": queries})
    command = ["node", str(HERE / "check.cjs")]
    done = subprocess.run(command, input=question, capture_output=True, text=True, check=False, timeout=SECONDS)  # noqa: S603
    if done.returncode != 0:
        message = f"The language service failed: {done.stderr.strip()[-1000:]}"
        raise RuntimeError(message)
    return {name: _analysis(answer) for name, answer in json.loads(done.stdout).items()}


def _analysis(answer: Mapping[str, Any]) -> Analysis:
    problems = tuple(f"line {found['line']}, {found['text']!r}: {found['message']}" for found in answer["problems"])
    tree = _read(answer["tree"])
    assert isinstance(tree, Node)
    return Analysis(problems, tuple((name, kind) for name, kind in answer["columns"]), tree)


def _read(value: object) -> Any:
    if isinstance(value, list):
        return tuple(_read(item) for item in value)
    if not isinstance(value, dict):
        return value
    columns = value.get("columns")
    return Node(
        value["kind"],
        value.get("type", ""),
        None if columns is None else tuple((name, kind) for name, kind in columns),
        value.get("name", ""),
        value.get("value"),
        {name: _read(part) for name, part in value["parts"].items()},
    )

"""The table of faults is true: every test it names exists, and every fault has one."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

HERE = Path(__file__).parent
FAULTS = {22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 34, 36, 37}
ROW = re.compile(r"^\| (\d+) [^|]+\|[^|]+\|([^|]+)\|$", re.MULTILINE)


@cache
def names_in(path: Path) -> frozenset[str]:
    """Return the names of a file's tests."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = {node.name for node in ast.parse(path.read_text()).body if isinstance(node, kinds)}
    return frozenset(name for name in found if name.startswith("test_"))


def table() -> dict[int, list[tuple[Path, str]]]:
    """Return the tests of each fault, as the table has them."""
    rows = ROW.findall((HERE / "README.md").read_text())
    return {
        int(number): [
            ((HERE / path).resolve(), name) for path, _, name in (each.partition("::") for each in ids.split("`")[1::2])
        ]
        for number, ids in rows
    }


def test_every_fault_has_a_test_of_its_own() -> None:
    """One here, named after it, through the whole gateway; and no fault is in the table that is not asked for."""
    assert table().keys() == FAULTS
    for number, tests in table().items():
        assert any(path.parent == HERE and name.startswith(f"test_{number}_") for path, name in tests)


def test_every_test_named_exists() -> None:
    """By its path and its name."""
    missing = [f"{path}::{name}" for tests in table().values() for path, name in tests if name not in names_in(path)]
    assert [] == missing


def test_every_numbered_test_is_in_the_table() -> None:
    """Nothing that proves a fault is forgotten."""
    named = {name for tests in table().values() for _, name in tests}
    numbered = {name for path in HERE.glob("test_*.py") for name in names_in(path) if re.match(r"test_\d", name)}
    assert numbered <= named

"""Imports point one way."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A module may import from lower layers and from its own; within a layer, only what is named as one piece.
LAYERS = (
    ("function_app",),
    ("functions", "local"),
    ("shared.bootstrap",),
    ("shared.background", "shared.batching"),
    ("shared.chain_outcomes",),
    ("shared.executor",),
    ("shared.execution",),
    ("shared.spending", "shared.recovery", "shared.rights", "shared.gauges"),
    ("shared.gateway",),
    ("shared.feedback", "shared.alerts", "shared.shared_health"),
    (
        "shared.usage",
        "shared.metrics",
        "shared.keys",
        "shared.budgets",
        "shared.ledger",
        "shared.limits",
        "shared.projects",
        "shared.idempotency",
        "shared.health_book",
        "shared.catalog",
        "shared.settings",
        "shared.adapters",
        "shared.chains",
        "shared.engines",
        "shared.responses",
        "shared.files",
        "shared.batches",
        "shared.traffic",
    ),
    ("shared.pieces", "shared.stored", "shared.tracing"),
    ("shared.ports",),
    ("shared.core",),
)
MAY_CROSS = {("local", "functions"), ("local", "function_app")}
"""The local host serves the very handlers Azure does."""

ONE_FILE_ONLY = {
    "azure.durable_functions": "functions/chains.py",
    "azure.identity": "shared/adapters/entra.py",
    "aiohttp": "shared/adapters/transport.py",
    "sqlite3": "shared/adapters/tables/",
    "yaml": "shared/catalog/",
    "jwt": "shared/adapters/entra_jwt.py",
    "redis": "shared/adapters/redis_limits.py",
    "azure.monitor": "shared/adapters/telemetry/azure_monitor.py",
    "opentelemetry": "shared/adapters/telemetry/",
    "azure.data.tables": "tests/contracts/sdk_tables.py",
}
"""Outside libraries that one adapter owns; the simulator is a server of its own."""

STANDARD = set(sys.stdlib_module_names) | {"__future__"}


def _modules() -> list[Path]:
    folders = ("shared", "functions", "local")
    return sorted([*(path for folder in folders for path in (ROOT / folder).rglob("*.py")), ROOT / "function_app.py"])


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute here"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _layer(module: str) -> tuple[int, str] | None:
    for depth, layer in enumerate(LAYERS):
        for piece in layer:
            if module == piece or module.startswith(piece + "."):
                return depth, piece
    return None


@pytest.mark.parametrize("path", _modules(), ids=_name)
def test_a_module_imports_only_from_below(path: Path) -> None:
    """No module reaches up, or sideways into a sibling."""
    own = _layer(_name(path))
    for imported in _imported(path):
        other = _layer(imported)
        if own is None or other is None or own[1] == other[1] or (own[1], other[1]) in MAY_CROSS:
            continue
        assert own[0] < other[0], f"{_name(path)} ({own[1]}) imports {imported}"


@pytest.mark.parametrize("path", sorted((ROOT / "shared" / "core").rglob("*.py")), ids=_name)
def test_the_core_needs_only_the_standard_library(path: Path) -> None:
    """The core is pure: no third-party package, and nothing of the standard library that does I/O or tells the time."""
    impure = {"asyncio", "os", "random", "secrets", "socket", "subprocess", "threading", "time", "logging", "pathlib", "io"}
    for imported in _imported(path):
        top = imported.split(".")[0]
        assert top == "shared" or (top in STANDARD and top not in impure), f"{_name(path)} imports {imported}"


@pytest.mark.parametrize("path", sorted((ROOT / "shared").rglob("*.py")), ids=_name)
def test_azure_stays_at_the_edge(path: Path) -> None:
    """Nothing in shared/ knows the Functions host."""
    for imported in _imported(path):
        assert not imported.startswith(("azure.functions", "azurefunctions", "starlette", "fastapi", "uvicorn")), imported


@pytest.mark.parametrize("path", sorted([*(ROOT / "shared").rglob("*.py"), *(ROOT / "functions").rglob("*.py")]), ids=_name)
def test_a_library_has_one_owner(path: Path) -> None:
    """A library that an adapter wraps is imported in that adapter only."""
    place = path.relative_to(ROOT).as_posix()
    for imported in _imported(path):
        for library, owner in ONE_FILE_ONLY.items():
            if imported == library or imported.startswith(library + "."):
                assert place.startswith(owner), f"{place} imports {imported}, which belongs to {owner}"


def test_adapters_do_not_know_each_other() -> None:
    """Each adapter can be replaced alone."""
    adapters = ROOT / "shared" / "adapters"
    pieces = {path.stem if path.is_file() else path.name for path in adapters.iterdir()} - {"__init__", "__pycache__"}
    for path in adapters.rglob("*.py"):
        own = path.relative_to(adapters).parts[0].removesuffix(".py")
        for imported in _imported(path):
            parts = imported.split(".")
            if parts[:2] == ["shared", "adapters"] and len(parts) > 2 and parts[2] in pieces:
                assert parts[2] == own, f"{path.name} imports {imported}"


def _uses(tree: ast.AST, owner: str, attribute: str) -> bool:
    """Say whether code reads ``owner.attribute``, or ``something.owner.attribute``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr == attribute:
            name = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if name == owner:
                return True
    return False


def test_there_is_no_way_to_a_provider_around_the_ledger() -> None:
    """One module calls providers, and it can only do so with money held: what it sends is a `Sent`, which has a `Held`."""
    using = {_name(path) for path in _modules() if _uses(ast.parse(path.read_text(encoding="utf-8")), "gateway", "providers")}
    making = {_name(path) for path in _modules() if "shared.adapters.providers.providers" in _imported(path)}
    calls = {_name(path) for path in _modules() if "shared.ports.Call" in _imported(path)}

    assert using == {"shared.execution"}
    assert making == {"shared.bootstrap"}
    assert {name for name in calls if not name.startswith("shared.adapters.")} == {"shared.execution"}
    held = next(node for node in ast.walk(ast.parse((ROOT / "shared" / "execution.py").read_text())) if _is_class(node, "Sent"))
    assert "held: Held" in {ast.unparse(line) for line in getattr(held, "body", [])}


def _is_class(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.ClassDef) and node.name == name

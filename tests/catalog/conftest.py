"""A catalog file on disk, a store, and time that is moved by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from shared.adapters.tables import open_tables
from shared.catalog import CatalogSource
from shared.ports import Tables
from tests.catalog_samples import ENVIRONMENT, GOOD
from tests.fakes import FakeClock


@pytest.fixture
async def tables() -> AsyncIterator[Tables]:
    """Return an empty store."""
    opened = open_tables("memory:")
    yield opened
    await opened.aclose()


@pytest.fixture
def clock() -> FakeClock:
    """Return time that stands still."""
    return FakeClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a good catalog's file."""
    file = tmp_path / "models.yaml"
    file.write_text(GOOD, encoding="utf-8")
    return file


@pytest.fixture
def environment() -> dict[str, str]:
    """Return an environment that a test may change."""
    return dict(ENVIRONMENT)


@pytest.fixture
def open_source(path: Path, environment: dict[str, str], tables: Tables, clock: FakeClock) -> Callable[[], CatalogSource]:
    """Return what opens an instance over the same file and store."""
    return lambda: CatalogSource(str(path), environment=environment, tables=tables, clock=clock)


@pytest.fixture
def source(open_source: Callable[[], CatalogSource]) -> CatalogSource:
    """Return one instance."""
    return open_source()

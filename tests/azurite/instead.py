"""Puts the emulator in the place of every ``memory:`` store: ``pytest -p tests.azurite.instead tests/stores``.

For runs by hand. Each store gets tables of its own, told by a prefix, and is closed with its own HTTP client.
"""

from __future__ import annotations

import itertools
import sys
from typing import Final

import pytest

from shared.adapters import tables as adapter
from shared.adapters.clock import SystemClock
from shared.adapters.transport import open_transport
from shared.ports import EntityTable, Tables
from tests.azurite.process import Azurite

_OPEN: Final = adapter.open_tables
_NUMBERS: Final = itertools.count(1)
_EMULATOR: Final = Azurite()


class OwnTables:
    """The tables of one store in the emulator that all share."""

    def __init__(self) -> None:
        self._transport = open_transport()
        self._tables = _OPEN(_EMULATOR.setting, transport=self._transport, clock=SystemClock())
        self._prefix = f"t{next(_NUMBERS)}x"

    def table(self, name: str) -> EntityTable:
        """Return the store's own table of that name."""
        return self._tables.table(self._prefix + name)

    async def aclose(self) -> None:
        """Close the store, then its client."""
        await self._tables.aclose()
        await self._transport.aclose()


def _open(url: str, **needs: object) -> Tables:
    return OwnTables() if url == "memory:" else _OPEN(url, **needs)  # type: ignore[arg-type]  # passed on as they came


# Now, when the plugin is imported: before any conftest or test module, which import the function by its name.
adapter.open_tables = _open


def pytest_configure(config: pytest.Config) -> None:
    """Start the emulator."""
    del config
    _EMULATOR.start()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop it, and say how many stores there were."""
    del config
    _EMULATOR.stop()
    sys.stdout.write(f"\n{next(_NUMBERS) - 1} stores in the emulator\n")

"""The edge as the tests of faults need it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest

from shared.adapters.clock import SystemClock
from shared.adapters.tables import open_tables
from shared.adapters.transport import open_transport
from shared.ports import Tables
from tests.azurite.process import Azurite
from tests.faults.money import over
from tests.faults.wire import Wire, wired
from tests.functions.harness import Edge


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    """Return the running edge over a store in memory."""
    async with over("memory:") as found:
        yield found


@pytest.fixture
async def wire(azurite: Azurite) -> AsyncIterator[Wire]:
    """Return a wire before the shared emulator, emptied."""
    azurite.clear()
    async with wired(azurite) as found:
        yield found


@pytest.fixture(scope="module")
def _own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    with Azurite(tmp_path_factory.mktemp("azurite")) as running:
        yield running


@pytest.fixture
def own(_own: Azurite) -> Azurite:
    """Return an emulator that a test may freeze, or kill and start again, emptied, with a folder to survive in."""
    _own.clear()
    return _own


@pytest.fixture
async def elsewhere(azurite: Azurite) -> AsyncIterator[Tables]:
    """Return the shared emulator's tables as another instance reaches them: past the wire."""
    transport = open_transport(trust_env=False)
    tables = open_tables(azurite.setting, transport=transport, clock=SystemClock())
    yield tables
    await tables.aclose()
    await transport.aclose()

"""The loops that contracts are held on, and the transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping

import pytest
import uvloop

from shared.adapters.transport import open_transport
from shared.ports import HttpTransport

Factory = Callable[[], asyncio.AbstractEventLoop]


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Factory]:
    """Run the transport's tests on both: Azure runs asyncio's loop, the local host uvloop; their errors differ."""
    loops: dict[str, Factory] = {"asyncio": asyncio.new_event_loop}
    if item.path.name.startswith("test_transport"):
        loops["uvloop"] = uvloop.new_event_loop
    return loops


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    """Return the transport, closed after the test."""
    opened = open_transport(trust_env=False)
    yield opened
    await opened.aclose()

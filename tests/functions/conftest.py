"""The running edge."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tests.functions.harness import Edge, running


@pytest.fixture
async def edge() -> AsyncIterator[Edge]:
    """Return the running edge over the simulator."""
    async with running() as found:
        yield found

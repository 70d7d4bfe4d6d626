"""Stores by their setting, with the HTTP client they need."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from shared.adapters.clock import SystemClock
from shared.adapters.tables import open_tables
from shared.adapters.transport import open_transport
from shared.ports import Tables


@asynccontextmanager
async def opened(setting: str) -> AsyncIterator[Tables]:
    """Open a store as the gateway does; close it and its client at the end."""
    transport = open_transport(trust_env=False)
    try:
        tables = open_tables(setting, transport=transport, clock=SystemClock())
        try:
            yield tables
        finally:
            await tables.aclose()
    finally:
        await transport.aclose()

"""Records to tell of, and a telemetry that does not make tests wait."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from shared.adapters.clock import SystemClock
from shared.adapters.telemetry import open_telemetry
from shared.adapters.telemetry.pipeline import Pace, Pipeline
from shared.core.chat import Operation, Usage
from shared.core.records import AttemptRecord, RequestRecord
from shared.core.registry import Secret
from shared.core.telemetry import Destination, TelemetryOptions
from tests.telemetry.ingestion import Ingestion

PACE = Pace(first=0.01, look=0.01, send=0.02, close=30)
STARTED = 1_790_000_000.25


def attempt(number: int = 1, **changes: Any) -> AttemptRecord:
    """Return an attempt that answered."""
    given: dict[str, Any] = {
        "deployment": "gpt-small@east",
        "model": "gpt-small",
        "provider": "azure-east",
        "started_at": STARTED + number / 10,
        "duration_ms": 125.0,
        "outcome": "succeeded",
        "region": "eastus",
        "status": 200,
        "usage": Usage(100, 20),
        "cost": 1_500,
        "semconv_name": "azure.ai.openai",
    }
    return AttemptRecord(number=number, **given | changes)


def failed(number: int = 1) -> AttemptRecord:
    """Return an attempt that was refused."""
    return attempt(number, deployment="gpt-small@west", outcome="rate_limited", status=429, usage=None, cost=None)


def request(identity: str = "req_1", *attempts: AttemptRecord, **changes: Any) -> RequestRecord:
    """Return a request that was answered."""
    made = attempts or (attempt(),)
    given: dict[str, Any] = {
        "key_id": "key_shop",
        "project": "shop",
        "operation": Operation.CHAT,
        "original_model": "fast",
        "task": "conversation",
        "stream": False,
        "started_at": STARTED,
        "duration_ms": 400.0,
        "outcome": "succeeded",
        "attempts": made,
        "model": "gpt-small",
        "deployment": "gpt-small@east",
        "cost": sum(one.cost or 0 for one in made),
    }
    return RequestRecord(request_id=identity, **given | changes)


def to_azure(ingestion: Ingestion, **changes: Any) -> TelemetryOptions:
    """Return options that tell the loopback ingestion endpoint."""
    return TelemetryOptions(Destination.AZURE_MONITOR, Secret(ingestion.connection_string), **changes)


@contextlib.asynccontextmanager
async def telling(options: TelemetryOptions, *, pace: Pace = PACE, **changes: Any) -> AsyncIterator[Pipeline]:
    """Open telemetry, and close it, which tells everything."""
    telemetry = open_telemetry(options, SystemClock(), "instance-1", pace=pace, **changes)
    assert isinstance(telemetry, Pipeline)
    try:
        yield telemetry
    finally:
        await telemetry.aclose()


async def until(state: Callable[[], object]) -> None:
    """Wait for a state, for as long as a slow machine may need."""
    async with asyncio.timeout(60):
        while not state():
            await asyncio.sleep(0.01)

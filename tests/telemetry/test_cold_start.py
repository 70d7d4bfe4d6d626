"""Telemetry costs no cold start: what is slow to import is imported when the first request has long been answered."""

from __future__ import annotations

import asyncio

from local.simulator import start_simulator
from tests.bench import cold_start
from tests.telemetry.ingestion import Ingestion


async def test_the_first_request_is_answered_before_anything_heavy_is_loaded() -> None:
    """Neither OpenTelemetry's SDK nor an exporter, nor what they need; when nothing is told, not later either."""
    async with await start_simulator() as simulator:
        with Ingestion() as ingestion:
            places = (simulator.url, ingestion.connection_string)
            off, told = await asyncio.gather(
                *(asyncio.to_thread(cold_start.start, exporter, *places) for exporter in ("off", "azure_monitor"))
            )
            spans = ingestion.of("RemoteDependencyData")

    assert [] == told.answered == off.answered == off.later
    assert sorted(cold_start.HEAVY) == told.later
    assert 2 == len(spans), "the request and its attempt were told, when it was time"

"""How much runs in the background, for those who watch. Cheap: what is counted is told again for some seconds."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from shared.chains import Queue
from shared.core.errors import StorageUnavailableError
from shared.gateway import Gateway

PATIENCE: Final = 2.0
"""Seconds that watching waits for the store: whether models can answer must be told without it."""
DAY: Final = 86_400.0
MIN_RANGE: Final = 60.0


async def queue_summary(gateway: Gateway) -> dict[str, Any] | None:
    """Return how many chains run and wait, and the age of the oldest; None while the store does not answer."""
    try:
        async with asyncio.timeout(PATIENCE):
            queue = await gateway.chains.queue()
    except (StorageUnavailableError, TimeoutError):
        return None
    return _chains(queue, gateway.clock.now())


async def queue_report(gateway: Gateway, seconds: float) -> dict[str, Any]:
    """Return what runs in the background, and how many of the chains of the last ``seconds`` have finished."""
    now = gateway.clock.now()
    since = now - min(max(seconds, MIN_RANGE), DAY)
    return {
        "chains": {
            **_chains(await gateway.chains.queue(), now),
            "finished": await gateway.chains.finished(since),
            "finished_since": int(since),
        }
    }


def _chains(queue: Queue, now: float) -> dict[str, Any]:
    return {
        "unfinished": queue.unfinished,
        "queued": queue.queued,
        "running": queue.running,
        "waiting": queue.waiting,
        "looked_at": queue.looked_at,
        "oldest_age_seconds": None if queue.oldest is None else round(max(0.0, now - queue.oldest), 3),
    }

"""How much runs in the background, for those who watch. Cheap: what is counted is told again for some seconds."""

from __future__ import annotations

import asyncio
from typing import Any, Final

from shared.batches import Progress
from shared.chains import Queue
from shared.core.errors import StorageUnavailableError
from shared.gateway import Gateway

PATIENCE: Final = 2.0
"""Seconds that watching waits for the store: whether models can answer must be told without it."""
DAY: Final = 86_400.0
MIN_RANGE: Final = 60.0


MAX_BATCHES: Final = 50
"""Unfinished batches that are shown, the oldest first."""


async def queue_summary(gateway: Gateway) -> dict[str, Any] | None:
    """Return how many chains run and wait, and the age of the oldest; None while the store does not answer."""
    try:
        async with asyncio.timeout(PATIENCE):
            queue = await gateway.chains.queue()
    except (StorageUnavailableError, TimeoutError):
        return None
    return _chains(queue, gateway.clock.now())


async def queue_report(gateway: Gateway, seconds: float, project: str | None) -> dict[str, Any]:
    """Return what runs in the background, and how many of the chains of the last ``seconds`` have finished.

    Batches are those of one project, or all.
    """
    now = gateway.clock.now()
    since = now - min(max(seconds, MIN_RANGE), DAY)
    return {
        "chains": {
            **_chains(await gateway.chains.queue(), now),
            "finished": await gateway.chains.finished(since),
            "finished_since": int(since),
        },
        "batches": await _batches(gateway, project),
    }


async def _batches(gateway: Gateway, project: str | None) -> dict[str, Any]:
    found = [one for one in await gateway.batches.progress() if project in {None, one.batch.caller.project}]
    return {"unfinished": len(found), "progress": [_progress(one) for one in found[:MAX_BATCHES]]}


def _progress(progress: Progress) -> dict[str, Any]:
    """Return how far a batch is, its lines counted as OpenAI counts them; ``total`` grows until its file has been read."""
    batch, counts = progress.batch, progress.counts
    return {
        "id": batch.id,
        "status": batch.status.value,
        "created_at": int(batch.created_at),
        "expires_at": int(batch.expires_at),
        "request_counts": {"total": batch.cursor.requests, "completed": counts.completed, "failed": counts.failed},
        "scanned": batch.cursor.scanned,
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

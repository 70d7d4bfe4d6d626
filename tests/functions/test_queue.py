"""What those who watch see of background work: ``/v1/health`` and ``/v1/metrics``."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import orjson
from openai import AsyncOpenAI

from functions import gateway as holder
from shared.chains import Chains, Queue
from shared.core.errors import StorageUnavailableError
from tests.functions.harness import ADMIN_KEY, Edge

CHAT = "/v1/chat/completions"
HELLO = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}
ASYNC = {"authorization": f"Bearer {ADMIN_KEY}", "prefer": "respond-async"}
NOTHING = {"unfinished": 0, "queued": 0, "running": 0, "waiting": 0, "looked_at": 0, "oldest_age_seconds": None}


async def test_nothing_runs_in_the_background(edge: Edge) -> None:
    """All is zero, the oldest unknown, and who runs chains is said."""
    health, metrics = (await edge.get("/v1/health")).json, (await edge.get("/v1/metrics")).json

    assert (NOTHING, "in this process") == (health["queue"], health["services"]["chains"])
    assert 0 == metrics["queue"]["in_flight"]
    assert {**NOTHING, "finished": 0} == {
        name: value for name, value in metrics["queue"]["chains"].items() if name != "finished_since"
    }


async def test_what_waits_and_what_has_finished_is_counted(edge: Edge) -> None:
    """One waits for its provider, one has its answer."""
    await edge.post(CHAT, HELLO, headers={**ASYNC, "prefer": "respond-async, wait=60"})
    edge.simulator.script({"faults": [{"kind": "rate_limited_s", "retry_after_s": 3600, "times": 99}]})
    path = (await edge.post(CHAT, HELLO, headers=ASYNC)).headers["location"]
    async with asyncio.timeout(60):
        while "waiting_until" not in ((await edge.get(path)).json["detail"] or {}):
            await asyncio.sleep(0.02)

    chains = (await edge.get("/v1/metrics?time_range=7d")).json["queue"]["chains"]
    assert (1, 1, 1) == (chains["unfinished"], chains["waiting"], chains["finished"])
    assert 0 <= chains["oldest_age_seconds"] < 120
    assert 1 == (await edge.get("/v1/health")).json["queue"]["waiting"]


async def test_a_batch_is_shown_to_its_project_until_it_has_ended(edge: Edge) -> None:
    """How many of its lines have an outcome."""
    edge.simulator.script({"faults": [{"kind": "rate_limited_s", "retry_after_s": 3600, "times": 99}]})
    mine, theirs = await edge.key("shop"), await edge.key("bank")
    line = {"custom_id": "1", "method": "POST", "url": CHAT, "body": HELLO}
    async with AsyncOpenAI(base_url=edge.url + "/v1", api_key=mine["authorization"].removeprefix("Bearer ")) as client:
        file = await client.files.create(file=("lines.jsonl", orjson.dumps(line)), purpose="batch")
        batch = await client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        async with asyncio.timeout(60):
            while not (shown := (await _batches(edge, mine))["progress"]) or not shown[0]["scanned"]:
                await asyncio.sleep(0.05)
        assert (batch.id, {"total": 1, "completed": 0, "failed": 0}) == (shown[0]["id"], shown[0]["request_counts"])
        assert {"unfinished": 0, "progress": []} == await _batches(edge, theirs)

        await client.batches.cancel(batch.id)
        async with asyncio.timeout(60):
            while (await _batches(edge, edge.headers))["unfinished"]:
                await asyncio.sleep(0.05)


async def _batches(edge: Edge, who: dict[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = (await edge.get("/v1/metrics", headers=who)).json["queue"]["batches"]
    return found


class _Silent(Chains):
    """Chains whose store does not answer."""

    async def queue(self) -> Queue:
        message = "The store did not answer."
        raise StorageUnavailableError(message)


async def test_health_is_told_without_the_store(edge: Edge) -> None:
    """Which models can answer is known in this process; the queue is not."""
    holder.use(replace(edge.gateway, chains=_Silent(edge.gateway.tables, edge.gateway.clock)))
    health = await edge.get("/v1/health")

    assert (200, "healthy", None) == (health.status, health.json["status"], health.json["queue"])

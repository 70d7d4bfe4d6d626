"""What the timer does about chains which were stored and never started."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import SimpleNamespace

from shared.chains import State
from tests.functions.harness import ADMIN_KEY, Edge, functions

CHAT = "/v1/chat/completions"
HELLO = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}
ASYNC = {"authorization": f"Bearer {ADMIN_KEY}", "prefer": "respond-async, wait=60"}


async def test_what_nobody_started_is_started(edge: Edge) -> None:
    """A process died between storing a chain and starting it: within a minute or two another one does."""
    done = await edge.post(CHAT, HELLO, headers=ASYNC)
    chains = edge.gateway.chains
    like = await chains.get(done.headers["x-switchyard-chain"])
    body, before = await chains.body(like.id), edge.gateway.clock.now() - 60
    fresh = replace(like, id="chain_" + "0" * 32, request_id="req_fresh", state=State.QUEUED, created_at=before)
    stored = replace(fresh, started_at=None, ended_at=None, answer=None, cost=None, attempts=0, status={}, etag="")
    await chains.create(stored, body, await chains.trace(like.id))

    (timer,) = functions().timers
    await timer.bound(edge.engine)(SimpleNamespace(past_due=False))
    async with asyncio.timeout(60):
        while (reply := await edge.get(f"/v1/chains/{stored.id}")).status == 202:
            await asyncio.sleep(0.02)

    assert (200, done.json["choices"]) == (reply.status, reply.json["choices"])
    assert 2 == len(edge.sent())

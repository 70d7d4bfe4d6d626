"""``Idempotency-Key``: answered once, billed once (fault 37)."""

from __future__ import annotations

import asyncio

import pytest

from tests.functions.harness import ADMIN_KEY, Edge

CHAT = "/v1/chat/completions"
HELLO = {"model": "small", "messages": [{"role": "user", "content": "Hello"}]}
ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}
KEY = {**ADMIN, "idempotency-key": "0b7f1a50-5c9c-4f63-9d0c-3f5b3a1f2c11"}


async def test_the_same_key_and_body_get_the_same_answer_without_a_second_bill(edge: Edge) -> None:
    """Body and what the headers tell of the answer are those of the first; the provider was asked once."""
    first = await edge.post(CHAT, HELLO, headers=KEY)
    again = await edge.post(CHAT, HELLO, headers=KEY)

    assert (200, 200, first.body) == (first.status, again.status, again.body)
    assert first.headers["x-switchyard-cost-usd"] == again.headers["x-switchyard-cost-usd"]
    assert (None, "true") == (first.headers.get("idempotent-replayed"), again.headers["idempotent-replayed"])
    assert len(edge.sent()) == 1


async def test_a_stream_is_replayed_as_it_was(edge: Edge) -> None:
    """Every event, to the last, byte for byte."""
    body = {**HELLO, "stream": True, "stream_options": {"include_usage": True}}
    first = await edge.post(CHAT, body, headers=KEY)
    again = await edge.post(CHAT, body, headers=KEY)

    assert first.body == again.body
    assert first.body.endswith(b"data: [DONE]\n\n")
    assert again.headers["content-type"].startswith("text/event-stream")
    assert len(edge.sent()) == 1


async def test_another_body_under_the_same_key_is_refused(edge: Edge) -> None:
    """A key stands for one request; the SDK is told not to try again."""
    await edge.post(CHAT, HELLO, headers=KEY)
    other = await edge.post(CHAT, {**HELLO, "temperature": 0.5}, headers=KEY)

    assert (409, "idempotency_key_reused", "false") == (other.status, other.error["code"], other.headers["x-should-retry"])
    assert len(edge.sent()) == 1


async def test_a_call_in_flight_is_a_conflict_that_says_when_to_come_back(edge: Edge) -> None:
    """Two at once: one is answered, the other told to ask again; whoever asks later gets the answer."""
    edge.simulator.script({"latency_ms": 300})
    replies = await asyncio.gather(*(edge.post(CHAT, HELLO, headers=KEY) for _ in range(4)))

    assert [200, 409, 409, 409] == sorted(reply.status for reply in replies)
    waiting = next(reply for reply in replies if reply.status == 409)
    assert ("idempotency_in_progress", "1") == (waiting.error["code"], waiting.headers["retry-after"])
    assert "x-should-retry" not in waiting.headers
    assert (await edge.post(CHAT, HELLO, headers=KEY)).status == 200
    assert len(edge.sent()) == 1


async def test_what_failed_may_be_tried_again(edge: Edge) -> None:
    """An error is not kept: the same key gets another chance."""
    edge.simulator.script({"faults": [{"kind": "context_length_exceeded", "times": 9}]})
    failed = await edge.post(CHAT, HELLO, headers=KEY)
    edge.simulator.script({"faults": []})

    assert (400, 200) == (failed.status, (await edge.post(CHAT, HELLO, headers=KEY)).status)


async def test_a_key_belongs_to_its_caller(edge: Edge) -> None:
    """Another caller's same key is another key."""
    made = await edge.post("/v1/keys", {"name": "other", "project": "shop"})
    await edge.post(CHAT, HELLO, headers=KEY)
    await edge.post(CHAT, HELLO, headers={**KEY, "authorization": f"Bearer {made.json['key']}"})

    assert len(edge.sent()) == 2


@pytest.mark.parametrize("key", ["", "k" * 10_240, "has space", "ümlaut"])
async def test_a_key_that_is_none_is_refused_by_name(edge: Edge, key: str) -> None:
    """Too long, not printable, empty: 400 naming the header, nothing sent."""
    reply = await edge.post(CHAT, HELLO, headers={**ADMIN, "idempotency-key": key})

    assert (400, "Idempotency-Key") == (reply.status, reply.error["param"])
    assert edge.sent() == []

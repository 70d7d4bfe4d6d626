"""The edge tells where a request belongs: its caller's trace reaches what is told, and every line logged carries its id."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from functions import gateway as holder
from shared.core import semconv
from shared.tracing import SERVED
from tests.fakes import RecordingTelemetry
from tests.functions.harness import ADMIN_KEY, Edge, running
from tests.functions.test_files import PLAIN, upload

CHAT = "/v1/chat/completions"
CANARY = "the canary sings at 5"
HELLO = {"model": "small", "messages": [{"role": "user", "content": CANARY}]}
TRACE = "0af7651916cd43dd8448eb211c80319c"
HEADERS = {"authorization": f"Bearer {ADMIN_KEY}", "traceparent": f"00-{TRACE}-b7ad6b7169203331-00"}


@pytest.fixture
def telemetry() -> RecordingTelemetry:
    """Return what is told."""
    return RecordingTelemetry()


@pytest.fixture
async def edge(telemetry: RecordingTelemetry) -> AsyncIterator[Edge]:
    """Return the running edge, which tells."""
    async with running() as found:
        found.gateway = replace(found.gateway, telemetry=telemetry)
        holder.use(found.gateway)
        yield found


async def told(telemetry: RecordingTelemetry, count: int) -> None:
    """Wait until so many requests were told."""
    async with asyncio.timeout(60):
        while len(telemetry.told) < count:
            await asyncio.sleep(0.02)


async def test_what_is_told_goes_on_in_the_callers_trace(edge: Edge, telemetry: RecordingTelemetry) -> None:
    """Whole, streamed and in the background: under the caller's span, with the id the response had; each once."""
    whole = await edge.post(CHAT, HELLO, headers=HEADERS)
    streamed = await edge.post(CHAT, {**HELLO, "stream": True}, headers=HEADERS)
    begun = await edge.post(CHAT, HELLO, headers={**HEADERS, "prefer": "respond-async"})
    await told(telemetry, 3)

    assert [200, 200, 202] == [reply.status for reply in (whole, streamed, begun)]
    assert {reply.headers["x-request-id"] for reply in (whole, streamed, begun)} == {
        one.record.request_id for one in telemetry.told
    }
    assert [(TRACE, "b7ad6b7169203331")] * 3 == [
        (one.trace.trace_id, one.trace.parent_id) for one in telemetry.told if one.trace is not None
    ]
    assert ["chain chat"] == [one.spans[0].name.rpartition(" ")[0] for one in telemetry.told if one.record.chain is not None]
    await edge.gateway.usage.flush()
    stored = [await edge.gateway.usage.find(one.record.request_id) for one in telemetry.told]
    assert sum([one.record.cost or 0 for one in stored if one is not None]) == telemetry.total(semconv.COST_SPENT) > 0
    assert SERVED.get() is None


async def test_a_batchs_lines_are_told_each_in_its_own_trace(edge: Edge, telemetry: RecordingTelemetry) -> None:
    """A batch may have many thousands: they are sampled one by one."""
    lines = [{"custom_id": f"{number}", "method": "POST", "url": CHAT, "body": HELLO} for number in range(3)]
    content = "\n".join(json.dumps(line) for line in lines).encode()
    file = (await upload(edge, PLAIN, ("file", "in.jsonl", content))).json["id"]
    made = await edge.post(
        "/v1/batches", {"input_file_id": file, "endpoint": CHAT, "completion_window": "24h"}, headers=HEADERS
    )
    assert 200 == made.status
    await told(telemetry, 3)

    traces = [one.trace for one in telemetry.told if one.trace is not None]
    assert 3 == len({trace.trace_id for trace in traces})
    assert {None} == {trace.parent_id for trace in traces}


async def test_lines_carry_the_request_and_no_prompt(edge: Edge, telemetry: RecordingTelemetry) -> None:
    """Also when the body is refused with words from it, which its caller is told and nobody else."""
    kept: list[tuple[str, str | None]] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            served = SERVED.get()
            kept.append((self.format(record), None if served is None else served.request_id))

    logger, handler = logging.getLogger("switchyard"), Keep()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    try:
        refused = await edge.post(CHAT, {**HELLO, "temperature": CANARY}, headers=HEADERS)
        edge.simulator.script({"faults": ["cut_mid_stream"]})
        broken = await edge.post(CHAT, {**HELLO, "stream": True}, headers=HEADERS)
        unknown = await edge.post(CHAT, HELLO, headers={"authorization": f"Bearer {CANARY}"})
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)

    assert [400, 401] == [refused.status, unknown.status]
    assert b"stream_interrupted" in broken.body
    replies = (refused, broken, unknown)
    assert [reply.headers["x-request-id"] for reply in replies] == [served for _, served in kept]
    assert all(served is not None and served in line for line, served in kept)
    assert CANARY not in repr((kept, [one.spans for one in telemetry.told], telemetry.measurements, telemetry.gauges))


async def test_several_prompts_are_one_trace(edge: Edge, telemetry: RecordingTelemetry) -> None:
    """Each is a request of its own; those after the first lie under it."""
    body = {"model": "small", "prompt": ["one", "two", "three"], "max_tokens": 5}
    assert 200 == (await edge.post("/v1/completions", body, headers=HEADERS)).status

    places = [one.trace for one in telemetry.told if one.trace is not None]
    (first,) = (place for place in places if place.parent_id == "b7ad6b7169203331")
    assert [TRACE] * 3 == [place.trace_id for place in places]
    assert [first.span_id] * 2 == [place.parent_id for place in places if place != first]

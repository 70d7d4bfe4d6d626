"""Streams: what a client sees while it waits, when it breaks, and what stops when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, MutableMapping
from typing import Any

import aiohttp
import orjson
import pytest

from functions import streaming
from functions.streaming import EventStream
from shared.core.errors import StreamInterruptedError
from tests.functions.harness import Edge

CHAT = "/v1/chat/completions"
HELLO = {"model": "small", "stream": True, "messages": [{"role": "user", "content": "Hello"}]}


async def events(edge: Edge, body: dict[str, Any], path: str = CHAT) -> tuple[aiohttp.ClientResponse, list[Any]]:
    """Return a whole stream: JSON of each event, text of what is no JSON."""
    async with edge.session.post(edge.url + path, json=body, headers=edge.headers) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        found: list[Any] = []
        for block in (await response.text()).split("\n\n"):
            data = block.removeprefix("data: ")
            found += [orjson.loads(data) if data.startswith("{") else data] if data else []
        return response, found


def text(found: list[Any]) -> str:
    """Return the text of a stream's events."""
    return "".join(
        choice["delta"].get("content") or "" for event in found if isinstance(event, dict) for choice in event["choices"]
    )


async def test_a_stream_ends_with_done_and_keeps_its_usage_to_itself(edge: Edge) -> None:
    """Who did not ask for usage gets no chunk with it, as at OpenAI."""
    edge.simulator.script({"answer": "one two three"})
    response, found = await events(edge, HELLO)

    assert response.status == 200
    assert found[-1] == "[DONE]"
    assert text(found) == "one two three"
    assert not [event for event in found[:-1] if event.get("usage") or not event["choices"]]
    assert response.headers["x-switchyard-model"] == "small"
    assert response.headers["x-request-id"].startswith("req_")
    assert "x-switchyard-cost-usd" not in response.headers


async def test_the_last_chunk_tells_usage_and_cost_to_those_who_ask(edge: Edge) -> None:
    """A stream's cost is known at its end: it comes in the usage chunk."""
    response, found = await events(edge, {**HELLO, "stream_options": {"include_usage": True}})
    last = found[-2]

    assert last["choices"] == []
    assert last["usage"]["total_tokens"] == last["usage"]["prompt_tokens"] + last["usage"]["completion_tokens"]
    nano = last["usage"]["prompt_tokens"] * 1_000 + last["usage"]["completion_tokens"] * 2_000
    assert round(last["switchyard"]["cost_usd"] * 1e9) == nano
    assert last["switchyard"]["request_id"] == response.headers["x-request-id"]
    assert last["switchyard"]["deployment"] == "north/small"


@pytest.mark.parametrize("fault", ["server_error", "error_first_event", "reset_before_headers", "garbage", "rate_limited_s"])
async def test_before_the_first_content_another_candidate_takes_over(edge: Edge, fault: str) -> None:
    """The client sees one good stream."""
    edge.simulator.script({"profile": "south", "faults": [fault]})
    response, found = await events(edge, {**HELLO, "model": "big"})

    assert found[-1] == "[DONE]"
    assert response.headers["x-switchyard-attempts"] == "2"
    assert response.headers["x-switchyard-deployment"] == "north/big"


@pytest.mark.parametrize("fault", ["reset_mid_stream", "cut_mid_stream", "error_mid_stream"])
async def test_a_cut_is_an_error_event_never_a_silent_end(edge: Edge, fault: str) -> None:
    """What came stands; then one error event, no [DONE], and the end of a complete HTTP body."""
    edge.simulator.script({"faults": [fault]})
    response, found = await events(edge, HELLO)
    stored = await edge.get(f"/v1/requests/{response.headers['x-request-id']}")

    assert found[-1]["error"]["code"] == "stream_interrupted"
    assert text(found[:-1])
    assert "[DONE]" not in found
    assert stored.json["attempts"][0]["exact"] is False


async def test_an_error_before_any_content_is_a_status(edge: Edge) -> None:
    """Nothing is committed before the first content: every candidate failing is a 503 with JSON."""
    edge.simulator.script({"rates": {"server_error": 1.0}})
    reply = await edge.post(CHAT, HELLO)

    assert (503, "all_attempts_failed") == (reply.status, reply.error["code"])
    assert reply.headers["x-should-retry"] == "false"
    assert int(reply.headers["x-switchyard-attempts"]) >= 1


async def test_a_slow_first_content_is_bridged_by_comments(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the waiting time the stream is committed and kept alive; the content comes later, in the same response."""
    monkeypatch.setattr(streaming, "KEEP_ALIVE_SECONDS", 0.05)
    edge.simulator.script({"latency_ms": 400, "answer": "late"})
    response, found = await events(edge, HELLO)

    assert response.status == 200
    assert found[0] == ": keep-alive"
    assert text([event for event in found if isinstance(event, dict)]) == "late"
    assert found[-1] == "[DONE]"
    assert "x-switchyard-model" not in response.headers


async def test_a_failure_after_the_waiting_time_is_an_event(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """The status was sent: the error can only be an event."""
    monkeypatch.setattr(streaming, "KEEP_ALIVE_SECONDS", 0.02)
    edge.simulator.script({"latency_ms": 150, "rates": {"server_error": 1.0}})
    response, found = await events(edge, HELLO)

    assert response.status == 200
    assert found[-1]["error"]["code"] == "all_attempts_failed"


async def test_silence_between_events_is_bridged_too(edge: Edge, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that thinks in the middle does not lose its client."""
    monkeypatch.setattr(streaming, "KEEP_ALIVE_SECONDS", 0.05)
    edge.simulator.script({"chunk_gap_ms": 200, "answer": "one two"})
    _, found = await events(edge, HELLO)

    assert ": keep-alive" in found
    assert text([event for event in found if isinstance(event, dict)]) == "one two"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("fault", ["hang_before_headers", "hang_mid_stream"])
async def test_a_client_that_leaves_stops_the_upstream_call(edge: Edge, fault: str, stream: bool) -> None:  # noqa: FBT001
    """Nobody waits for the answer: the provider's connection is dropped and the request written down as cancelled."""
    edge.simulator.script({"faults": [fault]})
    async with aiohttp.ClientSession() as leaving:
        with pytest.raises(TimeoutError):
            async with (
                asyncio.timeout(0.4),
                leaving.post(edge.url + CHAT, json={**HELLO, "stream": stream}, headers=edge.headers) as response,
            ):
                await response.read()
    for _ in range(200):
        if edge.sent()[0].disconnected and not edge.mounted.in_flight:
            break
        await asyncio.sleep(0.01)

    assert edge.sent()[0].disconnected
    assert len(edge.sent()) == 1
    assert edge.mounted.in_flight == 0
    assert [1] == [row["errors"].get("cancelled") for row in (await edge.get("/v1/usage")).json["data"]]


async def test_legacy_streams_are_text_completions(edge: Edge) -> None:
    """The old clients' chunks: `text`, with the prompt first when they ask for an echo."""
    edge.simulator.script({"answer": "one two"})
    body = {"model": "small", "prompt": "Say: ", "stream": True, "echo": True, "stream_options": {"include_usage": True}}
    _, found = await events(edge, body, "/v1/completions")
    chunks = [event for event in found[:-1] if event["choices"]]

    assert {"text_completion"} == {event["object"] for event in found[:-1]}
    assert "".join(event["choices"][0]["text"] for event in chunks) == "Say: one two"
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert found[-2]["switchyard"]["cost_usd"] > 0


# ---- the response alone ----------------------------------------------------------------------------------------------


class Client:
    """A server's two channels: what was sent, and when the client leaves."""

    def __init__(self) -> None:
        self.sent: list[MutableMapping[str, Any]] = []
        self.left = asyncio.Event()

    async def receive(self) -> MutableMapping[str, Any]:
        """Say that the client has gone, once it has."""
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Note what was sent."""
        self.sent.append(message)

    @property
    def body(self) -> bytes:
        """What was sent of the body."""
        return b"".join(message.get("body", b"") for message in self.sent)


class Source:
    """Events that end as they are told to."""

    def __init__(self, *data: bytes, error: Exception | None = None, hang: bool = False) -> None:
        self.closed = 0
        self._data, self._error, self._hang = data, error, hang

    async def events(self) -> AsyncGenerator[bytes, None]:
        """Yield the data; then raise, hang or end."""
        for data in self._data:
            yield data
        if self._hang:
            await asyncio.Event().wait()
        if self._error is not None:
            raise self._error

    async def close(self) -> None:
        """Count how often it was closed."""
        self.closed += 1

    def response(self) -> EventStream:
        """Return the response."""
        return EventStream(self.events(), close=self.close, request_id="req_1", headers=[])


async def test_a_stream_is_closed_however_it_ends() -> None:
    """Its end, an error, a bug, a client that leaves, a shutdown: closed once each time."""
    ended, cut, bug = Source(b"a"), Source(b"a", error=StreamInterruptedError("cut")), Source(b"a", error=KeyError("secret"))
    clients = []
    for source in (ended, cut, bug):
        clients.append(Client())
        await source.response()({}, clients[-1].receive, clients[-1].send)

    assert [1, 1, 1] == [ended.closed, cut.closed, bug.closed]
    assert clients[0].body == b"a"
    assert b'"message":"cut"' in clients[1].body
    assert b"internal_error" in clients[2].body
    assert b"secret" not in clients[2].body
    assert all(client.sent[-1]["more_body"] is False for client in clients)


async def test_a_client_that_leaves_ends_the_stream() -> None:
    """The watch begins after a moment, the source is closed, and nothing more is sent."""
    source, client = Source(b"a", hang=True), Client()
    serving = asyncio.create_task(source.response()({}, client.receive, client.send))
    await asyncio.sleep(0.1)
    client.left.set()
    await asyncio.wait_for(serving, 1)

    assert source.closed == 1
    assert client.sent[-1]["more_body"] is True


async def test_a_shutdown_is_not_taken_for_a_client_that_left() -> None:
    """A cancellation from elsewhere passes through, after the source was closed."""
    source, client = Source(b"a", hang=True), Client()
    serving = asyncio.create_task(source.response()({}, client.receive, client.send))
    await asyncio.sleep(0.1)
    serving.cancel()

    with pytest.raises(asyncio.CancelledError):
        await serving
    assert source.closed == 1

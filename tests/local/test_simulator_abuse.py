"""Broken input and crowds: the simulator refuses the one and carries the other, and nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest
from aiohttp import ClientSession, ClientTimeout, TCPConnector

from local.simulator import Simulator, start_simulator

CHAT = "/p/v1/chat/completions"
BODY: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
PATHS = (CHAT, "/p/v1/embeddings", "/p/v1/completions", "/p/v1/messages", "/p/openai/deployments/d/embeddings?api-version=1")
HEADERS = {"api-key": "k", "x-api-key": "k", "anthropic-version": "2023-06-01"}


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "body", [b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b'{"a": NaN}', b"[" * 100_000, b'{"model": "\\ud800"}']
)
async def test_unreadable_requests(http: ClientSession, path: str, body: bytes) -> None:
    """A body that is no JSON object is 400 in the protocol's error shape."""
    async with http.post(path, data=body, headers=HEADERS) as response:
        assert response.status == 400
        assert (await response.json())["error"]["message"]


@pytest.mark.parametrize("junk", [None, True, -1, 2**63, 1e308, "", "\x00", [], {}, [[]], [{}], {"type": {}}, ["a", 1]])
async def test_junk_in_every_field(http: ClientSession, junk: Any) -> None:
    """Junk in any field is answered or refused; it never breaks the server."""
    names = "model messages stream n stop tools tool_choice response_format max_tokens input prompt dimensions system seed"
    for path in PATHS:
        for name in [*names.split(), "stream_options", "encoding_format", "stop_sequences", "output_config", "logprobs"]:
            body = {**BODY, "max_tokens": 9, "input": "x", "prompt": "x", name: junk}
            async with http.post(path, json=body, headers=HEADERS) as response:
                assert response.status in {200, 400}, (path, name)
                await response.read()


async def test_odd_names_do_not_reach_headers(http: ClientSession) -> None:
    """A deployment's name with line ends or an emoji can neither forge a header nor break the response."""
    for name in ("a%0d%0aset-cookie:%20x", "%F0%9F%99%82"):
        path = f"/p/openai/deployments/{name}/chat/completions?api-version=1"
        async with http.post(path, json=BODY, headers=HEADERS) as response:
            assert response.status == 200
            assert "set-cookie" not in response.headers


@pytest.mark.parametrize(("depth", "status"), [(40, 200), (60, 400), (400, 400)])
async def test_deeply_nested_content(http: ClientSession, depth: int, status: int) -> None:
    """Content nested deeper than any provider takes is refused; what is less deep is answered."""
    block: dict[str, Any] = {"type": "text", "text": "x"}
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(depth):
        block = {"type": "tool_result", "content": [block]}
        schema = {"allOf": [schema]}
    tools = [{"name": "x", "input_schema": schema}]
    body = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": [block]}], "tools": tools}
    async with http.post("/p/v1/messages", json={**body, "tool_choice": {"type": "any"}}, headers=HEADERS) as response:
        assert status == response.status


async def test_a_crowd_is_carried(simulator: Simulator) -> None:
    """A thousand requests at once, half of them streams, are all answered, billed once and over."""
    simulator.script({"latency_ms": 100})
    async with ClientSession(simulator.url, connector=TCPConnector(limit=0)) as http:

        async def ask(*, stream: bool) -> bool:
            async with http.post(CHAT, json={**BODY, "stream": stream}) as response:
                return (await response.read()).rstrip().endswith(b"[DONE]" if stream else b"}")

        assert all(await asyncio.gather(*(ask(stream=bool(place % 2)) for place in range(1000))))
    counters = simulator.counters
    assert counters["by_outcome"] == {"answered": 1000}
    assert counters["peak_active"] > 900
    assert counters["active"] == 0
    assert counters["billed"]["input_tokens"] == 6000


async def test_nothing_is_left_behind() -> None:
    """After clients left in the middle and the simulator was closed, no task of it is running."""
    before = asyncio.all_tasks()
    async with await start_simulator() as simulator:
        simulator.script({"rates": {"before_content": 0.5, "after_content": 0.5}})
        async with ClientSession(simulator.url, timeout=ClientTimeout(None), connector=TCPConnector(limit=0)) as http:

            async def ask() -> None:
                async with http.post(CHAT, json={**BODY, "stream": True}, allow_redirects=False) as response:
                    await response.read()

            clients = [asyncio.create_task(ask()) for _ in range(200)]
            while simulator.counters["requests"] < len(clients):
                await asyncio.sleep(0.01)
            assert not all(client.done() for client in clients)
            for client in clients:
                client.cancel()
            await asyncio.gather(*clients, return_exceptions=True)
    await asyncio.sleep(0)
    gc.collect()
    assert asyncio.all_tasks() == before
    assert simulator.counters["active"] == 0
    assert simulator.counters["requests"] == sum(simulator.counters["by_outcome"].values()) == 200

"""Bad input: each gets OpenAI's error naming the field, and nothing is lost or hung."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
import pytest_asyncio

from tests.functions.harness import Edge, running

CHAT = "/v1/chat/completions"
USER = {"role": "user", "content": "Hello"}
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}}


def chat(**fields: Any) -> dict[str, Any]:
    """Return a chat that is right but for ``fields``."""
    return {"model": "small", "messages": [USER], **fields}


def says(**part: Any) -> dict[str, Any]:
    """Return a chat with one part."""
    return chat(messages=[{"role": "user", "content": [part]}])


BODIES: list[tuple[dict[str, Any], str]] = [
    ({"model": "small"}, "messages"),
    (chat(messages=[]), "messages"),
    (chat(messages="hi"), "messages"),
    (chat(messages=None), "messages"),
    (chat(messages=["hi"]), "messages[0]"),
    (chat(messages=[{}]), "messages[0].role"),
    (chat(messages=[{"content": "x"}]), "messages[0].role"),
    (chat(messages=[{"role": "robot", "content": "x"}]), "messages[0].role"),
    (chat(messages=[{"role": 7, "content": "x"}]), "messages[0].role"),
    (chat(messages=[{"role": ["user"], "content": "x"}]), "messages[0].role"),
    (chat(messages=[{"role": "user"}]), "messages[0].content"),
    (chat(messages=[USER, {"role": "user", "content": None}]), "messages[1].content"),
    (chat(messages=[{"role": "user", "content": 5}]), "messages[0].content"),
    (chat(messages=[{"role": "user", "content": {}}]), "messages[0].content"),
    (chat(messages=[{"role": "user", "content": []}]), "messages[0].content"),
    (chat(messages=[{"role": "tool", "content": "x"}]), "messages[0].tool_call_id"),
    (chat(messages=[{"role": "assistant", "tool_calls": [{"id": "a", "function": {"name": "f"}}]}]),
     "messages[0].tool_calls[0].function.arguments"),
    (says(type="video", video="x"), "messages[0].content[0].type"),
    (says(text="x"), "messages[0].content[0].type"),
    (says(type="text"), "messages[0].content[0].text"),
    (says(type="text", text=5), "messages[0].content[0].text"),
    (says(type="image_url"), "messages[0].content[0].image_url"),
    (says(type="image_url", image_url="http://x"), "messages[0].content[0].image_url"),
    (says(type="image_url", image_url={"url": "x", "detail": "huge"}), "messages[0].content[0].image_url.detail"),
    (says(type="input_audio", input_audio={"data": "AA"}), "messages[0].content[0].input_audio.format"),
    (chat(model=5), "model"),
    (chat(model=""), "model"),
    (chat(model="no-such-model"), "model"),
    (chat(temperature="hot"), "temperature"),
    (chat(temperature=-0.1), "temperature"),
    (chat(temperature=2.1), "temperature"),
    (chat(temperature=True), "temperature"),
    (chat(top_p=1.1), "top_p"),
    (chat(max_tokens=0), "max_tokens"),
    (chat(max_tokens=-5), "max_tokens"),
    (chat(max_tokens=1.5), "max_tokens"),
    (chat(max_tokens="10"), "max_tokens"),
    (chat(max_completion_tokens=0), "max_completion_tokens"),
    (chat(n=0), "n"),
    (chat(n=True), "n"),
    (chat(n=1000), "n"),
    (chat(stop=["a"] * 5), "stop"),
    (chat(stop=5), "stop"),
    (chat(seed=1e29), "seed"),
    (chat(presence_penalty=3), "presence_penalty"),
    (chat(logit_bias={"50256": "x"}), "logit_bias.50256"),
    (chat(logprobs=1), "logprobs"),
    (chat(top_logprobs=21), "top_logprobs"),
    (chat(stream="yes"), "stream"),
    (chat(stream_options={"include_usage": True}), "stream_options"),
    (chat(stream=True, stream_options=[]), "stream_options"),
    (chat(tools={}), "tools"),
    (chat(tools=[{"type": "function"}]), "tools[0].function"),
    (chat(tools=[{"type": "function", "function": {"name": "not allowed"}}]), "tools[0].function.name"),
    (chat(tools=[{"type": "rocket"}]), "tools[0].type"),
    (chat(tool_choice="sometimes"), "tool_choice"),
    (chat(response_format={"type": "xml"}), "response_format.type"),
    (chat(response_format={"type": "json_schema", "json_schema": {}}), "response_format.json_schema.name"),
    (chat(user=5), "user"),
    (chat(metadata={"a": 1}), "metadata.a"),
    (chat(task_type="cooking"), "task_type"),
    (chat(task_type=5), "task_type"),
    (chat(budget_limit=-1), "budget_limit"),
    (chat(budget_limit="1"), "budget_limit"),
    (chat(budget_limit=1e12), "budget_limit"),
    (chat(budget_limit=0), "budget_limit"),
    (chat(priority="urgent"), "priority"),
    (chat(model_preferences="cheap"), "model_preferences"),
    (chat(model_preferences={"objective": "fun"}), "model_preferences.objective"),
    (chat(model_preferences={"min_quality": 2}), "model_preferences.min_quality"),
    (chat(model_preferences={"max_latency_ms": 0}), "model_preferences.max_latency_ms"),
    (chat(model_preferences={"exclude_models": "big"}), "model_preferences.exclude_models"),
    (chat(model_preferences={"favourite": "big"}), "model_preferences.favourite"),
    (chat(messages=[{"role": "user", "content": "word " * 60_000}]), "messages"),
    (chat(messages=[{"role": "user", "content": [IMAGE]}]), "messages"),
]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_edge() -> AsyncIterator[Edge]:
    """Return one running edge for the whole list."""
    async with running() as edge:
        yield edge


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(("body", "param"), BODIES)
async def test_the_field_at_fault_is_named(shared_edge: Edge, body: dict[str, Any], param: str) -> None:
    """Whatever is wrong with a chat is a 4xx with the field in `param` and in the message."""
    reply = await shared_edge.post(CHAT, body)

    assert reply.status in {400, 404}, reply.body
    assert param == reply.error["param"]
    assert reply.error["type"] == "invalid_request_error"
    assert reply.error["code"]
    assert len(reply.error["message"]) < 1_000


@pytest.mark.asyncio(loop_scope="module")
async def test_no_provider_was_bothered(shared_edge: Edge) -> None:
    """Bad input is refused before anything is sent."""
    assert shared_edge.sent() == []


@pytest.mark.asyncio(loop_scope="module")
async def test_an_unknown_task_is_told_those_that_exist(shared_edge: Edge) -> None:
    """The seed's names are among them."""
    message = (await shared_edge.post(CHAT, chat(task_type="cooking"))).error["message"]

    for task in ("code-generation", "summarization", "embeddings", "text-generation", "analysis"):
        assert task in message


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"{",
        b'{"messages": [}',
        b'{"model": "\xff\xfe"}',
        b'\xef\xbb\xbf{"model": "small"}',
        b'{"model": "\\ud800"}',
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b"[]",
        b'"text"',
        b"null",
        b"5",
        b"model=small&messages=hi",
    ],
    ids=lambda body: repr(body[:24]),
)
@pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/embeddings", "/v1/route", "/v1/keys"])
async def test_what_is_not_a_json_object_is_refused(shared_edge: Edge, path: str, body: bytes) -> None:
    """Not JSON, broken UTF-8, half a surrogate, a nesting no parser should follow."""
    reply = await shared_edge.call("POST", path, data=body)

    assert (400, "invalid_json") == (reply.status, reply.error["code"])


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("body", "param"),
    [
        (b'{"temperature": NaN}', "temperature"),
        (b'{"temperature": 1e999}', "temperature"),
        (b'{"messages": [{"role": "user"}, {"weight": -Infinity}]}', "messages[1].weight"),
    ],
)
async def test_a_number_that_json_does_not_have_is_named(shared_edge: Edge, body: bytes, param: str) -> None:
    """NaN and infinities are told by their field, though the body is no JSON."""
    reply = await shared_edge.call("POST", CHAT, data=body)

    assert (400, "invalid_value", param) == (reply.status, reply.error["code"], reply.error["param"])


@pytest.mark.asyncio(loop_scope="module")
async def test_a_mistyped_filter_is_refused(shared_edge: Edge) -> None:
    """It must not show everybody's money as if it were one project's."""
    reply = await shared_edge.call("GET", "/v1/usage?projct=shop")

    assert (400, "projct") == (reply.status, reply.error["param"])


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/completions", {}, "prompt"),
        ("/v1/completions", {"prompt": ""}, "prompt"),
        ("/v1/completions", {"prompt": 5}, "prompt"),
        ("/v1/completions", {"prompt": []}, "prompt"),
        ("/v1/completions", {"prompt": [[1, 2]]}, "prompt[0]"),
        ("/v1/completions", {"prompt": "x", "suffix": "y"}, "suffix"),
        ("/v1/completions", {"prompt": "x", "best_of": 2}, "best_of"),
        ("/v1/completions", {"prompt": "x", "logprobs": 9}, "logprobs"),
        ("/v1/completions", {"prompt": ["x", "y"], "stream": True}, "prompt"),
        ("/v1/completions", {"prompt": "x", "task_type": "embeddings", "stream": True}, "stream"),
        ("/v1/completions", {"prompt": "x", "model_preferences": []}, "model_preferences"),
        ("/v1/completions", {"prompt": "x", "max_tokens": -1}, "max_tokens"),
        ("/v1/embeddings", {}, "input"),
        ("/v1/embeddings", {"model": "vectors", "input": ""}, "input"),
        ("/v1/embeddings", {"model": "vectors", "input": []}, "input"),
        ("/v1/embeddings", {"model": "vectors", "input": ["a", ""]}, "input[1]"),
        ("/v1/embeddings", {"model": "vectors", "input": ["a", 5]}, "input[1]"),
        ("/v1/embeddings", {"model": "vectors", "input": [1, -5]}, "input[1]"),
        ("/v1/embeddings", {"model": "vectors", "input": [[1], []]}, "input[1]"),
        ("/v1/embeddings", {"model": "vectors", "input": {"a": 1}}, "input"),
        ("/v1/embeddings", {"model": "vectors", "input": "a", "dimensions": 0}, "dimensions"),
        ("/v1/embeddings", {"model": "vectors", "input": "a", "encoding_format": "hex"}, "encoding_format"),
        ("/v1/embeddings", {"model": "small", "input": "a"}, "model"),
        ("/v1/chat/completions", {"model": "vectors", "messages": [USER]}, "model"),
        ("/v1/route", {}, "messages"),
        ("/v1/route", {"messages": []}, "messages"),
        ("/v1/keys", {}, "name"),
        ("/v1/keys", {"name": "x", "project": "with space"}, "project"),
        ("/v1/keys", {"name": "x", "project": "p", "admin": True}, "admin"),
        ("/v1/keys", {"name": "x", "project": "p", "models": []}, "models"),
        ("/v1/keys", {"name": "x", "project": "p", "expires_at": 5}, "expires_at"),
        ("/v1/feedback", {"request_id": "req_x"}, "rating"),
        ("/v1/feedback", {"request_id": "req_x", "rating": 6}, "rating"),
        ("/v1/feedback", {"request_id": "req_x", "rating": "5"}, "rating"),
        ("/v1/feedback", {"rating": 5}, "request_id"),
        ("/v1/models/new", {}, "model"),
        ("/v1/models/new", {"deployments": [{"provider": "nobody"}]}, "model"),
    ],
)
async def test_other_bodies_name_the_field_too(shared_edge: Edge, path: str, body: dict[str, Any], param: str) -> None:
    """The other endpoints are as strict."""
    reply = await shared_edge.post(path, body)

    assert (400, param) == (reply.status, reply.error["param"]), reply.body


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/v1/metrics?time_range=yesterday", "time_range"),
        ("/v1/metrics?time_range=0h", "time_range"),
        ("/v1/metrics?time_range=999999w", "time_range"),
        ("/v1/usage?start=soon", "start"),
        ("/v1/usage?start=2026-02-02&end=2026-02-01", "start"),
        ("/v1/usage?group_by=colour", "group_by"),
        ("/v1/requests/unknown", "request_id"),
        ("/v1/keys/key_000000000000", "key_id"),
    ],
)
async def test_queries_name_the_parameter(shared_edge: Edge, path: str, param: str) -> None:
    """Query parameters are checked like fields."""
    reply = await shared_edge.get(path)

    assert reply.status in {400, 404}
    assert param == reply.error["param"]


async def test_a_declared_size_over_the_cap_is_refused_unread(edge: Edge) -> None:
    """20 MB with a Content-Length: 413."""
    reply = await edge.call("POST", CHAT, data=io.BytesIO(b" " * 20_000_000))

    assert (413, "request_too_large") == (reply.status, reply.error["code"])


async def test_an_endless_chunked_body_is_refused_at_the_cap(edge: Edge) -> None:
    """Without a Content-Length, what arrives is counted: the refusal comes while the client still sends."""
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 400_000_000:
            sent += 1_000_000
            yield b" " * 1_000_000

    async with edge.session.post(edge.url + CHAT, data=endless(), headers=edge.headers) as response:
        assert response.status == 413
    assert sent < 400_000_000


async def test_a_client_that_leaves_while_it_sends_leaves_nothing_behind(edge: Edge) -> None:
    """Half a body, then gone: no error, no request in flight."""
    with socket.create_connection(("127.0.0.1", int(edge.url.rsplit(":", 1)[1]))) as client:
        head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {edge.admin}\r\ncontent-length: 100\r\n\r\n{{"
        client.sendall(head.encode())
        await asyncio.sleep(0.05)
        assert edge.mounted.in_flight == 1
    for _ in range(100):
        if not edge.mounted.in_flight:
            break
        await asyncio.sleep(0.01)
    assert edge.mounted.in_flight == 0


async def test_what_is_odd_but_allowed_is_answered(edge: Edge) -> None:
    """U+0000, emoji, nulls for optional fields, unknown fields and large integers are no errors."""
    body = chat(
        messages=[{"role": "user", "content": "nul \u0000 and 👩‍👩‍👧", "name": None}],
        temperature=None, n=None, stop=None, stream=None, tools=None, budget_limit=None, model_preferences=None,
        task_type=None, priority=None, x_unknown={"deep": [1]}, seed=2**40,
    )  # fmt: skip
    reply = await edge.call("POST", CHAT, data=orjson.dumps(body))

    assert reply.status == 200
    (sent,) = edge.sent()
    assert "x_unknown" in sent.parameters
    assert not {"task_type", "model_preferences", "budget_limit", "priority"} & set(sent.parameters)

"""Bad Responses: every mistake is a 400 that names its field, and nothing is asked of a provider."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from tests.functions.harness import Edge

PATH = "/v1/responses"
USER = {"role": "user", "content": "Hi"}


def item(**fields: Any) -> dict[str, Any]:
    """Return a body with one item behind a user's message."""
    return {"input": [USER, fields]}


def part(**fields: Any) -> dict[str, Any]:
    """Return a body with a message of one part."""
    return {"input": [{"role": "user", "content": [fields]}]}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "input"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": [5]}, "input[0]"),
        ({"input": ["Hi"]}, "input[0]"),
        (item(type="web_search_call", id="ws_1"), "input[1].type"),
        (item(type="mcp_call"), "input[1].type"),
        (item(type=7), "input[1].type"),
        (item(content="Hi"), "input[1].type"),
        (item(role="robot", content="Hi"), "input[1].role"),
        (item(role="user"), "input[1].content"),
        (item(role="user", content=[]), "input[1].content"),
        (part(type="video"), "input[0].content[0].type"),
        (part(type="input_text"), "input[0].content[0].text"),
        (part(type="input_image", image_url="u", detail="huge"), "input[0].content[0].detail"),
        (part(type="input_image", image_url={"url": "u"}), "input[0].content[0].image_url"),
        (item(type="function_call", name="f", arguments="{}"), "input[1].call_id"),
        (item(type="function_call", call_id="c", name="f", arguments={}), "input[1].arguments"),
        (item(type="function_call", call_id="c", name="f f", arguments="{}"), "input[1].name"),
        (item(type="function_call_output", output="x"), "input[1].call_id"),
        (item(type="function_call_output", call_id="c"), "input[1].output"),
        (item(type="function_call_output", call_id="c", output="x"), "input[1].call_id"),
        (item(type="function_call_output", call_id="c", output={"a": 1}), "input[1].output"),
        (item(type="item_reference"), "input[1].id"),
        (item(type="item_reference", id="msg_unknown"), "input[1].id"),
        ({"input": "Hi", "previous_response_id": "resp_unknown"}, "previous_response_id"),
        ({"input": "Hi", "previous_response_id": "../../x y"}, "previous_response_id"),
        ({"input": "Hi", "previous_response_id": 7}, "previous_response_id"),
        ({"input": "Hi", "messages": [USER]}, "messages"),
        ({"input": "Hi", "seed": 1}, "seed"),
        ({"input": "Hi", "max_tokens": 1}, "max_tokens"),
        ({"input": "Hi", "max_output_tokens": 0}, "max_output_tokens"),
        ({"input": "Hi", "temperature": 3}, "temperature"),
        ({"input": "Hi", "stream": "yes"}, "stream"),
        ({"input": "Hi", "background": "yes"}, "background"),
        ({"input": "Hi", "instructions": ["a"]}, "instructions"),
        ({"input": "Hi", "include": "all"}, "include"),
        ({"input": "Hi", "include": ["all"]}, "include[0]"),
        ({"input": "Hi", "tools": [{"name": "f"}]}, "tools[0].type"),
        ({"input": "Hi", "tools": [{"type": "function"}]}, "tools[0].name"),
        ({"input": "Hi", "tools": [{"type": "function", "function": {"name": "f"}}]}, "tools[0].name"),
        ({"input": "Hi", "tools": [{"type": "function", "name": "f", "defer_loading": True}]}, "tools[0].defer_loading"),
        ({"input": "Hi", "tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": "Hi", "tool_choice": "sometimes"}, "tool_choice"),
        ({"input": "Hi", "tool_choice": {"name": "f"}}, "tool_choice.type"),
        ({"input": "Hi", "text": {"format": {"type": "yaml"}}}, "text.format.type"),
        ({"input": "Hi", "text": {"format": {"type": "json_schema", "name": "n"}}}, "text.format.schema"),
        ({"input": "Hi", "text": {"format": {"type": "json_schema", "json_schema": {}}}}, "text.format.name"),
        ({"input": "Hi", "text": {"verbosity": "loud"}}, "text.verbosity"),
        ({"input": "Hi", "reasoning": {"effort": 3}}, "reasoning.effort"),
        ({"input": "Hi", "metadata": {"a": 1}}, "metadata.a"),
        ({"input": "Hi", "metadata": {str(number): "" for number in range(17)}}, "metadata"),
        ({"input": "Hi", "conversation": "conv_1"}, "conversation"),
        ({"input": "Hi", "prompt": {"id": "p"}}, "prompt"),
        ({"input": "Hi", "truncation": "auto"}, "truncation"),
        ({"input": "Hi", "task_type": "juggling"}, "task_type"),
        ({"input": "Hi", "budget_limit": -1}, "budget_limit"),
    ],
)
async def test_a_mistake_is_named(edge: Edge, body: dict[str, Any], param: str) -> None:
    """In the words of Responses; no provider hears of it, whether it was to be answered now or later."""
    now = await edge.post(PATH, {"model": "small", **body})
    later = await edge.post(PATH, {"model": "small", "background": True, **body})

    assert (400, param) == (now.status, now.error["param"]), now.error["message"]
    assert now.error["message"].startswith(("`", "Previous", "Item"))
    assert later.status == 400
    assert [] == edge.sent()


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"Hi"', b'{"input": "\\ud800"}', b"\xff"])
async def test_what_is_no_json_object_is_refused(edge: Edge, body: bytes) -> None:
    """With or without a key to be answered once."""
    headers = {**edge.headers, "idempotency-key": "k-1"}

    assert {400} == {(await edge.call("POST", PATH, data=body, headers=one)).status for one in (edge.headers, headers)}


async def test_deep_and_wide_input_is_no_matter(edge: Edge) -> None:
    """Thousands of items, a schema twenty levels deep."""
    deep: dict[str, Any] = {"type": "string"}
    for _ in range(20):
        deep = {"type": "object", "properties": {"a": deep}}
    tools = [{"type": "function", "name": "f", "parameters": deep}]
    items = [{"role": "user", "content": str(number)} for number in range(2_000)]

    assert (await edge.post(PATH, {"model": "big", "input": items, "tools": tools})).status == 200
    refused = await edge.post(PATH, {"model": "big", "input": [USER] * 10_001})
    assert (400, "input") == (refused.status, refused.error["param"])


@pytest.mark.parametrize("path", ["resp_unknown", "x%2Fy", "a" * 300, "%C3%A9", "resp_%00"])
async def test_an_unknown_id_is_a_404(edge: Edge, path: str) -> None:
    """Whatever it looks like."""
    one = f"{PATH}/{path}"
    tried = [
        await edge.get(one),
        await edge.get(one + "/input_items"),
        await edge.call("DELETE", one),
        await edge.post(one + "/cancel", {}),
    ]

    assert {404} == {reply.status for reply in tried}


async def test_bad_questions_about_a_response_are_named(edge: Edge) -> None:
    """A mistyped filter shows nothing as if it were filtered."""
    made = (await edge.post(PATH, {"model": "small", "input": "Hi"})).json["id"]
    asked = {
        "?stream=maybe": "stream",
        "?stream=true&starting_after=x": "starting_after",
        "?starting_after=1": "starting_after",
        "?streem=true": "streem",
        "/input_items?order=up": "order",
        "/input_items?limit=0": "limit",
        "/input_items?limit=1e3": "limit",
    }

    for query, param in asked.items():
        reply = await edge.get(f"{PATH}/{made}{query}")
        assert (400, param) == (reply.status, reply.error["param"])


async def test_the_description_has_it_all(edge: Edge) -> None:
    """Every path and the shape of the body."""
    described = orjson.loads((await edge.get("/openapi.json")).body)

    assert {"get", "delete"} <= set(described["paths"]["/v1/responses/{id}"])
    assert "ResponseRequest" in described["components"]["schemas"]

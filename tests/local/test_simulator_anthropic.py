"""The simulator speaks the Messages API to Anthropic's own SDK."""

from __future__ import annotations

from typing import Any

import aiohttp
import anthropic as sdk
import pytest
from anthropic import AsyncAnthropic

from local.simulator import Simulator

HELLO: Any = [{"role": "user", "content": "hello there"}]
WEATHER: Any = {
    "name": "get_weather",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


async def test_whole_message(anthropic: AsyncAnthropic) -> None:
    """A message answers the prompt and is billed; the rate-limit headers are Anthropic's."""
    raw = await anthropic.messages.with_raw_response.create(model="claude-sonnet-5", max_tokens=300, messages=HELLO)
    message = await raw.parse()
    assert message.content[0].type == "text"
    assert "hello there" in message.content[0].text
    assert message.stop_reason == "end_turn"
    assert message.usage.input_tokens == 7
    assert raw.headers["anthropic-ratelimit-requests-reset"].endswith("Z")
    assert raw.headers["request-id"] == "req_sim00000001"


async def test_stream(anthropic: AsyncAnthropic) -> None:
    """A stream adds up to the whole message, usage included."""
    whole = await anthropic.messages.create(model="claude-sonnet-5", max_tokens=300, messages=HELLO)
    async with anthropic.messages.stream(model="claude-sonnet-5", max_tokens=300, messages=HELLO) as stream:
        kinds = [event.type async for event in stream]
        final = await stream.get_final_message()
    assert [block.to_dict()["text"] for block in final.content] == [block.to_dict()["text"] for block in whole.content]
    assert final.usage.output_tokens == whole.usage.output_tokens
    assert kinds[0] == "message_start"
    assert kinds[-1] == "message_stop"


async def test_tools(anthropic: AsyncAnthropic) -> None:
    """A mentioned tool is used, whole and streamed alike; its result is answered in words."""
    messages: Any = [{"role": "user", "content": "What is the weather in Oslo?"}]
    message = await anthropic.messages.create(model="c", max_tokens=300, messages=messages, tools=[WEATHER])
    async with anthropic.messages.stream(model="c", max_tokens=300, messages=messages, tools=[WEATHER]) as stream:
        streamed = await stream.get_final_message()
    use = message.content[0]
    assert use.type == "tool_use"
    assert use.input == {"city": "Oslo"}
    assert message.stop_reason == "tool_use"
    assert streamed.content == message.content
    result = {"type": "tool_result", "tool_use_id": use.id, "content": "rain"}
    messages += [{"role": "assistant", "content": message.content}, {"role": "user", "content": [result]}]
    after = await anthropic.messages.create(model="c", max_tokens=300, messages=messages, tools=[WEATHER])
    assert after.content[0].type == "text"
    assert "rain" in after.content[0].text


@pytest.mark.parametrize(("choice", "reason"), [({"type": "any"}, "tool_use"), ({"type": "none"}, "end_turn")])
async def test_tool_choice(anthropic: AsyncAnthropic, choice: Any, reason: str) -> None:
    """Any forces a tool, none forbids it."""
    message = await anthropic.messages.create(model="c", max_tokens=300, messages=HELLO, tools=[WEATHER], tool_choice=choice)
    assert message.stop_reason == reason


async def test_cache_usage(anthropic: AsyncAnthropic) -> None:
    """A marked prompt is written to the cache once and read from it afterwards; input_tokens leaves both out."""
    system: Any = [{"type": "text", "text": "rule " * 400, "cache_control": {"type": "ephemeral"}}]
    seen = []
    for _ in range(2):
        message = await anthropic.messages.create(model="c", max_tokens=9, messages=HELLO, system=system)
        usage = message.usage
        seen.append((usage.input_tokens, usage.cache_creation_input_tokens, usage.cache_read_input_tokens))
    assert seen == [(7, 500, 0), (7, 0, 500)]


async def test_limits_and_stops(anthropic: AsyncAnthropic) -> None:
    """max_tokens and stop_sequences end the answer and say so."""
    short = await anthropic.messages.create(model="c", max_tokens=5, messages=HELLO)
    assert (short.stop_reason, short.usage.output_tokens) == ("max_tokens", 5)
    stopped = await anthropic.messages.create(model="c", max_tokens=99, messages=HELLO, stop_sequences=["simulated"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "simulated")


async def test_images(anthropic: AsyncAnthropic) -> None:
    """An image is accepted and costs tokens."""
    source = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    content: Any = [{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]
    message = await anthropic.messages.create(model="c", max_tokens=99, messages=[{"role": "user", "content": content}])
    assert message.usage.input_tokens > 1600


async def test_count_tokens(anthropic: AsyncAnthropic) -> None:
    """Counting tokens agrees with what a message is billed."""
    counted = await anthropic.messages.count_tokens(model="c", messages=HELLO)
    assert counted.input_tokens == 7


async def test_refusals(anthropic: AsyncAnthropic, http: aiohttp.ClientSession, simulator: Simulator) -> None:
    """Key, version, max_tokens and, of new models, prefill are checked; 529 is overloaded_error."""
    body: dict[str, Any] = {"model": "claude-opus-5", "max_tokens": 9, "messages": HELLO}
    for headers, status, kind in (
        ({}, 401, "authentication_error"),
        ({"x-api-key": "k"}, 400, "invalid_request_error"),
    ):
        async with http.post("/anthropic/v1/messages", json=body, headers=headers) as response:
            assert response.status == status
            assert (await response.json())["error"]["type"] == kind
    with pytest.raises(sdk.BadRequestError, match="max_tokens"):
        await anthropic.messages.create(**body, extra_body={"max_tokens": None})
    with pytest.raises(sdk.BadRequestError, match="prefill"):
        await anthropic.messages.create(**body | {"messages": [*HELLO, {"role": "assistant", "content": "Well"}]})
    simulator.script({"profile": "anthropic", "faults": ["overloaded", "rate_limited_s"]})
    with pytest.raises(sdk.APIStatusError) as overloaded:
        await anthropic.messages.create(**body)
    assert overloaded.value.status_code == 529
    with pytest.raises(sdk.RateLimitError) as limited:
        await anthropic.messages.create(**body)
    assert limited.value.response.headers["retry-after"] == "1"


async def test_error_in_stream(anthropic: AsyncAnthropic, simulator: Simulator) -> None:
    """An error event in mid-stream is raised by the SDK after some text."""
    simulator.script({"profile": "anthropic", "faults": ["error_mid_stream"]})
    seen = []
    with pytest.raises(sdk.APIStatusError, match="Internal server error"):
        async with anthropic.messages.stream(model="c", max_tokens=99, messages=HELLO) as stream:
            seen = [text async for text in stream.text_stream]
    assert simulator.log()[0].billed.output_tokens > 0
    assert seen == []

"""The simulator speaks OpenAI's protocol to OpenAI's own SDK."""

from __future__ import annotations

import asyncio
import json
import math
from typing import Any

import pytest
from openai import AsyncOpenAI, BadRequestError, OpenAI
from pydantic import BaseModel

from local.simulator import Simulator

HELLO: Any = [{"role": "user", "content": "Tell me about railway signals"}]
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string"},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "days": {"type": "integer", "minimum": 2},
            },
            "required": ["city", "unit", "days"],
            "additionalProperties": False,
        },
    },
}


class Train(BaseModel):
    """What structured output is asked to look like."""

    name: str
    wheels: int
    cars: list[str]
    electric: bool


async def test_whole_answer(openai: AsyncOpenAI) -> None:
    """A whole answer names the model and the prompt, and its token counts add up."""
    answer = await openai.chat.completions.create(model="gpt-4o", messages=HELLO)
    assert "gpt-4o" in (answer.choices[0].message.content or "")
    assert "railway signals" in (answer.choices[0].message.content or "")
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer._request_id == "req_sim00000001"


def test_same_request_same_answer_sync_client() -> None:
    """The same request is given the same words by another simulator; another seed, other words."""

    async def serve() -> list[str]:
        simulator = Simulator(log_limit=10)
        await simulator.serve(0)
        async with simulator:
            return await asyncio.to_thread(_ask_three_times, simulator.url)

    first, second = asyncio.run(serve()), asyncio.run(serve())
    assert first == second
    assert len(set(first)) > 1


def _ask_three_times(url: str) -> list[str]:
    with OpenAI(api_key="sk-fake", base_url=f"{url}/v1", max_retries=0) as client:
        answers = [client.chat.completions.create(model="gpt-4o", messages=HELLO, seed=seed) for seed in range(3)]
        return [answer.choices[0].message.content or "" for answer in answers]


async def test_sync_stream(simulator: Simulator) -> None:
    """The synchronous client reads a stream to its end."""

    def read() -> str:
        with OpenAI(api_key="sk-fake", base_url=f"{simulator.url}/v1", max_retries=0) as client:
            stream = client.chat.completions.create(model="gpt-4o", messages=HELLO, stream=True)
            return "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    assert "railway signals" in await asyncio.to_thread(read)


async def test_stream_says_what_the_whole_answer_says(openai: AsyncOpenAI) -> None:
    """Streamed and whole answers have the same text and the same usage; usage comes last, in a chunk without choices."""
    whole = await openai.chat.completions.create(model="gpt-4o", messages=HELLO)
    chunks = [
        chunk
        async for chunk in await openai.chat.completions.create(
            model="gpt-4o", messages=HELLO, stream=True, stream_options={"include_usage": True}
        )
    ]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert whole.choices[0].message.content == text
    assert chunks[-1].choices == []
    assert chunks[-1].usage == whole.usage
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]


async def test_tools(openai: AsyncOpenAI) -> None:
    """A tool that the prompt mentions is called with arguments that satisfy its schema; its result ends the calls."""
    messages: Any = [{"role": "user", "content": "What is the weather in Paris?"}]
    answer = await openai.chat.completions.create(model="gpt-4o", messages=messages, tools=[WEATHER])
    (call,) = answer.choices[0].message.tool_calls or []
    assert answer.choices[0].finish_reason == "tool_calls"
    assert call.type == "function"
    assert json.loads(call.function.arguments) == {"city": "Paris", "unit": "celsius", "days": 2}
    messages += [answer.choices[0].message, {"role": "tool", "tool_call_id": call.id, "content": "sunny, 21 degrees"}]
    after = await openai.chat.completions.create(model="gpt-4o", messages=messages, tools=[WEATHER])
    assert "sunny, 21 degrees" in (after.choices[0].message.content or "")


async def test_tool_choice(openai: AsyncOpenAI) -> None:
    """A forced tool is called without being mentioned, one that is forbidden never, and an unmentioned one is left alone."""
    forced: Any = {"type": "function", "function": {"name": "get_weather"}}
    kinds: dict[Any, str] = {"auto": "stop", "required": "tool_calls", "none": "stop"}
    answers: dict[str, str] = {}
    for choice in kinds:
        answer = await openai.chat.completions.create(
            model="gpt-4o",
            messages=HELLO,
            tools=[WEATHER],
            tool_choice=choice,
        )
        answers[choice] = answer.choices[0].finish_reason
    assert kinds == answers
    named = await openai.chat.completions.create(model="m", messages=HELLO, tools=[WEATHER], tool_choice=forced)
    assert named.choices[0].finish_reason == "tool_calls"


async def test_streamed_tool_call(openai: AsyncOpenAI) -> None:
    """The pieces of a streamed tool call, put together by the SDK, are the whole call."""
    messages: Any = [{"role": "user", "content": "weather in Rome?"}]
    async with openai.chat.completions.stream(model="gpt-4o", messages=messages, tools=[WEATHER]) as stream:
        final = await stream.get_final_completion()
    (call,) = final.choices[0].message.tool_calls or []
    assert json.loads(call.function.arguments)["city"] == "Rome"
    assert final.choices[0].finish_reason == "tool_calls"


async def test_json_schema(openai: AsyncOpenAI) -> None:
    """Structured output validates against the schema the SDK sent."""
    answer = await openai.chat.completions.parse(model="gpt-4o", messages=HELLO, response_format=Train)
    assert isinstance(answer.choices[0].message.parsed, Train)


async def test_json_object(openai: AsyncOpenAI) -> None:
    """With json_object the answer is a JSON object."""
    answer = await openai.chat.completions.create(model="gpt-4o", messages=HELLO, response_format={"type": "json_object"})
    assert isinstance(json.loads(answer.choices[0].message.content or ""), dict)


async def test_choices_logprobs_stop_and_length(openai: AsyncOpenAI) -> None:
    """Choices are as many as asked, differ, carry log probabilities that spell the text, and obey stop and max_tokens."""
    answer = await openai.chat.completions.create(
        model="gpt-4o", messages=HELLO, n=3, logprobs=True, top_logprobs=2, max_tokens=30
    )
    assert [0, 1, 2] == [choice.index for choice in answer.choices]
    assert {"length"} == {choice.finish_reason for choice in answer.choices}
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 90
    first = answer.choices[0]
    assert first.logprobs is not None
    assert "".join(item.token for item in first.logprobs.content or []) == first.message.content
    assert {2} == {len(item.top_logprobs) for item in first.logprobs.content or []}
    stopped = await openai.chat.completions.create(model="gpt-4o", messages=HELLO, stop=["railway"])
    assert (stopped.choices[0].message.content or "").endswith("Tell me about ")
    assert stopped.choices[0].finish_reason == "stop"


async def test_reasoning_model(openai: AsyncOpenAI) -> None:
    """A reasoning model refuses max_tokens, counts its thoughts, and says nothing when they used up the allowance."""
    with pytest.raises(BadRequestError) as refused:
        await openai.chat.completions.create(model="gpt-5-mini", messages=HELLO, max_tokens=10)
    assert refused.value.code == "unsupported_parameter"
    assert refused.value.param == "max_tokens"
    with pytest.raises(BadRequestError, match="temperature"):
        await openai.chat.completions.create(model="o4-mini", messages=HELLO, temperature=0.2)
    answer = await openai.chat.completions.create(model="gpt-6-sol", messages=HELLO, reasoning_effort="high")
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert answer.usage.completion_tokens_details.reasoning_tokens == 128
    starved = await openai.chat.completions.create(model="gpt-5", messages=HELLO, max_completion_tokens=20)
    assert starved.choices[0].message.content == ""
    assert starved.choices[0].finish_reason == "length"
    assert starved.usage is not None
    assert starved.usage.completion_tokens == 20


async def test_models_that_reason_only_when_asked_sample_until_then(openai: AsyncOpenAI) -> None:
    """GPT-5.1 to 5.4 take a temperature while their effort is none, which it is unless the request says otherwise."""
    for asked in ({}, {"reasoning_effort": "none"}):
        answer = await openai.chat.completions.create(model="gpt-5.4-mini", messages=HELLO, temperature=0.2, extra_body=asked)
        assert answer.choices[0].message.content
    with pytest.raises(BadRequestError, match="temperature"):
        await openai.chat.completions.create(model="gpt-5.4-mini", messages=HELLO, temperature=0.2, reasoning_effort="low")


async def test_prompt_cache_and_tier(openai: AsyncOpenAI) -> None:
    """A long prompt is read from the cache the second time; the service tier is echoed."""
    long: Any = [{"role": "system", "content": "rule " * 2000}, *HELLO]
    cached = []
    for _ in range(2):
        answer = await openai.chat.completions.create(model="gpt-4o", messages=long, service_tier="flex")
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        cached.append(answer.usage.prompt_tokens_details.cached_tokens)
    assert cached == [0, 2432]
    assert answer.service_tier == "flex"
    assert answer.system_fingerprint == "fp_simulator"


def _dot(one: list[float], two: list[float]) -> float:
    return sum(a * b for a, b in zip(one, two, strict=True))


async def test_embeddings(openai: AsyncOpenAI) -> None:
    """Floats and base64 are the same vectors, of length 1 and the wanted size; likeness in words is likeness in angle."""
    texts = ["green signal for the train", "the train has a green signal", "quarterly tax report"]
    floats = await openai.embeddings.create(model="text-embedding-3-small", input=texts, encoding_format="float")
    packed = await openai.embeddings.create(model="text-embedding-3-small", input=texts)
    one, two, three = (item.embedding for item in floats.data)
    assert [item.embedding for item in packed.data] == [one, two, three]
    assert len(one) == 1536
    assert math.hypot(*one) == pytest.approx(1, abs=1e-5)
    assert _dot(one, two) > 0.5 > _dot(one, three)
    assert floats.usage.prompt_tokens == 19
    short = await openai.embeddings.create(model="text-embedding-3-large", input="x", dimensions=256)
    assert len(short.data[0].embedding) == 256


async def test_legacy_completions(openai: AsyncOpenAI) -> None:
    """A legacy completion stops at 16 tokens unless told otherwise, echoes, takes several prompts and streams."""
    answer = await openai.completions.create(model="gpt-3.5-turbo-instruct", prompt=["one", "two"], echo=True)
    assert [0, 1] == [choice.index for choice in answer.choices]
    assert answer.choices[1].text.startswith("twoThis is a simulated answer")
    assert answer.choices[0].finish_reason == "length"
    stream = await openai.completions.create(model="m", prompt="one", max_tokens=200, stream=True)
    text = "".join([chunk.choices[0].text async for chunk in stream])
    assert "“one”" in text


async def test_models(openai: AsyncOpenAI, simulator: Simulator) -> None:
    """The models listed are those the script says are deployed; others are not found."""
    simulator.script({"profile": "openai", "models": ["gpt-4o"]})
    assert [model.id async for model in openai.models.list()] == ["gpt-4o"]


@pytest.mark.parametrize(
    ("field", "value"),
    [("messages", []), ("messages", [{"role": "nobody"}]), ("n", 0), ("temperature", 9), ("stream", "yes"), ("tools", [])],
)
async def test_bad_fields(openai: AsyncOpenAI, field: str, value: object) -> None:
    """A bad field is refused with 400 and named."""
    with pytest.raises(BadRequestError) as refused:
        await openai.chat.completions.create(model="m", messages=HELLO, extra_body={field: value})
    assert field in str(refused.value.param)


async def test_images_count(openai: AsyncOpenAI) -> None:
    """An image costs tokens, and the text beside it is the prompt."""
    content: Any = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]
    answer = await openai.chat.completions.create(model="gpt-4o", messages=[{"role": "user", "content": content}])
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 4 + 4 + 85
    assert "What is this?" in (answer.choices[0].message.content or "")

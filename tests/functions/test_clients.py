"""The clients people use: OpenAI's SDK in every way, AzureOpenAI, LangChain. Only their address and key were changed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator

import httpx
import openai
import pytest
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from openai import AsyncAzureOpenAI, AsyncOpenAI, AzureOpenAI, OpenAI
from openai.types.chat import ChatCompletionToolParam
from pydantic import BaseModel, SecretStr

from tests.functions.harness import Edge

WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather at a place",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


PERSON: dict[str, object] = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


class Person(BaseModel):
    """What is asked for as structured output."""

    name: str
    age: int


@pytest.fixture
async def client(edge: Edge) -> AsyncIterator[AsyncOpenAI]:
    """Return OpenAI's client, pointed here."""
    async with AsyncOpenAI(base_url=f"{edge.url}/v1", api_key=edge.admin, max_retries=0) as found:
        yield found


@pytest.fixture
async def azure(edge: Edge) -> AsyncIterator[AsyncAzureOpenAI]:
    """Return Azure's client, pointed here."""
    async with AsyncAzureOpenAI(azure_endpoint=edge.url, api_key=edge.admin, api_version="2024-10-21", max_retries=0) as found:
        yield found


async def test_chat(client: AsyncOpenAI) -> None:
    """A whole answer."""
    answer = await client.chat.completions.create(model="small", messages=[{"role": "user", "content": "Hello"}])

    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.total_tokens > 0


async def test_chat_sync(edge: Edge) -> None:
    """The synchronous client, whole and streamed."""

    def ask() -> tuple[str | None, str]:
        with OpenAI(base_url=f"{edge.url}/v1", api_key=edge.admin, max_retries=0) as client:
            whole = client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "Hello"}])
            stream = client.chat.completions.create(model="auto", messages=[{"role": "user", "content": "Hello"}], stream=True)
            return whole.choices[0].message.content, "".join(chunk.choices[0].delta.content or "" for chunk in stream)

    whole, streamed = await asyncio.to_thread(ask)

    assert whole
    assert whole == streamed


async def test_chat_streamed(client: AsyncOpenAI) -> None:
    """A stream with its usage chunk, which carries what it cost."""
    stream = await client.chat.completions.create(
        model="small",
        messages=[{"role": "user", "content": "Hello"}],
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]

    assert "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert chunks[-1].usage is not None
    assert (chunks[-1].model_extra or {})["switchyard"]["cost_usd"] > 0


async def test_the_sdk_sees_our_headers(client: AsyncOpenAI) -> None:
    """with_raw_response shows who answered; the SDK's own request id is ours."""
    raw = await client.chat.completions.with_raw_response.create(model="small", messages=[{"role": "user", "content": "Hello"}])

    assert raw.headers["x-switchyard-deployment"] == "north/small"
    assert raw.request_id == raw.headers["x-request-id"]


async def test_our_own_fields_come_with_extra_body(client: AsyncOpenAI) -> None:
    """task_type, model_preferences, budget_limit and priority steer the route."""
    raw = await client.chat.completions.with_raw_response.create(
        model="auto",
        messages=[{"role": "user", "content": "x"}],
        max_tokens=10,
        extra_body={
            "task_type": "code-generation",
            "model_preferences": {"exclude_models": ["big"]},
            "budget_limit": 0.5,
            "priority": "high",
        },
    )

    assert raw.headers["x-switchyard-model"] == "small"


async def test_tools(client: AsyncOpenAI) -> None:
    """A tool call, its result, and the answer."""
    first = await client.chat.completions.create(
        model="small", messages=[{"role": "user", "content": "Weather in Rome?"}], tools=[WEATHER], tool_choice="required"
    )
    call = (first.choices[0].message.tool_calls or [])[0]
    assert call.type == "function"
    assert call.function.name == "get_weather"
    assert "city" in json.loads(call.function.arguments)

    repeated = {"name": call.function.name, "arguments": call.function.arguments}
    second = await client.chat.completions.create(
        model="small",
        messages=[
            {"role": "user", "content": "Weather in Rome?"},
            {"role": "assistant", "tool_calls": [{"id": call.id, "type": "function", "function": repeated}]},  # type: ignore[typeddict-item]
            {"role": "tool", "tool_call_id": call.id, "content": "sunny"},
        ],
        tools=[WEATHER],
    )
    assert second.choices[0].message.content


async def test_tools_streamed(client: AsyncOpenAI) -> None:
    """A tool call in pieces."""
    stream = await client.chat.completions.create(
        model="small", messages=[{"role": "user", "content": "Weather?"}], tools=[WEATHER], tool_choice="required", stream=True
    )
    pieces = [
        call.function.arguments or ""
        async for chunk in stream
        for choice in chunk.choices
        for call in choice.delta.tool_calls or []
        if call.function
    ]

    assert "city" in json.loads("".join(pieces))


async def test_structured_output(client: AsyncOpenAI) -> None:
    """A JSON schema goes to a model that has the capability, and parses."""
    raw = await client.chat.completions.with_raw_response.create(
        model="auto",
        messages=[{"role": "user", "content": "Who?"}],
        response_format={
            "type": "json_schema",
            "json_schema": {
                "name": "person",
                "strict": True,
                "schema": {**Person.model_json_schema(), "additionalProperties": False},
            },
        },
    )
    content = raw.parse().choices[0].message.content

    assert Person.model_validate_json(content or "")
    assert raw.headers["x-switchyard-model"] == "big"


async def test_images_go_to_a_model_that_sees(client: AsyncOpenAI) -> None:
    """Parts are passed on; `small` is blind and is not asked."""
    picture = "data:image/png;base64,iVBORw0KGgo="
    raw = await client.chat.completions.with_raw_response.create(
        model="auto",
        messages=[
            {
                "role": "user",
                "content": [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {"url": picture}}],
            }
        ],
    )

    assert raw.headers["x-switchyard-model"] == "big"


async def test_a_claude_model_answers_openais_client(client: AsyncOpenAI) -> None:
    """Another protocol behind the same endpoint, whole and streamed."""
    answer = await client.chat.completions.create(
        model="sonnet", messages=[{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hello"}]
    )
    stream = await client.chat.completions.create(model="sonnet", messages=[{"role": "user", "content": "Hello"}], stream=True)

    assert answer.choices[0].message.content
    assert "".join([choice.delta.content or "" async for chunk in stream for choice in chunk.choices])


async def test_embeddings(client: AsyncOpenAI) -> None:
    """One text and several, as floats (the SDK asks for base64 behind our back)."""
    one = await client.embeddings.create(model="vectors", input="a", dimensions=8)
    several = await client.embeddings.create(model="vectors", input=["a", "b"], dimensions=8)

    assert len(one.data[0].embedding) == 8
    assert [0, 1] == [item.index for item in several.data]
    assert one.data[0].embedding == several.data[0].embedding


async def test_legacy_completions(client: AsyncOpenAI) -> None:
    """The old endpoint, with several prompts and choices."""
    answer = await client.completions.create(model="small", prompt=["a", "b"], n=2, max_tokens=5, echo=True)

    assert answer.object == "text_completion"
    assert [0, 1, 2, 3] == [choice.index for choice in answer.choices]
    assert ["a", "a", "b", "b"] == [choice.text[0] for choice in answer.choices]
    assert answer.usage is not None
    assert answer.usage.completion_tokens > 0


async def test_models(client: AsyncOpenAI) -> None:
    """The list and one of it; aliases are models too."""
    names = [model.id async for model in client.models.list()]

    assert {"big", "small", "vectors", "fast"} <= set(names)
    assert "gone" not in names
    assert (await client.models.retrieve("fast")).id == "fast"
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("nothing")


async def test_errors_are_the_sdks_own(client: AsyncOpenAI, edge: Edge) -> None:
    """Each refusal arrives as the exception that application code catches."""
    user = {"role": "user", "content": "Hello"}
    with pytest.raises(openai.BadRequestError) as bad:
        await client.chat.completions.create(model="small", messages=[user], temperature=9)  # type: ignore[list-item]
    assert bad.value.param == "temperature"
    with pytest.raises(openai.NotFoundError) as unknown:
        await client.chat.completions.create(model="nothing", messages=[user])  # type: ignore[list-item]
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="wrong").models.list()
    edge.simulator.script({"rates": {"rate_limited_s": 1.0}, "seed": 1})
    with pytest.raises(openai.RateLimitError) as throttled:
        await client.chat.completions.create(model="small", messages=[user])  # type: ignore[list-item]
    assert int(throttled.value.response.headers["retry-after"]) >= 1


async def test_an_interrupted_stream_raises(client: AsyncOpenAI, edge: Edge) -> None:
    """The error event reaches application code as an exception, after what was streamed."""
    edge.simulator.script({"faults": ["reset_mid_stream"]})
    stream = await client.chat.completions.create(model="small", messages=[{"role": "user", "content": "Hello"}], stream=True)
    with pytest.raises(openai.APIError, match="cut off"):
        async for _ in stream:
            pass


async def test_azure(azure: AsyncAzureOpenAI) -> None:
    """Azure's paths name the model; whole, streamed and embeddings."""
    answer = await azure.chat.completions.create(model="small", messages=[{"role": "user", "content": "Hello"}])
    stream = await azure.chat.completions.create(model="small", messages=[{"role": "user", "content": "Hello"}], stream=True)
    vectors = await azure.embeddings.create(model="vectors", input="a")

    assert answer.choices[0].message.content
    assert "".join([choice.delta.content or "" async for chunk in stream for choice in chunk.choices])
    assert vectors.data[0].embedding


async def test_azure_sync(edge: Edge) -> None:
    """The synchronous Azure client, with a deployment fixed in the client."""

    def ask() -> str | None:
        with AzureOpenAI(
            azure_endpoint=edge.url, azure_deployment="small", api_key=edge.admin, api_version="2024-10-21", max_retries=0
        ) as client:
            answer = client.chat.completions.create(model="whatever", messages=[{"role": "user", "content": "Hello"}])
            return answer.choices[0].message.content

    assert await asyncio.to_thread(ask)


async def test_azures_v1_paths(edge: Edge) -> None:
    """OpenAI's client with Azure's v1 base URL."""
    async with AsyncOpenAI(base_url=f"{edge.url}/openai/v1/", api_key=edge.admin, max_retries=0) as client:
        answer = await client.chat.completions.create(model="small", messages=[{"role": "user", "content": "Hello"}])
        legacy = await client.completions.create(model="small", prompt="Hello")
        vectors = await client.embeddings.create(model="vectors", input="a")
        names = [model.id async for model in client.models.list()]

    assert answer.choices[0].message.content
    assert legacy.choices[0].text
    assert vectors.data
    assert "small" in names


async def test_langchain(edge: Edge) -> None:
    """LangChain's OpenAI classes: invoke, stream, tools, structured output, embeddings."""
    key, url = SecretStr(edge.admin), f"{edge.url}/v1"
    async with httpx.AsyncClient() as http:
        model = ChatOpenAI(model="big", base_url=url, api_key=key, max_retries=0, http_async_client=http)
        embeddings = OpenAIEmbeddings(
            model="vectors", base_url=url, api_key=key, check_embedding_ctx_length=False, http_async_client=http
        )

        assert (await model.ainvoke("Hello")).text
        assert "".join([chunk.text async for chunk in model.astream("Hello")])
        assert (await model.bind_tools([dict(WEATHER)], tool_choice="any").ainvoke("Weather?")).tool_calls
        assert isinstance(await model.with_structured_output(Person).ainvoke("Who?"), Person)
        assert await embeddings.aembed_query("Hello")
